/* Streams in the order in which their next event is due. */
#ifndef BEAT_H
#define BEAT_H

#include "common.h"

struct stream_beat {
    int64_t due_ns;
    struct stream_beat *before, *after;
    int listed;
};

struct beats {
    struct stream_beat *first, *last;
};

void beats_add(struct beats *b, struct stream_beat *one);
void beats_remove(struct beats *b, struct stream_beat *one); /* if it is there at all */
struct stream_beat *beats_due(struct beats *b, int64_t now); /* taken out; NULL: none is */

#endif

/* What came back from one target: times, and what was wrong. */
#ifndef TALLY_H
#define TALLY_H

#include "common.h"

struct times {
    int64_t *ns;
    size_t count, room;
};

struct problem {
    char what[40];
    long count;
};

struct tally {
    struct times took; /* to the whole answer, or to the first content of a stream */
    struct times late; /* of each event, after it was sent */
    struct times untold; /* of a whole answer, what the server's own time leaves out */
    struct problem problems[16];
};

void note(struct times *t, int64_t ns);
void blame(struct tally *t, const char *what);
void print_tally(struct tally *t); /* as members of a JSON object */

#endif

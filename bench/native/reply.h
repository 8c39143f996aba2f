/* One HTTP/1.1 answer, read as it comes. */
#ifndef REPLY_H
#define REPLY_H

#include "common.h"

enum part { HEAD, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, WHOLE, BROKEN };

struct reply {
    enum part part;
    int status;
    int streamed;      /* its type is text/event-stream */
    int64_t told_ns;   /* how long it took, as the server says; -1 where it does not */
    size_t left;       /* bytes of the body, or of the chunk, that are still to come */
    struct buffer raw; /* came and is not understood yet */
    struct buffer body;
};

void reply_clear(struct reply *r);
void reply_read(struct reply *r); /* understand what has come into `raw` */

#endif

/* Whether an answer is what it has to be. */
#ifndef JUDGE_H
#define JUDGE_H

#include "reply.h"
#include "tally.h"

struct expected {
    struct buffer text; /* of every whole answer */
    long events;        /* with content, of every stream */
};

struct stream {
    long events;            /* with content so far: each has its number */
    int finished, done;     /* a finish reason came, and [DONE] */
    const char *problem;
};

/* Take the whole events that have come out of the body; times go into the tally, if there is one. */
void judge_events(struct reply *r, struct stream *s, int64_t begun, int64_t now, struct tally *t);

/* What is wrong with an answer that is over, or NULL. */
const char *judge(const struct reply *r, const struct stream *s, const struct expected *e,
                  int streamed);

#endif

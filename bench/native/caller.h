/* One connection to a target that stays open: a request out, its answer in. */
#ifndef CALLER_H
#define CALLER_H

#include "judge.h"

struct request {
    const char *data;
    size_t size;
    int streamed;
};

struct target;

struct caller {
    int fd; /* -1 while closed */
    int busy, ending; /* ending: the other side has closed */
    struct target *target;
    const struct request *request;
    size_t written;
    int64_t begun, sent; /* when it was due, and when it was sent */
    struct reply reply;
    struct stream stream;
    struct caller *next; /* of those that wait for a request */
};

enum news { NOTHING, ANSWERED, LOST };

void caller_open(struct caller *c, int epoll, const char *name, int port);
void caller_close(struct caller *c);
void caller_send(struct caller *c, const struct request *request, int64_t begun);

/* What epoll told. Times of a stream go into the tally, if there is one. */
enum news caller_moved(struct caller *c, uint32_t events, struct tally *tally);

#endif

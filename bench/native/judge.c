#define _GNU_SOURCE
#include "judge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Content of an event: "event=000017 sent=1234567890123456789;" */
static void content(const char *mark, struct stream *s, int64_t begun, int64_t now,
                    struct tally *t)
{
    char *after;
    long number = strtol(mark + 6, &after, 10);
    if (strncmp(after, " sent=", 6) != 0) {
        s->problem = "event changed";
        return;
    }
    int64_t sent = strtoll(after + 6, &after, 10);
    if (*after != ';')
        s->problem = "event changed";
    else if (number != s->events)
        s->problem = "event missing or twice";
    s->events++;
    if (t && s->events == 1)
        note(&t->took, now - begun);
    if (t)
        note(&t->late, now - sent);
}

static void event(const char *data, size_t size, struct stream *s, int64_t begun, int64_t now,
                  struct tally *t)
{
    if (size && data[0] == ':')
        return; /* a comment */
    if (size < 6 || strncmp(data, "data: ", 6) != 0 || s->done) {
        s->problem = s->done ? "event after the end" : "no event";
        return;
    }
    if (size == 12 && memcmp(data + 6, "[DONE]", 6) == 0) {
        s->done = 1;
        return;
    }
    const char *mark = found(data, size, "event=");
    if (mark)
        content(mark, s, begun, now, t);
    else if (found(data, size, "\"stop\""))
        s->finished = 1;
}

void judge_events(struct reply *r, struct stream *s, int64_t begun, int64_t now, struct tally *t)
{
    size_t used = 0;
    char *end;
    while ((end = found(r->body.data + used, r->body.size - used, "\n\n"))) {
        *end = 0; /* so that numbers end within their event */
        event(r->body.data + used, (size_t)(end - r->body.data) - used, s, begun, now, t);
        used = (size_t)(end - r->body.data) + 2;
    }
    drop(&r->body, used);
}

const char *judge(const struct reply *r, const struct stream *s, const struct expected *e,
                  int streamed)
{
    static char status[24];
    if (r->part == BROKEN)
        return "not HTTP/1.1";
    if (r->status != 200) {
        snprintf(status, sizeof status, "status %d", r->status);
        return status;
    }
    if (r->raw.size)
        return "more than promised";
    if (r->streamed != streamed)
        return streamed ? "not a stream" : "a stream";
    if (!streamed)
        return memmem(r->body.data, r->body.size, e->text.data, e->text.size) ? NULL
                                                                              : "wrong answer";
    if (s->problem)
        return s->problem;
    if (s->events != e->events)
        return "events missing";
    if (!s->finished)
        return "no finish reason";
    if (!s->done || r->body.size)
        return "no [DONE]";
    return NULL;
}

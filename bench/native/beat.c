#include "beat.h"

/* All streams have one beat, so what comes belongs at the end, or close to it. */
void beats_add(struct beats *b, struct stream_beat *one)
{
    struct stream_beat *before = b->last;
    while (before && before->due_ns > one->due_ns)
        before = before->before;
    one->before = before;
    one->after = before ? before->after : b->first;
    *(before ? &before->after : &b->first) = one;
    *(one->after ? &one->after->before : &b->last) = one;
    one->listed = 1;
}

void beats_remove(struct beats *b, struct stream_beat *one)
{
    if (!one->listed)
        return;
    *(one->before ? &one->before->after : &b->first) = one->after;
    *(one->after ? &one->after->before : &b->last) = one->before;
    one->listed = 0;
}

struct stream_beat *beats_due(struct beats *b, int64_t now)
{
    struct stream_beat *one = b->first;
    if (!one || one->due_ns > now)
        return 0;
    beats_remove(b, one);
    return one;
}

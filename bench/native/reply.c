#define _GNU_SOURCE
#include "reply.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

void reply_clear(struct reply *r)
{
    r->part = HEAD;
    r->status = r->streamed = 0;
    r->told_ns = -1;
    r->left = r->raw.size = r->body.size = 0;
}

static int field_is(const char *line, size_t size, const char *name)
{
    size_t length = strlen(name);
    return size >= length && strncasecmp(line, name, length) == 0;
}

/* The end of the line at `at`, or NULL while it is not there. */
static char *line_end(const struct buffer *b, size_t at)
{
    return found(b->data + at, b->size - at, "\r\n");
}

static enum part head(struct reply *r, size_t *used)
{
    char *end = found(r->raw.data, r->raw.size, "\r\n\r\n");
    if (!end)
        return HEAD;
    char *line = r->raw.data, *next;
    if (strncmp(line, "HTTP/1.1 ", 9) != 0)
        return BROKEN;
    r->status = atoi(line + 9);
    enum part part = BROKEN; /* neither length nor chunks: nothing tells where it ends */
    for (; line < end + 2; line = next + 2) {
        next = line_end(&r->raw, (size_t)(line - r->raw.data));
        size_t size = (size_t)(next - line);
        if (field_is(line, size, "content-length:")) {
            r->left = strtoul(line + 15, NULL, 10);
            part = r->left ? BODY : WHOLE;
        } else if (field_is(line, size, "transfer-encoding: chunked")) {
            part = CHUNK_SIZE;
        } else if (field_is(line, size, "server-timing:")) {
            char *total = found(line, size, "total;dur=");
            r->told_ns = total ? (int64_t)(strtod(total + 10, NULL) * 1e6) : -1;
        } else if (field_is(line, size, "content-type:")) {
            r->streamed = found(line, size, "text/event-stream") != NULL;
        }
    }
    *used = (size_t)(end + 4 - r->raw.data);
    return part;
}

static enum part data(struct reply *r, size_t *used, enum part next)
{
    size_t there = r->raw.size - *used;
    size_t taken = there < r->left ? there : r->left;
    append(&r->body, r->raw.data + *used, taken);
    *used += taken;
    r->left -= taken;
    return r->left ? r->part : next;
}

/* A line of the framing: the size of a chunk, the end of one, or a trailer. */
static enum part framing(struct reply *r, size_t *used)
{
    char *line = r->raw.data + *used, *end = line_end(&r->raw, *used);
    if (!end)
        return r->part;
    *used = (size_t)(end + 2 - r->raw.data);
    if (r->part == TRAILER)
        return end == line ? WHOLE : TRAILER;
    if (r->part == CHUNK_END)
        return end == line ? CHUNK_SIZE : BROKEN;
    char *after;
    r->left = strtoul(line, &after, 16);
    if (after == line)
        return BROKEN;
    return r->left ? CHUNK : TRAILER;
}

void reply_read(struct reply *r)
{
    size_t used = 0;
    for (;;) {
        enum part before = r->part;
        size_t mark = used;
        if (before == WHOLE || before == BROKEN || used == r->raw.size)
            break;
        if (before == HEAD)
            r->part = head(r, &used);
        else if (before == BODY)
            r->part = data(r, &used, WHOLE);
        else if (before == CHUNK)
            r->part = data(r, &used, CHUNK_END);
        else
            r->part = framing(r, &used);
        if (used == mark && r->part == before)
            break;
    }
    drop(&r->raw, used);
}

/* What the load generator and the upstream share: memory, time, files. */
#ifndef COMMON_H
#define COMMON_H

#include <stddef.h>
#include <stdint.h>

struct buffer {
    char *data;
    size_t size, room;
};

void reserve(struct buffer *b, size_t more); /* make room for as much after what is there */
void append(struct buffer *b, const void *data, size_t size);
void drop(struct buffer *b, size_t size); /* forget the first bytes */

void *found(const void *data, size_t size, const char *text); /* where a text begins, or NULL */
struct buffer whole_file(const char *path);
int64_t now_ns(void); /* of the clock that all processes of the machine share */
void alarm_at(int timer, int64_t at_ns); /* 0: never */
void raise_descriptors(void);            /* as many as this process is allowed */
_Noreturn void die(const char *what);    /* with what the system says */

#endif

#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>

_Noreturn void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "that cannot be");
    exit(1);
}

void reserve(struct buffer *b, size_t more)
{
    if (b->room - b->size >= more)
        return;
    size_t room = b->room ? b->room : 1024;
    while (room - b->size < more)
        room *= 2;
    b->data = realloc(b->data, room);
    if (!b->data)
        die("memory");
    b->room = room;
}

void append(struct buffer *b, const void *data, size_t size)
{
    reserve(b, size);
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

void drop(struct buffer *b, size_t size)
{
    if (!size)
        return;
    b->size -= size;
    memmove(b->data, b->data + size, b->size);
}

void *found(const void *data, size_t size, const char *text)
{
    return size ? memmem(data, size, text, strlen(text)) : NULL;
}

struct buffer whole_file(const char *path)
{
    struct buffer b = {0};
    FILE *file = fopen(path, "rb");
    if (!file)
        die(path);
    size_t got;
    do {
        reserve(&b, 65536);
        got = fread(b.data + b.size, 1, b.room - b.size, file);
        b.size += got;
    } while (got);
    if (ferror(file))
        die(path);
    fclose(file);
    return b;
}

int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void alarm_at(int timer, int64_t at_ns)
{
    struct itimerspec when = {0};
    when.it_value.tv_sec = at_ns / 1000000000;
    when.it_value.tv_nsec = at_ns % 1000000000;
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL))
        die("timer");
}

void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

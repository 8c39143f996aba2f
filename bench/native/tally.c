#include "tally.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void note(struct times *t, int64_t ns)
{
    if (t->count == t->room) {
        t->room = t->room ? t->room * 2 : 4096;
        t->ns = realloc(t->ns, t->room * sizeof *t->ns);
        if (!t->ns)
            die("memory");
    }
    t->ns[t->count++] = ns;
}

void blame(struct tally *t, const char *what)
{
    size_t most = sizeof t->problems / sizeof t->problems[0], i = 0;
    while (i < most - 1 && t->problems[i].count && strcmp(t->problems[i].what, what) != 0)
        i++;
    if (!t->problems[i].count)
        snprintf(t->problems[i].what, sizeof t->problems[i].what, "%s", what);
    t->problems[i].count++;
}

static int by_size(const void *a, const void *b)
{
    int64_t one = *(const int64_t *)a, other = *(const int64_t *)b;
    return (one > other) - (one < other);
}

/* A time that was measured: nothing is interpolated. */
static double at(const struct times *t, double share)
{
    size_t place = (size_t)(share * (double)t->count);
    if (!t->count)
        return 0.0;
    return (double)t->ns[place < t->count ? place : t->count - 1] / 1000.0;
}

static void print_times(const char *name, struct times *t)
{
    if (t->count)
        qsort(t->ns, t->count, sizeof *t->ns, by_size);
    printf("\"%s\":{\"count\":%zu,\"p50\":%.2f,\"p95\":%.2f,\"p99\":%.2f,\"p999\":%.2f,\"most\":%.2f}", name,
           t->count, at(t, 0.5), at(t, 0.95), at(t, 0.99), at(t, 0.999), at(t, 1.0));
}

void print_tally(struct tally *t)
{
    print_times("took", &t->took);
    putchar(',');
    print_times("late", &t->late);
    putchar(',');
    print_times("untold", &t->untold);
    printf(",\"errors\":{");
    size_t most = sizeof t->problems / sizeof t->problems[0];
    for (size_t i = 0; i < most && t->problems[i].count; i++)
        printf("%s\"%s\":%ld", i ? "," : "", t->problems[i].what, t->problems[i].count);
    printf("}");
}

/* The load generator: targets take turns, round after round, on connections that stay open.
 *
 *   load --connections N --rounds N --requests N [--warm-up N] [--rate N] [--seconds S]
 *        [--patience S] [--events N] --text FILE --target NAME:PORT:FILE ...
 *
 * Without a rate the loop is closed: each connection sends its next request when its answer is
 * whole. With one it is open: requests are due at a fixed beat, and their time runs from when they
 * were due, whether or not a connection was free. A round ends after its requests or its seconds.
 * Prints one JSON object, with what each target gave.
 */
#define _GNU_SOURCE
#include "caller.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { MOST_TARGETS = 8, MOST_ROUNDS = 1000, BATCH = 256, LOOK_MS = 20 };

struct target {
    char *name;
    int port;
    struct request *requests;
    size_t kinds;
    struct caller *callers, *idle;
    long sent, answered, reconnected;
    double spent_s, per_round[MOST_ROUNDS];
    struct tally tally;
    /* of the round under way */
    long issued, whole, flying;
    int64_t begun;
};

static struct {
    long connections, rounds, requests, warm_up;
    double rate, seconds, patience;
} job = {.rounds = 1, .seconds = 60, .patience = 30};

static struct expected expected;
static struct target targets[MOST_TARGETS];
static int target_count, epoll, timer;

/* When the next request of the round is due; 0 in a closed loop: as soon as it can be sent. */
static int64_t due(const struct target *t)
{
    return job.rate > 0 ? t->begun + (int64_t)((double)t->issued * 1e9 / job.rate) : 0;
}

static void rest(struct caller *c)
{
    c->busy = 0;
    c->next = c->target->idle;
    c->target->idle = c;
}

/* Send what is due on connections that are free. */
static void fire(struct target *t, long count, int64_t until)
{
    int64_t now = now_ns();
    while (t->idle && t->issued < count && now < until) {
        int64_t at = due(t);
        if (at > now) {
            alarm_at(timer, at);
            return;
        }
        struct caller *c = t->idle;
        t->idle = c->next;
        if (c->fd < 0) {
            t->reconnected++;
            caller_open(c, epoll, t->name, t->port);
        }
        const struct request *request = &t->requests[(size_t)t->issued % t->kinds];
        t->issued++;
        t->sent++;
        t->flying++;
        caller_send(c, request, at ? at : now_ns());
        now = now_ns();
    }
}

static void over(struct caller *c, enum news news, int counted)
{
    struct target *t = c->target;
    int64_t now = now_ns();
    const char *problem = "connection lost";
    if (news == ANSWERED)
        problem = judge(&c->reply, &c->stream, &expected, c->request->streamed);
    if (problem) {
        blame(&t->tally, problem);
    } else {
        t->whole++;
        if (counted && !c->request->streamed)
            note(&t->tally.took, now - c->begun);
        if (counted && !c->request->streamed && c->reply.told_ns >= 0)
            note(&t->tally.untold, llabs(now - c->sent - c->reply.told_ns));
    }
    if (problem || c->ending)
        caller_close(c);
    t->flying--;
    rest(c);
}

/* What is still under way after all patience is given up. */
static void give_up(struct target *t)
{
    for (long i = 0; i < job.connections; i++) {
        if (t->callers[i].busy) {
            blame(&t->tally, "no answer in time");
            caller_close(&t->callers[i]);
            t->flying--;
            rest(&t->callers[i]);
        }
    }
}

static void look(int counted)
{
    static struct epoll_event events[BATCH];
    int count = epoll_wait(epoll, events, BATCH, LOOK_MS);
    if (count < 0 && errno != EINTR)
        die("epoll_wait");
    for (int i = 0; i < count; i++) {
        struct caller *c = events[i].data.ptr;
        if (!c) {
            uint64_t times;
            if (read(timer, &times, sizeof times) < 0 && errno != EAGAIN)
                die("timer");
            continue;
        }
        if (c->fd < 0)
            continue;
        enum news news = caller_moved(c, events[i].events, counted ? &c->target->tally : NULL);
        if (news == NOTHING)
            continue;
        if (c->busy)
            over(c, news, counted);
        else
            caller_close(c); /* between two rounds: opened again when it is needed */
    }
}

static void round_of(struct target *t, long count, int counted)
{
    for (long i = 0; i < job.connections; i++) {
        if (t->callers[i].fd < 0) {
            t->reconnected++;
            caller_open(&t->callers[i], epoll, t->name, t->port);
        }
    }
    t->issued = t->whole = t->flying = 0;
    t->begun = now_ns();
    int64_t until = t->begun + (int64_t)(job.seconds * 1e9);
    int64_t limit = until + (int64_t)(job.patience * 1e9);
    fire(t, count, until);
    while (t->flying || (t->issued < count && now_ns() < until)) {
        look(counted);
        fire(t, count, until);
        if (now_ns() > limit)
            give_up(t);
    }
    alarm_at(timer, 0);
    if (counted) {
        double spent_s = (double)(now_ns() - t->begun) / 1e9;
        t->spent_s += spent_s;
        t->answered += t->whole;
        t->per_round[counted - 1] = (double)t->whole / spent_s;
    }
}

/* A file of requests: before each a line with its length, and `stream` or `whole`. */
static void read_requests(struct target *t, const char *path)
{
    struct buffer file = whole_file(path);
    append(&file, "", 1);
    char *at = file.data, *end = file.data + file.size - 1;
    while (at < end) {
        char *after, *line = memchr(at, '\n', (size_t)(end - at));
        size_t size = strtoul(at, &after, 10);
        if (!line || after == at || size > (size_t)(end - line - 1))
            die(path);
        t->requests = realloc(t->requests, (t->kinds + 1) * sizeof *t->requests);
        struct request request = {line + 1, size, strncmp(after, " stream", 7) == 0};
        t->requests[t->kinds++] = request;
        at = line + 1 + size;
    }
    if (!t->kinds)
        die(path);
}

static void add_target(char *told)
{
    char *port = strchr(told, ':'), *path = port ? strchr(port + 1, ':') : NULL;
    if (!path || target_count == MOST_TARGETS)
        die(told);
    *port = *path = 0;
    struct target *t = &targets[target_count++];
    t->name = told;
    t->port = atoi(port + 1);
    read_requests(t, path + 1);
}

static void read_flags(int count, char **words)
{
    static const struct option flags[] = {
        {"connections", 1, 0, 'c'}, {"rounds", 1, 0, 'r'},   {"requests", 1, 0, 'n'},
        {"warm-up", 1, 0, 'w'},     {"rate", 1, 0, 'b'},     {"seconds", 1, 0, 's'},
        {"patience", 1, 0, 'p'},    {"events", 1, 0, 'e'},   {"text", 1, 0, 't'},
        {"target", 1, 0, 'o'},      {0, 0, 0, 0},
    };
    int flag;
    while ((flag = getopt_long(count, words, "", flags, NULL)) != -1) {
        switch (flag) {
        case 'c': job.connections = atol(optarg); break;
        case 'r': job.rounds = atol(optarg); break;
        case 'n': job.requests = atol(optarg); break;
        case 'w': job.warm_up = atol(optarg); break;
        case 'b': job.rate = atof(optarg); break;
        case 's': job.seconds = atof(optarg); break;
        case 'p': job.patience = atof(optarg); break;
        case 'e': expected.events = atol(optarg); break;
        case 't': expected.text = whole_file(optarg); break;
        case 'o': add_target(optarg); break;
        default: exit(2);
        }
    }
    if (job.connections < 1 || job.rounds < 1 || job.rounds > MOST_ROUNDS || !target_count)
        die("flags");
}

static void print_target(struct target *t)
{
    printf("\"%s\":{\"sent\":%ld,\"answered\":%ld,\"reconnected\":%ld,", t->name, t->sent,
           t->answered, t->reconnected);
    printf("\"per_s\":%.1f,\"per_round\":[", t->spent_s > 0 ? (double)t->answered / t->spent_s : 0);
    for (long i = 0; i < job.rounds; i++)
        printf("%s%.1f", i ? "," : "", t->per_round[i]);
    printf("],");
    print_tally(&t->tally);
    putchar('}');
}

int main(int count, char **words)
{
    raise_descriptors();
    read_flags(count, words);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll < 0 || timer < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event))
        die("epoll");
    for (struct target *t = targets; t < targets + target_count; t++) {
        t->callers = calloc((size_t)job.connections, sizeof *t->callers);
        for (long i = 0; i < job.connections; i++) {
            t->callers[i].target = t;
            caller_open(&t->callers[i], epoll, t->name, t->port);
            rest(&t->callers[i]);
        }
        if (job.warm_up)
            round_of(t, job.warm_up, 0);
    }
    for (int round = 1; round <= job.rounds; round++)
        for (struct target *t = targets; t < targets + target_count; t++)
            round_of(t, job.requests, round);
    putchar('{');
    for (int i = 0; i < target_count; i++) {
        if (i)
            putchar(',');
        print_target(&targets[i]);
    }
    puts("}");
    return 0;
}

/* The upstream: answers at once with fixed bytes, and streams events at a fixed beat.
 *
 *   upstream --replies FOLDER --events N --interval-us N [--hold N --hold-ms N]
 *
 * FOLDER holds the bytes: whole, missing, head, event, tail. With --hold, requests whose text has
 * "hold=" wait until N of them are there, and then as long as it says. Prints its port as JSON;
 * ends when its standard input does.
 */
#define _GNU_SOURCE
#include "beat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { BATCH = 256, PIECE = 65536, TAIL = 256 };

struct connection {
    struct stream_beat beat; /* first, so that one can be had from the other */
    int fd;
    int streaming, held;
    long number; /* of the next event */
    struct buffer in, out;
    struct connection *next_held;
};

static struct {
    struct buffer whole, missing, head, event, tail;
    size_t mark; /* where in an event its number and time stand */
} replies;

static long events = 100, hold, holding;
static int64_t interval_ns = 20000000, hold_ns, release_at;
static struct connection *held;
static struct beats beats;
static int epoll, listening, timer;

static void flush(struct connection *c)
{
    size_t done = 0;
    while (done < c->out.size) {
        ssize_t sent = send(c->fd, c->out.data + done, c->out.size - done,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0)
            break; /* later, or lost, which the next event tells */
        done += (size_t)sent;
    }
    drop(&c->out, done);
}

static void reply(struct connection *c, const struct buffer *bytes)
{
    append(&c->out, bytes->data, bytes->size);
    flush(c);
}

/* The next event, with its number and the moment it is written; after the last one the end. */
static void next_event(struct connection *c)
{
    if (c->number == events) {
        c->streaming = 0;
        reply(c, &replies.tail);
        return;
    }
    char told[40];
    int size = snprintf(told, sizeof told, "event=%06ld sent=%019lld;", c->number++,
                        (long long)now_ns());
    memcpy(replies.event.data + replies.mark, told, (size_t)size);
    reply(c, &replies.event);
    c->beat.due_ns += interval_ns;
    beats_add(&beats, &c->beat);
}

/* Our requests say it at their end; whoever writes them anew may say it anywhere. */
static int wants_stream(const char *body, size_t size)
{
    size_t tail = size < TAIL ? size : TAIL;
    const char *said = found(body + size - tail, tail, "\"stream\":");
    if (!said)
        said = found(body, size, "\"stream\":");
    return said && (strncmp(said + 9, "true", 4) == 0 || strncmp(said + 9, " true", 5) == 0);
}

static void answer(struct connection *c, const char *head, const char *body, size_t size)
{
    if (strncmp(head, "POST ", 5) != 0) {
        reply(c, &replies.missing);
    } else if (hold && found(body, size, "hold=")) {
        c->held = 1;
        c->next_held = held;
        held = c;
        if (++holding == hold)
            release_at = now_ns() + hold_ns;
    } else if (wants_stream(body, size)) {
        c->streaming = 1;
        c->number = 0;
        c->beat.due_ns = now_ns();
        reply(c, &replies.head);
        next_event(c);
    } else {
        reply(c, &replies.whole);
    }
}

static void release(void)
{
    release_at = holding = 0;
    while (held) {
        struct connection *c = held;
        held = c->next_held;
        c->held = 0;
        reply(c, &replies.whole);
    }
}

/* How long the body is; the head ends with a 0. */
static size_t body_size(const char *head)
{
    const char *field = strcasestr(head, "\r\ncontent-length:");
    return field ? strtoul(field + 17, NULL, 10) : 0;
}

static void read_requests(struct connection *c)
{
    size_t used = 0;
    while (!c->streaming && !c->held) {
        char *head = c->in.data + used;
        char *end = found(head, c->in.size - used, "\r\n\r\n");
        if (!end)
            break;
        *end = 0;
        size_t size = body_size(head);
        size_t whole = (size_t)(end + 4 - head) + size;
        if (c->in.size - used < whole) {
            *end = '\r';
            break;
        }
        answer(c, head, end + 4, size);
        used += whole;
    }
    drop(&c->in, used);
}

static void leave(struct connection *c)
{
    beats_remove(&beats, &c->beat);
    for (struct connection **at = &held; c->held && *at; at = &(*at)->next_held) {
        if (*at == c) {
            *at = c->next_held;
            holding--;
            break;
        }
    }
    close(c->fd);
    free(c->in.data);
    free(c->out.data);
    free(c);
}

static void moved(struct connection *c, uint32_t told)
{
    if (told & EPOLLOUT)
        flush(c);
    int ending = (told & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    for (;;) {
        reserve(&c->in, PIECE);
        size_t asked = c->in.room - c->in.size;
        ssize_t got = recv(c->fd, c->in.data + c->in.size, asked, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            leave(c);
            return;
        }
        c->in.size += (size_t)got;
        read_requests(c);
        if ((size_t)got < asked && !ending)
            return;
    }
}

static void welcome(void)
{
    int on = 1, fd;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        if (!c)
            die("memory");
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
        event.data.ptr = c;
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
            die("epoll");
    }
}

static void watch(int fd, void *who)
{
    struct epoll_event event = {.events = EPOLLIN};
    event.data.ptr = who;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
        die("epoll");
}

static int open_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listening < 0 || bind(listening, (struct sockaddr *)&at, sizeof at)
        || listen(listening, 4096) || getsockname(listening, (struct sockaddr *)&at, &size))
        die("listen");
    return ntohs(at.sin_port);
}

static void read_replies(const char *folder)
{
    static const char *names[] = {"whole", "missing", "head", "event", "tail"};
    struct buffer *into[] = {&replies.whole, &replies.missing, &replies.head, &replies.event,
                             &replies.tail};
    for (int i = 0; i < 5; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        *into[i] = whole_file(path);
    }
    char *mark = found(replies.event.data, replies.event.size, "event=");
    if (!mark)
        die("an event without a mark");
    replies.mark = (size_t)(mark - replies.event.data);
}

static void read_flags(int count, char **words)
{
    static const struct option flags[] = {
        {"replies", 1, 0, 'r'}, {"events", 1, 0, 'e'},  {"interval-us", 1, 0, 'i'},
        {"hold", 1, 0, 'h'},    {"hold-ms", 1, 0, 'm'}, {0, 0, 0, 0},
    };
    int flag;
    while ((flag = getopt_long(count, words, "", flags, NULL)) != -1) {
        switch (flag) {
        case 'r': read_replies(optarg); break;
        case 'e': events = atol(optarg); break;
        case 'i': interval_ns = atoll(optarg) * 1000; break;
        case 'h': hold = atol(optarg); break;
        case 'm': hold_ns = atoll(optarg) * 1000000; break;
        default: exit(2);
        }
    }
    if (!replies.whole.size)
        die("--replies");
}

/* Everything that is due by now; when the next thing is. */
static int64_t run_due(void)
{
    int64_t now = now_ns();
    if (release_at && release_at <= now)
        release();
    struct stream_beat *beat;
    while ((beat = beats_due(&beats, now)))
        next_event((struct connection *)beat);
    int64_t next = beats.first ? beats.first->due_ns : 0;
    return release_at && (!next || release_at < next) ? release_at : next;
}

int main(int count, char **words)
{
    static struct epoll_event told[BATCH];
    static char alarm_mark, end_mark;
    raise_descriptors();
    read_flags(count, words);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (epoll < 0 || timer < 0)
        die("epoll");
    int port = open_port();
    watch(listening, NULL);
    watch(timer, &alarm_mark);
    watch(STDIN_FILENO, &end_mark);
    printf("{\"port\": %d}\n", port);
    fflush(stdout);
    int64_t armed = 0;
    for (;;) {
        int64_t next = run_due();
        if (next != armed)
            alarm_at(timer, armed = next);
        int count_told = epoll_wait(epoll, told, BATCH, -1);
        for (int i = 0; i < count_told; i++) {
            void *who = told[i].data.ptr;
            uint64_t times;
            if (who == &end_mark)
                return 0;
            if (who == &alarm_mark)
                armed = read(timer, &times, sizeof times) > 0 ? 0 : armed;
            else if (who)
                moved(who, told[i].events);
            else
                welcome();
        }
    }
}

#define _GNU_SOURCE
#include "caller.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIECE = 16384 };

void caller_open(struct caller *c, int epoll, const char *name, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to))
        die(name);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* Told once of each change, so that nothing has to be asked of the kernel per request. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
    event.data.ptr = c;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event))
        die("epoll");
}

void caller_close(struct caller *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->busy = 0;
}

static void flush(struct caller *c)
{
    const struct request *r = c->request;
    while (c->busy && c->written < r->size) {
        ssize_t sent = send(c->fd, r->data + c->written, r->size - c->written,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0)
            return; /* later, or lost, which the next event tells */
        c->written += (size_t)sent;
    }
}

void caller_send(struct caller *c, const struct request *request, int64_t begun)
{
    reply_clear(&c->reply);
    memset(&c->stream, 0, sizeof c->stream);
    c->busy = 1;
    c->request = request;
    c->written = 0;
    c->begun = begun;
    c->sent = now_ns();
    flush(c);
}

enum news caller_moved(struct caller *c, uint32_t events, struct tally *tally)
{
    c->ending = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    struct buffer *raw = &c->reply.raw;
    if (events & EPOLLOUT)
        flush(c);
    for (;;) {
        reserve(raw, PIECE);
        size_t asked = raw->room - raw->size;
        ssize_t got = recv(c->fd, raw->data + raw->size, asked, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN)
            return NOTHING;
        if (got <= 0)
            return LOST;
        if (!c->busy)
            return LOST; /* it spoke without being asked */
        raw->size += (size_t)got;
        reply_read(&c->reply);
        if (c->reply.streamed && c->reply.status == 200)
            judge_events(&c->reply, &c->stream, c->begun, now_ns(), tally);
        if (c->reply.part == WHOLE || c->reply.part == BROKEN)
            return ANSWERED;
        if ((size_t)got < asked && !c->ending)
            return NOTHING;
    }
}

#include "ipc/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/list.h"
#include "core/mem.h"

enum {
    SOCKET_BUFFER = 1024 * 1024,
    PACKET_GOAL = 64 * 1024,    /* frames share a packet up to this size */
    PACKETS_PER_TURN = 16,      /* then other events get their turn */
    OUT_MAX = 64 * 1024 * 1024, /* a peer that does not read is given up (B94) */
    OUT_KEEP = 256 * 1024,      /* a larger buffer is freed when it is empty */
    FDS_PER_PACKET = 1
};

struct attached {
    struct list link;
    size_t end; /* the frame ends here in `out` */
    size_t begin;
    int fd;
};

struct channel {
    struct list dirty;
    int fd;
    char *name;
    const struct channel_ops *ops;
    void *arg;
    struct event_base *base;
    struct event *readable, *writable;
    struct buf out;
    size_t flushed;       /* bytes of `out` that have been sent */
    struct list attached; /* in order of `end` */
    char *failure;        /* why it failed inside a callback; told when that is over */
    bool closing, freed, in_callback, blocked;
    bool secret; /* in `out` is what nobody shall find in memory later */
    bool unable; /* a descriptor could not be passed on */
};

static struct list dirty_channels = {&dirty_channels, &dirty_channels};
static char packet[IPC_FRAME_MAX];

static void wipe(struct channel *c)
{
    if (c->secret && c->out.data)
        explicit_bzero(c->out.data, c->out.len);
    c->secret = false;
}

void channel_secret(struct channel *c)
{
    c->secret = true;
}

static void release(struct channel *c)
{
    wipe(c);
    list_each_safe(&c->attached, n)
    {
        struct attached *a = container_of(n, struct attached, link);
        close(a->fd);
        free(a);
    }
    list_remove(&c->dirty);
    event_free(c->readable);
    event_free(c->writable);
    close(c->fd);
    buf_free(&c->out);
    free(c->failure);
    free(c->name);
    free(c);
}

void channel_free(struct channel *c)
{
    if (!c)
        return;
    c->closing = c->freed = true;
    if (!c->in_callback)
        release(c);
}

static void tell_closed(struct channel *c, const char *why)
{
    c->in_callback = true;
    c->ops->closed(c, why, c->arg);
    release(c);
}

/* A channel may fail while a frame of its own is being dealt with (its owner
 * flushes for latency): its end is told when that callback has returned. */
static void fail(struct channel *c, const char *why)
{
    if (c->closing)
        return;
    c->closing = true;
    if (c->in_callback)
        c->failure = xstrdup(why);
    else
        tell_closed(c, why);
}

/* ---- reading ------------------------------------------------------------- */

static int receive(struct channel *c, size_t *len, int *fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * 4)];
        struct cmsghdr align;
    } control;
    struct iovec iov = {packet, sizeof packet};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    *fd = -1;
    if (n < 0)
        return -1;
    bool extra = (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int got;
            memcpy(&got, CMSG_DATA(h) + i * sizeof got, sizeof got);
            if (*fd < 0)
                *fd = got;
            else {
                close(got);
                extra = true;
            }
        }
    }
    if (extra) {
        if (*fd >= 0)
            close(*fd);
        errno = EBADMSG;
        return -1;
    }
    *len = (size_t)n;
    return 0;
}

/* One frame to the owner; takes over fd. */
static int hand_over(struct channel *c, const struct ipc_frame *f, int fd, struct err *e)
{
    enum ipc_fd_rule rule;
    bool known = ipc_known(f->number, &rule);
    if (known && f->has_fd == (fd >= 0) && !(rule == NO_FD && fd >= 0) &&
        !(rule == WITH_FD && fd < 0))
        return c->ops->frame(c, f, fd, c->arg, e);
    if (fd >= 0)
        close(fd);
    if (!known)
        return err_set(e, "undeclared message number %u", f->number);
    return err_set(e, "%s with%s a descriptor", ipc_name(f->number), fd >= 0 ? "" : "out");
}

static int take_packet(struct channel *c, struct slice rest, int fd, struct err *e)
{
    struct ipc_frame f;
    int rc;
    while ((rc = ipc_frame_next(&rest, &f)) == 1 && !c->closing) {
        int with = f.has_fd ? fd : -1;
        if (f.has_fd)
            fd = -1;
        if (hand_over(c, &f, with, e) < 0) {
            rc = -2;
            break;
        }
    }
    if (rc == -1)
        err_set(e, "malformed frame");
    if (fd >= 0) {
        close(fd);
        if (rc == 0)
            rc = err_set(e, "a descriptor without a frame for it");
    }
    return rc < 0 ? -1 : 0;
}

static void on_readable(evutil_socket_t socket, short what, void *arg)
{
    struct channel *c = arg;
    struct err e = {0, ""};
    const char *why = NULL;
    (void)socket;
    (void)what;
    c->in_callback = true;
    for (int i = 0; i < PACKETS_PER_TURN && !c->closing && !why; i++) {
        size_t len;
        int fd;
        if (receive(c, &len, &fd) < 0) {
            if (errno == EAGAIN || errno == EINTR)
                break;
            err_sys(&e, "receive");
            why = e.text;
        } else if (len == 0) {
            if (fd >= 0)
                close(fd);
            why = "closed by the peer";
        } else if (take_packet(c, slice_make(packet, len), fd, &e) < 0) {
            why = e.text;
        }
    }
    c->in_callback = false;
    if (c->freed)
        release(c);
    else if (c->failure)
        tell_closed(c, c->failure);
    else if (why)
        fail(c, why);
}

/* ---- writing ------------------------------------------------------------- */

static uint32_t frame_length(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return ((uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24) +
           IPC_HEADER;
}

/* The length of the next packet from `flushed` on, and the descriptor it takes. */
static size_t next_packet(const struct channel *c, struct attached **with)
{
    struct attached *a =
        list_empty(&c->attached) ? NULL : container_of(c->attached.next, struct attached, link);
    size_t at = c->flushed, limit = a ? a->begin : c->out.len;
    *with = NULL;
    if (a && at == a->begin) {
        *with = a;
        return a->end - a->begin;
    }
    while (at < limit) {
        size_t len = frame_length(c->out.data + at);
        if (at > c->flushed && at + len - c->flushed > PACKET_GOAL)
            break;
        at += len;
    }
    return at - c->flushed;
}

static ssize_t send_packet(int socket, const char *data, size_t len, int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {(void *)(uintptr_t)data, len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = control.bytes;
        m.msg_controllen = sizeof control.bytes;
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &fd, sizeof fd);
    }
    return sendmsg(socket, &m, MSG_NOSIGNAL);
}

static void empty_out(struct channel *c)
{
    wipe(c);
    c->flushed = 0;
    buf_clear(&c->out);
    if (c->out.cap > OUT_KEEP)
        buf_free(&c->out);
}

static void flush(struct channel *c)
{
    struct err e;
    while (c->flushed < c->out.len) {
        struct attached *a;
        size_t len = next_packet(c, &a);
        ssize_t n = send_packet(c->fd, c->out.data + c->flushed, len, a ? a->fd : -1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
            c->blocked = true;
            event_add(c->writable, NULL);
            return;
        }
        if (n < 0) {
            err_sys(&e, "send");
            fail(c, e.text);
            return;
        }
        c->flushed += len;
        if (a) {
            list_remove(&a->link);
            close(a->fd);
            free(a);
        }
    }
    empty_out(c);
}

static void on_writable(evutil_socket_t socket, short what, void *arg)
{
    struct channel *c = arg;
    (void)socket;
    (void)what;
    c->blocked = false;
    flush(c);
}

void channel_flush_all(void)
{
    struct list *n;
    while ((n = list_pop(&dirty_channels))) {
        struct channel *c = container_of(n, struct channel, dirty);
        if (c->closing)
            continue;
        if (c->unable)
            fail(c, "out of descriptors, one could not be passed on");
        else if (channel_pending(c) > OUT_MAX)
            fail(c, "the peer does not read");
        else if (!c->blocked)
            flush(c);
    }
}

/* Drops what has been sent from the front of `out`. */
static void forget_sent(struct channel *c)
{
    list_each(&c->attached, n)
    {
        struct attached *a = container_of(n, struct attached, link);
        a->begin -= c->flushed;
        a->end -= c->flushed;
    }
    buf_consume(&c->out, c->flushed);
    c->flushed = 0;
}

struct buf *channel_out(struct channel *c)
{
    if (list_empty(&c->dirty) && !c->closing)
        list_push(&dirty_channels, &c->dirty);
    /* what has been sent makes room before the buffer grows; what is moved is at
     * most as much as that, so that a long backlog is not moved again and again */
    if (c->flushed > OUT_KEEP && c->flushed >= channel_pending(c))
        forget_sent(c);
    return &c->out;
}

void channel_attach(struct channel *c, int fd)
{
    if (c->closing)
        return;
    size_t at = c->flushed;
    list_each(&c->attached, n) at = container_of(n, struct attached, link)->end;
    while (at + frame_length(c->out.data + at) < c->out.len)
        at += frame_length(c->out.data + at);
    struct attached *a = xcalloc(1, sizeof *a);
    a->begin = at;
    a->end = c->out.len;
    a->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (a->fd < 0) {
        /* a message that never comes would be waited for: better start afresh */
        c->unable = true;
        c->out.len = at;
        free(a);
        return;
    }
    c->out.data[at + 6] = IPC_FLAG_FD;
    list_push(&c->attached, &a->link);
}

size_t channel_pending(const struct channel *c)
{
    return c->out.len - c->flushed;
}

const char *channel_name(const struct channel *c)
{
    return c->name;
}

struct channel *channel_new(struct event_base *base, int fd, const char *name,
                            const struct channel_ops *ops, void *arg)
{
    struct channel *c = xcalloc(1, sizeof *c);
    evutil_make_socket_nonblocking(fd);
    c->fd = fd;
    c->name = xstrdup(name);
    c->ops = ops;
    c->arg = arg;
    c->base = base;
    buf_init(&c->out, OUT_MAX * 2UL);
    list_init(&c->dirty);
    list_init(&c->attached);
    c->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, c);
    c->writable = event_new(base, fd, EV_WRITE, on_writable, c);
    if (!c->readable || !c->writable || event_add(c->readable, NULL) < 0)
        panic("cannot watch the channel to %s", name);
    return c;
}

int channel_pair(int fds[2], struct err *e)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        return err_sys(e, "socketpair");
    for (int i = 0; i < 2; i++) {
        int size = SOCKET_BUFFER;
        /* more than net.core.wmem_max takes privilege; without it less is enough */
        if (setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
            setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    }
    return 0;
}

int channel_send_now(int socket, struct slice frame, int fd)
{
    char copy[IPC_FRAME_MAX];
    if (frame.len < IPC_HEADER || frame.len > sizeof copy)
        return -1;
    memcpy(copy, frame.ptr, frame.len);
    if (fd >= 0)
        copy[6] = IPC_FLAG_FD;
    ssize_t n;
    do
        n = send_packet(socket, copy, frame.len, fd);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -1 : 0;
}

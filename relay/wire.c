#include "relay/wire.h"

#include <errno.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/mem.h"

/* An idle connection has no buffer: an emptied one waits here for the next
 * connection that writes. */
static struct buf spare;

enum { SPARE_MAX = 16 * 1024 };

void wire_open(struct wire *w, struct event_base *base, int fd, event_callback_fn on_readable,
               event_callback_fn on_writable, void *arg)
{
    w->fd = fd;
    w->blocked = false;
    buf_init(&w->out, WIRE_OUT_MAX);
    if (event_assign(&w->readable, base, fd, EV_READ | EV_PERSIST, on_readable, arg) < 0 ||
        event_assign(&w->writable, base, fd, EV_WRITE, on_writable, arg) < 0 ||
        event_add(&w->readable, NULL) < 0)
        panic("cannot watch a connection");
}

static void keep_spare(struct buf *b)
{
    if (b->cap > spare.cap && b->cap <= SPARE_MAX) {
        struct buf old = spare;
        spare = *b;
        *b = old;
    }
    buf_free(b);
    b->max = WIRE_OUT_MAX;
}

void wire_close(struct wire *w)
{
    if (w->fd < 0)
        return;
    event_del(&w->readable);
    event_del(&w->writable);
    close(w->fd);
    w->fd = -1;
    keep_spare(&w->out);
}

struct buf *wire_out(struct wire *w)
{
    if (!w->out.data && spare.data) {
        w->out = spare;
        w->out.len = 0;
        w->out.max = WIRE_OUT_MAX;
        buf_init(&spare, 0);
    }
    return &w->out;
}

void wire_wait(struct wire *w)
{
    if (w->blocked)
        return;
    w->blocked = true;
    event_add(&w->writable, NULL);
}

static enum wire_status after_error(struct wire *w)
{
    if (errno != EAGAIN && errno != EWOULDBLOCK)
        return WIRE_LOST;
    wire_wait(w);
    return WIRE_AGAIN;
}

enum wire_status wire_flush(struct wire *w)
{
    while (w->out.len > 0) {
        ssize_t n = send(w->fd, w->out.data, w->out.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return after_error(w);
        buf_consume(&w->out, (size_t)n);
    }
    keep_spare(&w->out);
    return WIRE_OK;
}

enum wire_status wire_writev(struct wire *w, const struct iovec *iov, int count, bool more,
                             size_t *written)
{
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    ssize_t n;
    size_t all = 0;
    for (int i = 0; i < count; i++)
        all += iov[i].iov_len;
    *written = 0;
    do
        n = sendmsg(w->fd, &m, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return after_error(w);
    *written = (size_t)n;
    if ((size_t)n == all)
        return WIRE_OK;
    wire_wait(w);
    return WIRE_AGAIN;
}

enum wire_status wire_sendfile(struct wire *w, int file, uint64_t at, size_t len, size_t *written,
                               int *file_error)
{
    off_t offset = (off_t)at;
    ssize_t n;
    *written = 0;
    *file_error = 0;
    do
        n = sendfile(w->fd, file, &offset, len);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EIO)
        *file_error = EIO;
    if (n < 0)
        return after_error(w);
    *written = (size_t)n;
    return WIRE_OK;
}

enum wire_status wire_read(struct wire *w, struct slice *got)
{
    static char shared[WIRE_READ_SIZE];
    ssize_t n;
    do
        n = recv(w->fd, shared, sizeof shared, 0);
    while (n < 0 && errno == EINTR);
    *got = slice_make(shared, n > 0 ? (size_t)n : 0);
    if (n > 0)
        return WIRE_OK;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return WIRE_AGAIN;
    if (n == 0)
        errno = 0;
    return WIRE_LOST;
}

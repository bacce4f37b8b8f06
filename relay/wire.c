#include "relay/wire.h"

#include <errno.h>
#include <stdio.h>
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
    w->tls = NULL;
    w->ended = false;
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

/* The last word of TLS, as far as the socket takes it. */
static void say_goodbye(struct wire *w)
{
    tls_shutdown(w->tls);
    struct slice last = tls_output(w->tls);
    if (last.len)
        (void)!send(w->fd, last.ptr, last.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    tls_free(w->tls);
    w->tls = NULL;
}

void wire_close(struct wire *w)
{
    if (w->fd < 0)
        return;
    if (w->tls)
        say_goodbye(w);
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

/* ---- writing ---------------------------------------------------------------- */

/* Sends what TLS has encrypted. */
static enum wire_status send_encrypted(struct wire *w)
{
    struct slice waiting;
    while ((waiting = tls_output(w->tls)).len > 0) {
        ssize_t n = send(w->fd, waiting.ptr, waiting.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return after_error(w);
        tls_sent(w->tls, (size_t)n);
    }
    return WIRE_OK;
}

/* Encrypts from the front of *plain and sends, for as long as the socket takes it. */
static enum wire_status send_plain(struct wire *w, struct slice *plain)
{
    enum wire_status status = send_encrypted(w);
    while (status == WIRE_OK && plain->len > 0) {
        if (tls_encrypt(w->tls, plain) != TLS_OK) {
            errno = EPROTO;
            return WIRE_LOST;
        }
        status = send_encrypted(w);
    }
    return status;
}

static enum wire_status flush_tls(struct wire *w)
{
    struct slice plain = buf_slice(&w->out);
    enum wire_status status = send_plain(w, &plain);
    buf_consume(&w->out, w->out.len - plain.len);
    if (status == WIRE_OK)
        keep_spare(&w->out);
    return status;
}

enum wire_status wire_flush(struct wire *w)
{
    if (w->tls)
        return flush_tls(w);
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

/* Small pieces in a row are copied into one record: a record costs more than its
 * bytes (lines whose dots are stuffed are many small pieces). */
static struct slice gather_record(const struct iovec *iov, int count, int *at, size_t *offset)
{
    enum { RECORD = 16 * 1024 };
    static char record[RECORD];
    size_t len = 0;
    struct slice first =
        slice_make((const char *)iov[*at].iov_base + *offset, iov[*at].iov_len - *offset);
    if (first.len >= RECORD || *at == count - 1) {
        *offset = 0;
        ++*at;
        return first;
    }
    while (*at < count && len < RECORD) {
        struct slice part =
            slice_make((const char *)iov[*at].iov_base + *offset, iov[*at].iov_len - *offset);
        struct slice fits = slice_first(part, RECORD - len);
        memcpy(record + len, fits.ptr, fits.len);
        len += fits.len;
        *offset = fits.len < part.len ? *offset + fits.len : 0;
        *at += fits.len == part.len;
    }
    return slice_make(record, len);
}

static enum wire_status writev_tls(struct wire *w, const struct iovec *iov, int count,
                                   size_t *written)
{
    size_t offset = 0;
    enum wire_status status = send_encrypted(w);
    for (int i = 0; i < count && status == WIRE_OK;) {
        struct slice plain = gather_record(iov, count, &i, &offset);
        size_t all = plain.len;
        status = send_plain(w, &plain);
        *written += all - plain.len;
        if (plain.len > 0)
            break;
    }
    return status;
}

enum wire_status wire_writev(struct wire *w, const struct iovec *iov, int count, bool more,
                             size_t *written)
{
    if (w->tls) {
        *written = 0;
        return writev_tls(w, iov, count, written);
    }
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

/* One block of a file. */
static enum wire_status sendfile_tls(struct wire *w, int file, uint64_t at, size_t len,
                                     size_t *written, int *file_error)
{
    static char block[TLS_OUT_HIGH];
    ssize_t n;
    *written = 0;
    *file_error = 0;
    enum wire_status status = send_encrypted(w);
    if (status != WIRE_OK)
        return status;
    do
        n = pread(file, block, len < sizeof block ? len : sizeof block, (off_t)at);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        *file_error = errno;
    if (n <= 0)
        return WIRE_OK;
    struct slice plain = slice_make(block, (size_t)n);
    status = send_plain(w, &plain);
    *written = (size_t)n - plain.len;
    return status;
}

enum wire_status wire_sendfile(struct wire *w, int file, uint64_t at, size_t len, size_t *written,
                               int *file_error)
{
    if (w->tls)
        return sendfile_tls(w, file, at, len, written, file_error);
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

/* ---- reading ---------------------------------------------------------------- */

static enum wire_status receive(struct wire *w, struct slice *got)
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

/* The other side has said that nothing more comes. */
static enum wire_status at_end(void)
{
    errno = 0;
    return WIRE_LOST;
}

/* All that one receive says: its own bytes and the part of a record before them. */
static enum wire_status decrypt(struct wire *w, struct slice in, struct slice *got)
{
    static char plain[WIRE_READ_SIZE + TLS_RECORD_MAX];
    enum tls_status status = tls_decrypt(w->tls, &in, plain, sizeof plain, &got->len);
    got->ptr = plain;
    if (status == TLS_OK && in.len > 0)
        status = TLS_BROKEN; /* more plaintext than ciphertext cannot be */
    if (status == TLS_BROKEN) {
        errno = EPROTO;
        return WIRE_LOST;
    }
    /* a key update, an alert: with the next words, if the socket is full now */
    if (send_encrypted(w) == WIRE_LOST)
        return WIRE_LOST;
    if (status != TLS_CLOSED)
        return WIRE_OK;
    w->ended = true;
    if (got->len == 0)
        return at_end();
    /* its last words first. The end of the connection need not follow: it may wait for our
     * closing alert (RFC 8446 section 6.1) */
    event_active(&w->readable, EV_READ, 0);
    return WIRE_OK;
}

enum wire_status wire_read(struct wire *w, struct slice *got)
{
    struct slice in;
    if (w->ended)
        return at_end();
    enum wire_status status = receive(w, w->tls ? &in : got);
    if (!w->tls || status != WIRE_OK)
        return status;
    return decrypt(w, in, got);
}

/* ---- the handshake ------------------------------------------------------------ */

void wire_start_tls(struct wire *w, struct tls *tls)
{
    w->tls = tls;
}

/* Behind the handshake a server has nothing to say but session tickets, until we
 * have greeted it anew (RFC 3207 section 4.2). */
static enum wire_status after_handshake(struct wire *w, struct slice in)
{
    struct slice got = SLICE("");
    enum wire_status status = send_encrypted(w);
    if (status == WIRE_LOST || in.len == 0)
        return status == WIRE_LOST ? WIRE_LOST : WIRE_OK;
    status = decrypt(w, in, &got);
    if (status == WIRE_OK && got.len > 0) {
        errno = EPROTO;
        return WIRE_LOST;
    }
    return status;
}

enum wire_status wire_handshake(struct wire *w)
{
    struct slice in = SLICE("");
    for (;;) {
        enum tls_status status = tls_handshake(w->tls, &in);
        if (status == TLS_OK)
            return after_handshake(w, in);
        if (send_encrypted(w) == WIRE_LOST && status == TLS_MORE)
            return WIRE_LOST;
        if (status != TLS_MORE)
            return WIRE_BROKEN;
        enum wire_status got = receive(w, &in);
        if (got != WIRE_OK)
            return got;
    }
}

const char *wire_trouble(const struct wire *w)
{
    static char text[160];
    const char *alert = w->tls ? tls_alert(w->tls) : "";
    const char *error = w->tls ? tls_error(w->tls) : "";
    if (*alert)
        snprintf(text, sizeof text, "the server said: %s", alert);
    else
        snprintf(text, sizeof text, "%s", *error ? error : "no reason is known");
    return text;
}

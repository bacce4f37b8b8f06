#include "relay/content.h"

#include <errno.h>
#include <unistd.h>

#include "core/mem.h"
#include "relay/job.h"
#include "relay/wire.h"

static char block[CONTENT_BLOCK]; /* of the file that is being sent or looked at */

/* A span of content from offset `at` on: 1 and *span (in memory, or read into
 * `block`); 0 at the end; -1 if the file cannot be read. */
static int next_span(const struct job *j, uint64_t at, struct slice *span)
{
    const struct ipc_deliver *m = &j->m;
    if (at < m->prefix.len) {
        *span = slice_from(m->prefix, (size_t)at);
        return 1;
    }
    at -= m->prefix.len;
    if (at >= m->body_len)
        return 0;
    if (j->fd < 0) {
        *span = slice_from(m->body, (size_t)at);
        return 1;
    }
    uint64_t left = m->body_len - at;
    size_t want = left < sizeof block ? (size_t)left : sizeof block;
    ssize_t n;
    do
        n = pread(j->fd, block, want, (off_t)(m->body_at + at));
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return -1;
    *span = slice_make(block, (size_t)n);
    return 1;
}

void content_init(struct content *c, const struct job *j, bool bdat)
{
    *c = (struct content){.job = j, .bdat = bdat};
    stuff_init(&c->stuffer);
    if (!bdat)
        return;
    struct buf head = BUF_INIT(CONTENT_HEAD_MAX);
    if (buf_addstr(&head, "BDAT ") < 0 || buf_addu64(&head, job_size(j)) < 0 ||
        buf_addstr(&head, " LAST\r\n") < 0)
        panic("CONTENT_HEAD_MAX is too small");
    memcpy(c->head, head.data, head.len);
    c->head_len = (uint8_t)head.len;
    buf_free(&head);
}

/* Stuffed content that has more dots than there are iovecs, copied. Stuffing
 * makes three bytes four at most; stuff_copy wants the double. */
static struct buf dense = BUF_INIT(2 * CONTENT_BLOCK);
_Static_assert((int)CONTENT_BLOCK >= (int)IPC_FRAME_MAX, "a span in memory fits as well");

struct gather {
    struct iovec iov[CONTENT_IOV];
    unsigned count;
    bool file_used;  /* the shared block is taken */
    bool dense_used; /* and the buffer for dense dots */
};

static void gather_bytes(struct gather *g, struct slice s)
{
    if (s.len > 0)
        g->iov[g->count++] = (struct iovec){(void *)(uintptr_t)s.ptr, s.len};
}

/* Whether a file's part begins at `at`. */
static bool in_file(const struct content *c)
{
    return c->job->fd >= 0 && c->at >= c->job->m.prefix.len;
}

/* Content with its dots stuffed: by pointing at it, but copied where lines with
 * dots are so dense that a system call would carry but a few of them. */
static void gather_stuffed(struct content *c, struct gather *g, struct slice *span)
{
    g->count += stuff_iov(&c->stuffer, span, g->iov + g->count, CONTENT_IOV - 2 - g->count);
    if (span->len == 0)
        return;
    buf_clear(&dense);
    stuff_copy(&c->stuffer, span, &dense);
    g->dense_used = true;
    gather_bytes(g, buf_slice(&dense));
}

/* The next bytes as iovecs. 0, or -1 if the file cannot be read. */
static int gather(struct content *c, struct gather *g)
{
    struct slice span;
    int rc = 1;
    gather_bytes(g, slice_make(c->head, c->head_len));
    c->head_len = 0;
    while (g->count + 4 <= CONTENT_IOV && !g->dense_used &&
           !(in_file(c) && (c->bdat || g->file_used))) {
        g->file_used = in_file(c);
        rc = next_span(c->job, c->at, &span);
        if (rc <= 0)
            break;
        size_t before = span.len;
        if (c->bdat) {
            gather_bytes(g, span);
            span.len = 0;
        } else {
            gather_stuffed(c, g, &span);
        }
        c->at += before - span.len;
    }
    if (rc < 0)
        return -1;
    if (c->at == job_size(c->job) && g->count < CONTENT_IOV) {
        if (!c->bdat)
            gather_bytes(g, stuff_end(&c->stuffer));
        c->gathered = true;
    }
    return 0;
}

/* What the socket did not take is copied and waits. */
static void keep_rest(struct wire *w, const struct gather *g, size_t written)
{
    struct buf *out = wire_out(w);
    for (unsigned i = 0; i < g->count; i++) {
        struct slice s = {g->iov[i].iov_base, g->iov[i].iov_len};
        size_t gone = written < s.len ? written : s.len;
        written -= gone;
        if (buf_adds(out, slice_from(s, gone)) < 0)
            panic("more content waits than was gathered");
    }
}

static enum content_status status_of(enum wire_status w)
{
    return w == WIRE_LOST ? CONTENT_LOST : w == WIRE_AGAIN ? CONTENT_AGAIN : CONTENT_SENT;
}

/* One piece by memory; CONTENT_SENT: it is gone. */
static enum content_status send_piece(struct content *c, struct wire *w, size_t *sent)
{
    struct gather g = {.count = 0};
    if (gather(c, &g) < 0)
        return CONTENT_UNREADABLE;
    if (g.count == 0)
        return CONTENT_SENT;
    enum wire_status status = wire_writev(w, g.iov, (int)g.count, !c->gathered, sent);
    if (status == WIRE_AGAIN)
        keep_rest(w, &g, *sent);
    return status_of(status);
}

/* One piece of a file, without copying. */
static enum content_status send_file(struct content *c, struct wire *w, size_t *sent)
{
    const struct job *j = c->job;
    uint64_t in_body = c->at - j->m.prefix.len, left = j->m.body_len - in_body;
    if (!c->announced)
        left -= CONTENT_TAIL; /* there is more than that: see is_held */
    size_t want = left < CONTENT_BURST ? (size_t)left : CONTENT_BURST;
    int file_error;
    enum wire_status status =
        wire_sendfile(w, j->fd, j->m.body_at + in_body, want, sent, &file_error);
    if (file_error || (status == WIRE_OK && *sent == 0))
        return CONTENT_UNREADABLE;
    c->at += *sent;
    if (c->at == job_size(j))
        c->gathered = true;
    return status_of(status);
}

/* One piece never reaches the end from before the tail: it is at most the rest
 * of the prefix, which is shorter than a frame, and a block or a file's part. */
_Static_assert(CONTENT_TAIL >= CONTENT_BLOCK + IPC_FRAME_MAX, "a piece may hold the end");

static bool is_held(const struct content *c)
{
    return !c->announced && job_size(c->job) - c->at <= CONTENT_TAIL;
}

enum content_status content_send(struct content *c, struct wire *w)
{
    size_t total = 0;
    enum content_status status = status_of(wire_flush(w));
    while (status == CONTENT_SENT && !c->gathered) {
        size_t sent = 0;
        if (is_held(c))
            return CONTENT_HELD;
        if (total >= CONTENT_BURST) {
            wire_wait(w);
            return CONTENT_AGAIN;
        }
        status = c->bdat && in_file(c) && c->at < job_size(c->job) && c->head_len == 0
                     ? send_file(c, w, &sent)
                     : send_piece(c, w, &sent);
        total += sent;
    }
    return status;
}

/* ---- what is in it --------------------------------------------------------- */

static const char blank_line[] = "\r\n\r\n";
enum { BLANK_LINE = sizeof blank_line - 1 };

/* Bytes of s up to the end of the empty line that ends a header; s.len if it does not
 * end in s. `matched` is how much of that line's bytes were the last ones so far: they
 * may be in two spans, as when the body that follows the prefix begins with them. */
static size_t header_end(struct slice s, unsigned *matched)
{
    for (size_t i = 0; i < s.len; i++) {
        *matched = s.ptr[i] == blank_line[*matched] ? *matched + 1 : s.ptr[i] == '\r';
        if (*matched == BLANK_LINE)
            return i + 1;
    }
    return s.len;
}

static bool has_8bit_bytes(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] & 0x80)
            return true;
    return false;
}

int content_has_8bit(const struct job *j, bool header_only)
{
    struct slice span;
    unsigned matched = 0;
    int rc;
    for (uint64_t at = 0; (rc = next_span(j, at, &span)) > 0; at += span.len) {
        size_t end = header_only ? header_end(span, &matched) : span.len;
        if (has_8bit_bytes(slice_first(span, end)))
            return 1;
        if (matched == BLANK_LINE)
            return 0;
    }
    return rc;
}

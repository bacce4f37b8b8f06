#include "smtp/stuff.h"

static const struct slice dot = {".", 1};

void stuff_init(struct stuffer *s)
{
    *s = (struct stuffer){.line_start = true};
}

/* Bytes at the front of `in` before the next dot that begins a line. A dot at
 * the very front has been seen to. */
static size_t plain_run(struct slice in)
{
    const char *p = in.ptr + 1, *end = in.ptr + in.len;
    while (p < end && (p = memchr(p, '.', (size_t)(end - p)))) {
        if (p[-1] == '\n')
            return (size_t)(p - in.ptr);
        p++;
    }
    return in.len;
}

static void put(struct iovec *iov, struct slice s)
{
    *iov = (struct iovec){.iov_base = (void *)(uintptr_t)s.ptr, .iov_len = s.len};
}

unsigned stuff_iov(struct stuffer *s, struct slice *in, struct iovec *iov, unsigned max)
{
    unsigned n = 0;
    while (in->len && n < max) {
        bool stuff = s->line_start && in->ptr[0] == '.';
        if (stuff && n + 2 > max)
            break; /* the dot and what it precedes stay together */
        if (stuff)
            put(&iov[n++], dot);
        struct slice run = slice_first(*in, plain_run(*in));
        put(&iov[n++], run);
        char last = run.ptr[run.len - 1];
        s->line_start = last == '\n' && (run.len > 1 ? run.ptr[run.len - 2] == '\r' : s->after_cr);
        s->after_cr = last == '\r';
        *in = slice_from(*in, run.len);
    }
    return n;
}

void stuff_copy(struct stuffer *s, struct slice *in, struct buf *out)
{
    /* at worst ".CRLF" after ".CRLF": a byte in three more */
    while (in->len && out->max - out->len >= 2) {
        struct slice piece = slice_first(*in, (out->max - out->len) / 2);
        struct iovec iov[2];
        size_t before = piece.len;
        unsigned n = stuff_iov(s, &piece, iov, 2);
        for (unsigned i = 0; i < n; i++)
            if (buf_add(out, iov[i].iov_base, iov[i].iov_len) < 0)
                return;
        *in = slice_from(*in, before - piece.len);
    }
}

struct slice stuff_end(const struct stuffer *s)
{
    return s->line_start ? SLICE(".\r\n") : SLICE("\r\n.\r\n");
}

/*
 * A growing byte buffer with a maximum: append can fail, and what a peer sends
 * can never make it larger than its owner allowed.
 */
#ifndef POSTERN_CORE_BUF_H
#define POSTERN_CORE_BUF_H

#include <stdarg.h>

#include "core/slice.h"

struct buf {
    char *data;
    size_t len, cap;
    size_t max; /* bytes; append beyond it fails */
};

/* An empty buffer that allocates nothing until used. */
#define BUF_INIT(maximum) ((struct buf){NULL, 0, 0, (maximum)})

void buf_init(struct buf *b, size_t max);
/* Frees the memory; the buffer is empty and usable again. */
void buf_free(struct buf *b);
/* Forgets the content, keeps the memory. */
static inline void buf_clear(struct buf *b)
{
    b->len = 0;
}
/* Makes room for `more` bytes after len; 0, or -1 if that passes max. */
int buf_reserve(struct buf *b, size_t more);
/* Append; 0, or -1 (and nothing appended) if that passes max. */
int buf_add(struct buf *b, const void *data, size_t len);
int buf_adds(struct buf *b, struct slice s);
int buf_addc(struct buf *b, char c);
int buf_addstr(struct buf *b, const char *s);
int buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
int buf_vprintf(struct buf *b, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
/* Decimal digits of n, faster than buf_printf. */
int buf_addu64(struct buf *b, uint64_t n);
/* Drops the first n bytes (n <= len) and moves the rest down. */
void buf_consume(struct buf *b, size_t n);
/* What is in it; valid until the next append or free. */
static inline struct slice buf_slice(const struct buf *b)
{
    return (struct slice){b->data, b->len};
}

/*
 * Appends peer text so that it is safe in a log line, a notice or JSON value:
 * bytes outside printable ASCII become \xHH, a backslash becomes \\; at most
 * `max` input bytes are taken, then "..." follows.
 */
int buf_add_escaped(struct buf *b, struct slice s, size_t max);

#endif

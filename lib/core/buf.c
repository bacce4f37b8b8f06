#include "core/buf.h"

#include <stdio.h>

#include "core/mem.h"

void buf_init(struct buf *b, size_t max)
{
    *b = BUF_INIT(max);
}

void buf_free(struct buf *b)
{
    xfree(&b->data);
    b->len = b->cap = 0;
}

int buf_reserve(struct buf *b, size_t more)
{
    size_t need;
    if (__builtin_add_overflow(b->len, more, &need) || need > b->max)
        return -1;
    if (need <= b->cap)
        return 0;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need)
        cap = cap > b->max / 2 ? b->max : cap * 2;
    b->data = xrealloc(b->data, cap);
    b->cap = cap;
    return 0;
}

int buf_add(struct buf *b, const void *data, size_t len)
{
    if (buf_reserve(b, len) < 0)
        return -1;
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    return 0;
}

int buf_adds(struct buf *b, struct slice s)
{
    return buf_add(b, s.ptr, s.len);
}

int buf_addc(struct buf *b, char c)
{
    return buf_add(b, &c, 1);
}

int buf_addstr(struct buf *b, const char *s)
{
    return buf_add(b, s, strlen(s));
}

int buf_vprintf(struct buf *b, const char *format, va_list args)
{
    char small[512];
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(small, sizeof small, format, args);
    int rc = -1;
    if (n >= 0 && (size_t)n < sizeof small) {
        rc = buf_add(b, small, (size_t)n);
    } else if (n >= 0 && b->max - b->len > (size_t)n && buf_reserve(b, (size_t)n + 1) == 0) {
        vsnprintf(b->data + b->len, (size_t)n + 1, format, again);
        b->len += (size_t)n;
        rc = 0;
    }
    va_end(again);
    return rc;
}

int buf_printf(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int rc = buf_vprintf(b, format, args);
    va_end(args);
    return rc;
}

int buf_addu64(struct buf *b, uint64_t n)
{
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + n % 10);
    while (n /= 10);
    return buf_add(b, digits + at, sizeof digits - at);
}

void buf_consume(struct buf *b, size_t n)
{
    if (n > b->len)
        panic("consume %zu of %zu", n, b->len);
    b->len -= n;
    if (b->len && n)
        memmove(b->data, b->data + n, b->len);
}

int buf_add_escaped(struct buf *b, struct slice s, size_t max)
{
    static const char hex[] = "0123456789abcdef";
    size_t before = b->len, plain = 0, end = s.len < max ? s.len : max;
    int rc = 0;
    for (size_t i = 0; i < end && rc == 0; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c >= 0x20 && c < 0x7f && c != '\\')
            continue;
        rc = buf_add(b, s.ptr + plain, i - plain);
        plain = i + 1;
        if (rc == 0 && c == '\\')
            rc = buf_add(b, "\\\\", 2);
        else if (rc == 0)
            rc = buf_add(b, (char[]){'\\', 'x', hex[c >> 4], hex[c & 15]}, 4);
    }
    if (rc == 0)
        rc = buf_add(b, s.ptr + plain, end - plain);
    if (rc == 0 && end < s.len)
        rc = buf_add(b, "...", 3);
    if (rc < 0)
        b->len = before;
    return rc;
}

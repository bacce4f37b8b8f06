#include "core/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"

void *xmalloc(size_t size)
{
    void *p = malloc(size ? size : 1);
    if (!p)
        panic("out of memory allocating %zu bytes", size);
    return p;
}

void *xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p)
        panic("out of memory allocating %zu times %zu bytes", n, size);
    return p;
}

void *xrealloc(void *p, size_t size)
{
    p = realloc(p, size ? size : 1);
    if (!p)
        panic("out of memory allocating %zu bytes", size);
    return p;
}

void *xreallocarray(void *p, size_t n, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(n, size, &total))
        panic("allocation of %zu times %zu bytes overflows", n, size);
    return xrealloc(p, total);
}

char *xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(xmalloc(n), s, n);
}

char *xasprintf(const char *format, ...)
{
    va_list args;
    char *text;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        panic("out of memory formatting text");
    va_end(args);
    return text;
}

void panic_at(const char *file, int line, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_panic("%s:%d: %s", file, line, text);
    log_flush();
    abort();
}

/*
 * Allocation that cannot fail: our own allocation failure ends the process (it
 * is restarted by master). Sizes that a peer chose are capped by the caller
 * first.
 */
#ifndef POSTERN_CORE_MEM_H
#define POSTERN_CORE_MEM_H

#include <stddef.h>
#include <stdlib.h>

void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull, alloc_size(1)));
/* Zeroed memory for n elements; aborts on overflow. */
void *xcalloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *p, size_t size) __attribute__((returns_nonnull));
/* Resizes to n elements of `size`; aborts on overflow. */
void *xreallocarray(void *p, size_t n, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
/* printf into a new string that the caller frees. */
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2), returns_nonnull));
/* Frees *p and sets it to NULL. */
#define xfree(p) (free(*(p)), *(p) = NULL)

/* A broken promise of our own code: logs where and aborts. Never reachable by
 * what a peer sends. */
_Noreturn void panic_at(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define panic(...) panic_at(__FILE__, __LINE__, __VA_ARGS__)

#endif

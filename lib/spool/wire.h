/* Little-endian numbers in memory and a cursor for reading them: shared by the
 * files of lib/spool. */
#ifndef POSTERN_SPOOL_WIRE_H
#define POSTERN_SPOOL_WIRE_H

#include "core/slice.h"

static inline void wire_put(char *at, uint64_t n, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++, n >>= 8)
        at[i] = (char)(n & 0xff);
}

static inline uint64_t wire_get(const char *at, unsigned bytes)
{
    uint64_t n = 0;
    for (unsigned i = bytes; i-- > 0;)
        n = n << 8 | (unsigned char)at[i];
    return n;
}

/* A reading position; `failed` is sticky and checked once at the end. */
struct wire {
    struct slice rest;
    bool failed;
};

static inline struct slice wire_bytes(struct wire *w, uint64_t len)
{
    if (w->failed || len > w->rest.len) {
        w->failed = true;
        return slice_make(NULL, 0);
    }
    struct slice s = slice_first(w->rest, (size_t)len);
    w->rest = slice_from(w->rest, (size_t)len);
    return s;
}

static inline uint64_t wire_number(struct wire *w, unsigned bytes)
{
    struct slice s = wire_bytes(w, bytes);
    return s.len == bytes ? wire_get(s.ptr, bytes) : 0;
}

/* Bytes with a u32 length before them. */
static inline struct slice wire_counted(struct wire *w)
{
    return wire_bytes(w, wire_number(w, 4));
}

#endif

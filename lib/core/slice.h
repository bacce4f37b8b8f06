/*
 * Borrowed bytes {ptr, len}: what peers send is handled as slices, never as C
 * strings. A slice does not own its memory and may hold any byte, NUL included.
 */
#ifndef POSTERN_CORE_SLICE_H
#define POSTERN_CORE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const char *ptr; /* may be NULL when len is 0 */
    size_t len;
};

/* A slice of a string literal. */
#define SLICE(literal) ((struct slice){"" literal, sizeof(literal) - 1})
/* Arguments for a "%.*s" directive; only for text known to be printable. */
#define SLICE_ARG(s) (int)(s).len, (s).ptr ? (s).ptr : ""

static inline struct slice slice_make(const void *ptr, size_t len)
{
    return (struct slice){ptr, len};
}

/* The slice of a NUL-terminated string; NULL gives the empty slice. */
static inline struct slice slice_str(const char *s)
{
    return (struct slice){s, s ? strlen(s) : 0};
}

static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* The part from offset `from` (clamped to the end) to the end. */
static inline struct slice slice_from(struct slice s, size_t from)
{
    return from >= s.len ? (struct slice){s.ptr, 0} : (struct slice){s.ptr + from, s.len - from};
}

/* The first `len` bytes (clamped). */
static inline struct slice slice_first(struct slice s, size_t len)
{
    return (struct slice){s.ptr, len < s.len ? len : s.len};
}

/* Equality ignoring ASCII case only. */
bool slice_caseeq(struct slice a, struct slice b);
/* Whether s starts with prefix, ignoring ASCII case. */
bool slice_casestarts(struct slice s, struct slice prefix);
bool slice_starts(struct slice s, struct slice prefix);
bool slice_ends(struct slice s, struct slice suffix);
/* Offset of the first c, or s.len. */
size_t slice_chr(struct slice s, char c);
/* Offset of the last c, or s.len. */
size_t slice_rchr(struct slice s, char c);
/* What isspace(3) says in the C locale, whatever the locale. */
static inline bool char_is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}
/* Without leading and trailing space, tab, CR and LF. */
struct slice slice_trim(struct slice s);
/* Cuts the part before the first `sep` off *s and returns it; *s is then what
 * follows the separator. Without a separator returns all and empties *s. */
struct slice slice_cut(struct slice *s, char sep);
/* A strict unsigned decimal number: digits only, no sign, no overflow, not
 * empty. Returns 0 and sets *out, or -1. */
int slice_u64(struct slice s, uint64_t *out);
/* A NUL-terminated heap copy that the caller frees. NULs inside stay. */
char *slice_dup(struct slice s);
/* Bytewise order, shorter first when one is a prefix of the other. */
int slice_cmp(struct slice a, struct slice b);

#endif

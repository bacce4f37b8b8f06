/*
 * Attributes of XCLIENT and XFORWARD: NAME=value, the value in xtext, or
 * [UNAVAILABLE] or [TEMPUNAVAIL] where nothing is known.
 */
#ifndef POSTERN_SMTP_XATTR_H
#define POSTERN_SMTP_XATTR_H

#include "smtp/proxy.h"

enum { XATTR_VALUE_MAX = 255 }; /* bytes of a decoded value */

enum xattr_name {
    XATTR_NAME,
    XATTR_ADDR,
    XATTR_PORT,
    XATTR_PROTO,
    XATTR_HELO,
    XATTR_LOGIN,
    XATTR_DESTADDR,
    XATTR_DESTPORT,
    XATTR_IDENT,
    XATTR_SOURCE,
    XATTR_COUNT
};

struct xattr {
    enum xattr_name name;
    bool known; /* false: [UNAVAILABLE] and the like, or empty */
    size_t len;
    /* Decoded, NUL-terminated; what is not printable ASCII has become '?'. */
    char value[XATTR_VALUE_MAX + 1];
};

static inline struct slice xattr_value(const struct xattr *a)
{
    return slice_make(a->value, a->len);
}

/* Takes the next attribute off *in. 1; 0 at the end; -1 if it is malformed or has
 * no name that is known. */
int xattr_next(struct slice *in, struct xattr *out);
/* "ADDR" and so on. */
const char *xattr_text(enum xattr_name name);
/* Values of their own kinds, where they are known; 0, or -1 for another value. */
int xattr_address(const struct xattr *a, struct proxy_endpoint *out); /* 192.0.2.1, IPV6:::1 */
int xattr_port(const struct xattr *a, uint16_t *out);
int xattr_protocol(const struct xattr *a, bool *esmtp); /* SMTP or ESMTP */

#endif

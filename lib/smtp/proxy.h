/*
 * The PROXY protocol, versions 1 and 2: what a load balancer says about the client
 * whose connection it passes on, before anything else.
 */
#ifndef POSTERN_SMTP_PROXY_H
#define POSTERN_SMTP_PROXY_H

#include "core/slice.h"

enum {
    PROXY_V1_MAX = 107,     /* bytes of a version 1 header, its CRLF included */
    PROXY_HEADER_MAX = 2048 /* bytes of any header; extensions can make version 2 long */
};

struct proxy_endpoint {
    uint8_t len;   /* of address: 4, 16, or 0 if it is not known */
    uint16_t port; /* host order */
    char address[16];
};

struct proxy_header {
    /* Not known for LOCAL (the proxy speaks for itself: a health check) and UNKNOWN
     * (the client's protocol cannot be told). */
    struct proxy_endpoint client, server;
};

enum proxy_status {
    PROXY_MORE, /* so far so good, more has to come */
    PROXY_DONE,
    PROXY_BAD /* no PROXY header, or a malformed one (B35) */
};

/* `in` is all that has come. For PROXY_DONE sets *out and the header's length. */
enum proxy_status proxy_parse(struct slice in, struct proxy_header *out, size_t *used);

#endif

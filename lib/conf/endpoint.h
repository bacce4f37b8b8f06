/*
 * Where a server is that a jailed service has itself connected to by master:
 *
 *   inet:ADDRESS:PORT   inet:PORT (this host)   unix:PATH
 *
 * Addresses are numeric: nobody waits for DNS to make a connection.
 */
#ifndef POSTERN_CONF_ENDPOINT_H
#define POSTERN_CONF_ENDPOINT_H

#include "core/err.h"
#include "core/slice.h"

enum { ENDPOINT_PATH_MAX = 107 /* bytes: what fits into sun_path with its NUL */ };

/* In the form of net_connect. */
struct endpoint {
    uint16_t port; /* 0: address is a path */
    size_t len;
    char address[ENDPOINT_PATH_MAX]; /* network order */
};

/* A relative path starts from `directory`. 0, or -1 and *e. */
int endpoint_parse(struct slice text, const char *directory, struct endpoint *out, struct err *e);

#endif

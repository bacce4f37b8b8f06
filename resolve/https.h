/* One document by HTTPS, got or posted, through libcurl on the service's own loop: certificates
 * must verify, nothing is redirected, size and time are limited (B75). */
#ifndef POSTERN_RESOLVE_HTTPS_H
#define POSTERN_RESOLVE_HTTPS_H

#include <event2/event.h>

#include "core/buf.h"
#include "core/err.h"

struct https;
struct https_fetch;

enum https_end {
    HTTPS_FINE,
    HTTPS_FAILED,    /* it could not be had */
    HTTPS_UNTRUSTED, /* the server's certificate does not verify */
    HTTPS_UNFIT      /* what came is too long, or no text */
};

/* `body` is the document if all is fine, else why says what went wrong. Valid until it
 * returns; the fetch is over then. */
typedef void https_done(struct slice body, const char *why, enum https_end end, void *arg);

struct https_request {
    const char *host, *path; /* "mta-sts.example.com", "/.well-known/mta-sts.txt" */
    const char *addresses;   /* of the host, separated by commas: nothing else is asked */
    uint16_t port;
    long seconds;
    size_t limit; /* bytes of the document */
    /* to be posted; copied. Empty: the document is got, and has to be text. */
    struct slice content;
    const char *content_type;
};

/* Once, before the jail: what libcurl and OpenSSL may want to read. */
int https_prepare(struct err *e);
struct https *https_new(struct event_base *base, struct err *e);
/* PEM certificates of the authorities that vouch for servers; copied. */
void https_authorities(struct https *h, struct slice pem);
/* Starts; `done` comes later, never from inside. NULL: it could not be started. */
struct https_fetch *https_get(struct https *h, const struct https_request *r, https_done *done,
                              void *arg);
/* The document is not wanted any more. May be NULL. */
void https_cancel(struct https_fetch *f);

#endif

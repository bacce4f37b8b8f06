/* The trace line that we put before a message (RFC 5321 4.4). */
#ifndef POSTERN_MAIL_RECEIVED_H
#define POSTERN_MAIL_RECEIVED_H

#include "core/buf.h"

struct received {
    struct slice helo;        /* what the client called itself; any bytes, "" if nothing */
    struct slice client_name; /* verified name, or "unknown" */
    struct slice client_addr; /* numeric, without brackets */
    struct slice myhostname;
    struct slice protocol;  /* "SMTP", "ESMTP", "UTF8SMTP" and so on */
    struct slice tls;       /* folded lines with a CRLF each about the connection, or empty */
    struct slice id;        /* queue ID */
    struct slice recipient; /* of a message with a single one, else empty */
    int64_t arrival;        /* wall microseconds */
    bool local;             /* from a user of this machine: no helo, name and address */
    uint32_t uid;           /* with it */
};

/* Appends the folded field with its CRLF. Peer text cannot break out of its
 * place: what is not printable or has a meaning in a comment becomes '?'.
 * -1 if `out` is full. */
int received_compose(const struct received *r, struct buf *out);

#endif

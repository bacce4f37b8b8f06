/* Who the client is, and what it may do: from the connection, a PROXY header or
 * XCLIENT, up to the greeting. None of these sends anything: session.c does when
 * they return. */
#ifndef POSTERN_SMTPD_OPENING_H
#define POSTERN_SMTPD_OPENING_H

#include "smtpd/session.h"

/* A connection was accepted: greets, refuses, or waits for a PROXY header or the
 * client's name. */
void opening_begin(struct session *s, const struct sockaddr *from);
/* Input in the mode INPUT_PROXY; returns how much was used. */
size_t opening_take_proxy(struct session *s, struct slice in);
void opening_set_name(struct session *s, struct slice name);
/* The client's name is known, or it has none. */
void opening_greet(struct session *s);
/* TLS is there: what the client's certificate permits; and the greeting, where TLS
 * comes before it. s->behind says whether anything came with it. */
void opening_secured(struct session *s);
/* XCLIENT: from here on the client is another, and the dialogue starts anew. An
 * address with len 0 is one that nobody knows; an empty name is "unknown". */
void opening_change_client(struct session *s, const struct proxy_endpoint *client,
                           struct slice name);

#endif

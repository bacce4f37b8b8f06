/*
 * UNIX sockets that a transport table names as next hops. The relay process
 * cannot reach the file system; master connects it to sockets that the operator
 * wrote down, and to no others. This finds them in a text table (texthash, pcre,
 * inline) without understanding its keys: every word "unix:/path" or
 * "lmtp:unix:/path" outside of comments.
 */
#ifndef POSTERN_CONF_LMTP_SOCKETS_H
#define POSTERN_CONF_LMTP_SOCKETS_H

#include "core/buf.h"

/* Appends to `list`, each as a line, the paths that the table's text has and the
 * list has not. Paths with '$' (a pattern's substitution) or bytes that are not
 * printable ASCII are passed over. 0, or -1 when the list is full. */
int lmtp_sockets_collect(struct slice text, struct buf *list);
/* Whether the list has this path. */
bool lmtp_sockets_have(struct slice list, struct slice path);

#endif

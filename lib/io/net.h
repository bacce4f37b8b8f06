/*
 * Sockets towards other hosts, without blocking. Addresses are raw bytes in
 * network order, as they travel in IPC messages: 4 bytes IPv4, 16 bytes IPv6.
 */
#ifndef POSTERN_IO_NET_H
#define POSTERN_IO_NET_H

#include "core/slice.h"

enum { NET_TEXT_MAX = 112 }; /* the longest printable address: a UNIX path */

/* Starts a connection to (address, port), from `source` unless that is empty.
 * Port 0 and an address that begins with '/' is a UNIX stream socket's path.
 * Returns a non-blocking, close-on-exec socket with TCP_NODELAY and sets
 * *connected if nothing has to be waited for; else wait until it is writable
 * and ask net_error. Returns -1 with errno set. */
int net_connect(struct slice address, uint16_t port, struct slice source, bool *connected);
/* Whether a socket can be bound to this address. */
bool net_is_ours(struct slice address);
/* The same of a printable IPv4 or IPv6 address. */
bool net_text_is_ours(const char *text);
/* The error of a connection that was waited for; 0: it stands. */
int net_error(int fd);
/* Writes the printable form, NUL-terminated; "unknown" if it is no address. */
void net_text(struct slice address, uint16_t port, char out[NET_TEXT_MAX]);

#endif

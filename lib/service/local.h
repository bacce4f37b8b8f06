/*
 * Clients of a UNIX stream socket that a service listens on: what the sockets for
 * operators, for accounts and for lists of the queue have in common.
 */
#ifndef POSTERN_SERVICE_LOCAL_H
#define POSTERN_SERVICE_LOCAL_H

#include <event2/event.h>
#include <stdbool.h>

#include "core/buf.h"

/* Accepts a client: its descriptor, non-blocking, or -1. Where there are no descriptors
 * left `accept` is taken out of the loop, lest it spin (F27), with a warning that calls
 * the socket `name` ("the control socket"): the caller adds it again a second later. */
int local_accept(evutil_socket_t listener, struct event *accept, const char *name);
/* One of too many: is told so in a line of JSON, and closed. */
void local_refuse(int fd, const char *name);
/* The user ID at the other end, or -1. */
long local_uid(int fd);

enum local_status {
    LOCAL_OK,    /* bytes went or came */
    LOCAL_AGAIN, /* none did; the next event tells */
    LOCAL_END,   /* reading: there will be no more */
    LOCAL_LOST
};

/* Reads into the room that `in` has; there must be some. */
enum local_status local_read(int fd, struct buf *in);
/* Sends what `out` has, as far as it goes, and takes that off. */
enum local_status local_write(int fd, struct buf *out);

#endif

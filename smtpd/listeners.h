/* Accepting connections on the sockets that master opened. */
#ifndef POSTERN_SMTPD_LISTENERS_H
#define POSTERN_SMTPD_LISTENERS_H

#include "smtpd/server.h"

struct listeners;

/* Watches the sockets and takes them over. */
struct listeners *listeners_new(struct server *sv, const int *sockets, unsigned count);
/* Goes on accepting after a pause for want of descriptors (F27). */
void listeners_tick(struct listeners *ls, int64_t now);
/* Accepts no more. */
void listeners_close(struct listeners *ls);
void listeners_free(struct listeners *ls);

#endif

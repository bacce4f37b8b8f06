/* Accepting connections on the sockets that master opened. */
#ifndef POSTERN_SMTPD_LISTENERS_H
#define POSTERN_SMTPD_LISTENERS_H

#include "smtpd/server.h"

struct listeners;

/* Takes the sockets over. Accepting begins with listeners_resume, or after
 * LISTENERS_WAIT_SECONDS: at a start clients wait in the listen queue until qmgr
 * is there, rather than being told 451. */
struct listeners *listeners_new(struct server *sv, const int *sockets, unsigned count);
void listeners_resume(struct listeners *ls);
/* Goes on accepting after a pause for want of descriptors (F27) or of qmgr. */
void listeners_tick(struct listeners *ls, int64_t now);
/* Accepts no more. */
void listeners_close(struct listeners *ls);
void listeners_free(struct listeners *ls);

#endif

/* The header lines that we put before a message. */
#ifndef POSTERN_SMTPD_PREFIX_H
#define POSTERN_SMTPD_PREFIX_H

#include "smtpd/session.h"

/* Before the message is logged: on a submission port a missing Message-ID is made
 * (RFC 6409 section 8.3) and takes the place of the scanned one. */
void prefix_prepare(struct session *s);
/* Appends Received for the session's complete message; on a submission port also
 * Date and Message-ID where they are missing; and the blank line of a message
 * that has no header at all. */
void prefix_compose(struct session *s, struct buf *out);

#endif

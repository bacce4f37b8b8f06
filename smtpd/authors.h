/* The addresses in From: and Sender: of the session's message. */
#ifndef POSTERN_SMTPD_AUTHORS_H
#define POSTERN_SMTPD_AUTHORS_H

#include "core/refusal.h"
#include "smtpd/session.h"

/* Appends them as ipc_author records. NULL, or why the message cannot be taken: what
 * cannot be read cannot be checked, and recipients' programs may read it in another
 * way (B33). So an address that is part of a name without quotes is an author, too. */
const struct refusal *authors_list(const struct session *s, struct buf *out);

#endif

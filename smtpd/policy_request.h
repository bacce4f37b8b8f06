/* What a policy server is told: Postfix's policy delegation protocol. */
#ifndef POSTERN_SMTPD_POLICY_REQUEST_H
#define POSTERN_SMTPD_POLICY_REQUEST_H

#include "smtpd/session.h"

/* Appends the request for the check that the session is in (s->tx.run); 0, or -1
 * when it does not fit. */
int policy_request(const struct session *s, const char *context, struct buf *out);

#endif

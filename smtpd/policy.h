/*
 * Who may send to whom. One function decides for each recipient, for clients that
 * have authenticated as for others. What an account may send is another question
 * (gate.h).
 */
#ifndef POSTERN_SMTPD_POLICY_H
#define POSTERN_SMTPD_POLICY_H

#include "core/refusal.h"
#include "smtpd/session.h"

/* NULL: the recipient is taken. Otherwise the reply, whose text follows
 * "<recipient>: ". */
const struct refusal *policy_recipient(const struct session *s, struct slice recipient);

#endif

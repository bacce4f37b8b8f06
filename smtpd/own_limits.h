/*
 * The limits of a message that hold for who pays for the session's mail (struct login), kept up
 * to date. They come with the login and with each answer to MAIL, so a change costs no question
 * of its own there. Only EHLO, which announces them, asks, and only if accounts or plans have
 * changed since they were told (MAIL_FORGET), or quota has been away.
 */
#ifndef POSTERN_SMTPD_OWN_LIMITS_H
#define POSTERN_SMTPD_OWN_LIMITS_H

#include "smtpd/session.h"

/* Calls `done`, at once if what is known still holds or nobody can be asked, or when quota has
 * answered or cannot. */
void own_limits_ask(struct session *s, void (*done)(struct session *s));
/* What an answer to MAIL said, which took it. */
void own_limits_told(struct session *s, const struct ipc_mail_answer *a);

/* Called by accounts.c: the answer; that there is none. */
void own_limits_answer(struct session *s, const struct ipc_limits *a);
void own_limits_lost(struct session *s);

#endif

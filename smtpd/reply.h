/* Replies to the client. They gather in the session's buffer; errors are
 * counted here, in one place. */
#ifndef POSTERN_SMTPD_REPLY_H
#define POSTERN_SMTPD_REPLY_H

#include "core/refusal.h"
#include "smtpd/session.h"

/* "code enhanced text". Text from the client must be escaped (log_esc). */
void reply(struct session *s, int code, const char *enhanced, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* A whole reply with its CRLFs that needs no formatting. */
void reply_ready(struct session *s, int code, struct slice text);
void reply_refusal(struct session *s, const struct refusal *r);
/* A refusal that an operator may be asked about: the reply, and a line
 *   NOQUEUE: reject: RCPT from name[ip]: 554 5.7.1 text; from=<> to=<> ...
 * with the ID in place of NOQUEUE once there is one in the log. `to` may be
 * empty. */
void reject(struct session *s, struct slice to, const struct refusal *r);
void reject_text(struct session *s, struct slice to, int code, const char *enhanced,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Counts a command that gets nowhere; these are free up to a limit. True when it
 * is passed: 421 was said (B38). */
bool reply_to_flood(struct session *s);
/* 421 with our name before the text, and the end of the session. */
void reply_goodbye(struct session *s, const char *enhanced, const char *text);

#endif

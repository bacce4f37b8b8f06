/*
 * AUTH (RFC 4954): the exchange between the verb and its last reply. Who knows the
 * passwords is asked by accounts.h (quota) or dovecot.h. Nothing of an exchange outlives it but
 * s->login, and what clients send in it is wiped from memory.
 */
#ifndef POSTERN_SMTPD_AUTH_H
#define POSTERN_SMTPD_AUTH_H

#include "smtpd/session.h"

/* Appends "250-AUTH PLAIN ...\r\n", or nothing if this session may not authenticate. */
void auth_announce(const struct session *s, struct buf *out);
/* The command: begins an exchange, or says why not. */
void auth_begin(struct session *s, struct slice mechanism, const struct slice *initial);
/* Input in the mode INPUT_AUTH; returns how much was used, which is wiped. */
size_t auth_take(struct session *s, struct slice in);
/* The session ends, or is another client's now: no exchange goes on. */
void auth_forget(struct session *s);

/* ---- answers, called by accounts.c ---------------------------------------------- */

/* The server's next message. */
void auth_challenge(struct session *s, struct slice message);
void auth_result(struct session *s, const struct ipc_auth_result *r);
/* Dovecot's: DOVECOT_CONT, DOVECOT_OK or DOVECOT_FAIL. */
struct dovecot_line;
void auth_dovecot(struct session *s, const struct dovecot_line *l, struct slice message);
/* The session has waited too long. False: not for Dovecot. */
bool auth_late(struct session *s);
/* Whoever knows the passwords does not answer. */
void auth_lost(struct session *s);

#endif

/*
 * Parts of an AUTH exchange that auth.c (our own mechanisms) and auth_dovecot.c share.
 */
#ifndef POSTERN_SMTPD_AUTH_INTERNAL_H
#define POSTERN_SMTPD_AUTH_INTERNAL_H

#include "smtpd/auth.h"

/* What the client's next line is. */
enum auth_step {
    STEP_PLAIN,
    STEP_LOGIN_USER,
    STEP_LOGIN_PASSWORD,
    STEP_SCRAM_FIRST,
    STEP_SCRAM_FINAL,
    STEP_EXTERNAL,
    STEP_DOVECOT,  /* as it says */
    STEP_VERDICT,  /* nothing: quota is asked about what Dovecot has said */
    STEP_LAST_WORD /* nothing: it has seen the server's proof */
};

/* An exchange; from the verb to its last reply. */
struct auth {
    char mechanism[SASL_MECHANISM_MAX + 1];
    uint8_t step;
    bool plus;
    uint8_t status;      /* enum auth_status of an answer that the client is to hear later */
    bool good;           /* what Dovecot said, while quota is asked */
    struct slice user;   /* LOGIN's, Dovecot's; into user_text */
    struct buf last;     /* Dovecot's last message */
    struct login *login; /* proved; until the client's last word */
    char reason[200];    /* of AUTH_DENIED, or Dovecot's; printable */
    char user_text[SASL_USER_MAX + 1];
};

/* ---- auth.c ------------------------------------------------------------------------ */

/* 334 with base64 of it; the client's next line goes on. */
void exchange_challenge(struct session *s, struct slice message);
/* Each of these ends the exchange, with a reply. A mistake of the client's: */
void exchange_fail(struct session *s, int code, const char *enhanced, const char *text);
/* who knows the passwords cannot be asked: 454; */
void exchange_unavailable(struct session *s);
/* the session is the user's in auth->login: 235; */
void exchange_succeed(struct session *s);
/* what auth->status says (also after a nap); */
void exchange_tell(struct session *s);
/* what quota says, logged, and told when its delay is over. */
void exchange_denied(struct session *s, const struct ipc_auth_result *r);
/* The line that fail2ban finds. */
void exchange_log_failure(const struct session *s, const char *reason, struct slice user);

/* ---- auth_dovecot.c ------------------------------------------------------------------ */

/* What the client said, in base64 (Dovecot decodes it itself); `first`: with the verb, where NULL
 * is no initial response. */
void exchange_pass_on(struct session *s, const struct slice *text, bool first);
/* quota has counted what Dovecot said, in STEP_VERDICT. */
void exchange_verdict(struct session *s, const struct ipc_auth_result *r);

#endif

/*
 * Whose certificate is it that the client has shown in its TLS handshake? quota knows;
 * it is asked when the client says EHLO, so that the limits of the user's plan are
 * announced. From then on the session is the user's, as after AUTH.
 */
#ifndef POSTERN_SMTPD_IDENTITY_H
#define POSTERN_SMTPD_IDENTITY_H

#include "smtpd/session.h"

enum certificate_standing {
    CERTIFICATE_OPEN,    /* quota has not said */
    CERTIFICATE_NOBODYS, /* no user's: the session is what it is without one */
    CERTIFICATE_USERS,   /* s->login was made of it */
    CERTIFICATE_REFUSED  /* of a user, or an account, that may send nothing */
};

/* Calls `done`, at once if there is nothing to ask, or when quota has answered or
 * cannot. */
void identity_ask(struct session *s, void (*done)(struct session *s));
/* Whether the session has a certificate of which quota has not said whose it is, and
 * nobody has logged in. */
bool identity_is_open(const struct session *s);
/* Why mail cannot be taken; false: by this it can. *no is valid until the next call. */
bool identity_refuses(const struct session *s, struct refusal *no);

/* Called by accounts.c: the answer; that there is none. */
void identity_result(struct session *s, const struct ipc_auth_result *r);
void identity_lost(struct session *s);

#endif

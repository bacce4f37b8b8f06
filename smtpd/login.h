/*
 * Who a session speaks for: a user that has authenticated, or the account that a
 * client of mynetworks belongs to. quota's ticket stands for it in questions about
 * mail.
 */
#ifndef POSTERN_SMTPD_LOGIN_H
#define POSTERN_SMTPD_LOGIN_H

#include "ipc/ipc.h"
#include "smtp/sasl.h"

enum {
    LOGIN_TICKET_MAX = 512,
    LOGIN_USER_MAX = 255 /* bytes of a user's name, before it is escaped */
};

struct login {
    char
        method[SASL_MECHANISM_MAX + 1]; /* "PLAIN"; "XCLIENT": as a proxy says; "": of mynetworks */
    char *user;                         /* escaped */
    char *name;                         /* the same as it was said; may have NUL bytes */
    size_t name_len;
    uint64_t size_limit;      /* of a message; 0: no other than everybody's */
    uint32_t recipient_limit; /* the same */
    uint64_t limits_at;       /* accounts.changes when quota said so */
    bool any_sender;          /* From: is not looked at */
    bool implied;             /* by the client's certificate; AUTH may still say otherwise */
    uint16_t ticket_len;      /* 0: quota does not know it */
    char ticket[];
};

/* From quota's answer, which has to say AUTH_OK; changes: accounts.changes. NULL: it makes no
 * sense. */
struct login *login_of_account(const char *method, const struct ipc_auth_result *r,
                               uint64_t changes);
/* Of somebody whom others vouch for. */
struct login *login_new(const char *method, struct slice user);
void login_free(struct login **l);

#endif

/*
 * May this account send this? quota is asked at MAIL (sender, size, how many
 * recipients) and at the end of data (authors, room in the plan), and without its
 * answer nothing of an account is taken. Mail that belongs to no account is not asked
 * about: that of clients of mynetworks, where mynetworks_account is empty.
 */
#ifndef POSTERN_SMTPD_GATE_H
#define POSTERN_SMTPD_GATE_H

#include "core/refusal.h"
#include "smtpd/limits.h"
#include "smtpd/session.h"

/* A transaction of an account: part of struct transaction. */
struct gate {
    void (*done)(struct session *s, const struct refusal *no);
    uint32_t recipients;      /* that it may have */
    uint16_t code;            /* the reply to RCPT beyond them */
    char enhanced[12], *text; /* its rest */
    bool reserved;            /* quota keeps room for it until COMMIT */
    char *owner;              /* for COMMIT, as what follows */
    char token[TOKEN_ROOM];
    uint8_t token_len;
    uint8_t mail_class; /* enum mail_class */
    uint8_t class_most; /* the highest that its header may ask for */
};

/* A transaction has begun. Calls `done` with the reply to MAIL, or with NULL if it is
 * taken: at once, or later with no wait, before the session goes on. */
void gate_mail(struct session *s, void (*done)(struct session *s, const struct refusal *no));
/* Whether the message may have one more recipient; otherwise it is refused. */
bool gate_recipient(struct session *s, struct slice address);
/* The authors' addresses are wanted from the header. */
bool gate_wants_authors(const struct session *s);
/* The message is complete; as gate_mail, with the reply to the end of data. */
void gate_message(struct session *s, void (*done)(struct session *s, const struct refusal *no));
/* Whose limits hold, as far as quota has been asked: who has logged in, or the account of a
 * client of mynetworks; or NULL. */
struct login *gate_payer(const struct session *s);
/* The largest message that the account may send, in bytes; 0: no limit of its own. */
uint64_t gate_size_limit(const struct session *s);
/* qmgr has the message: quota hears of it from there. */
void gate_committed(struct session *s);
/* The transaction is over; gives back what was reserved and not committed. */
void gate_free(struct session *s);

/* ---- answers, called by accounts.c ------------------------------------------------- */

void gate_client(struct session *s, const struct ipc_auth_result *r);
void gate_mail_answer(struct session *s, const struct ipc_mail_answer *a);
void gate_reserved(struct session *s, const struct ipc_reserved *r);
void gate_lost(struct session *s);

#endif

/*
 * Questions to quota: who a client is (auth.h) and what it may send (gate.h). A
 * session has one at a time and waits for its answer, no longer than
 * ACCOUNTS_SECONDS. Without quota there is none: logins get 454, mail of accounts
 * 451 (F16).
 */
#ifndef POSTERN_SMTPD_ACCOUNTS_H
#define POSTERN_SMTPD_ACCOUNTS_H

#include <event2/event.h>

#include "core/map.h"
#include "ipc/channel.h"
#include "smtpd/mail_answers.h"

struct session;

struct accounts {
    struct channel *channel; /* NULL: quota is not there */
    struct event_base *base;
    bool known;      /* its first message has come */
    uint32_t credit; /* questions that may be open */
    uint64_t next_tag;
    uint64_t changes; /* times that accounts or plans may have changed, see own_limits.h */
    struct map asked; /* struct account_question by tag */
    struct mail_answers answers;
};

/* What a session waits for. */
enum account_subject {
    ABOUT_LOGIN,       /* AUTH_PASSWORD, AUTH_SCRAM: AUTH_CHALLENGE or AUTH_RESULT */
    ABOUT_CLIENT,      /* CLIENT_ACCOUNT: AUTH_RESULT */
    ABOUT_CERTIFICATE, /* CLIENT_CERTIFICATE: AUTH_RESULT */
    ABOUT_MAIL,        /* MAIL_REQUEST: MAIL_ANSWER */
    ABOUT_ROOM,        /* RESERVE: RESERVED */
    ABOUT_LIMITS       /* LIMITS_REQUEST: LIMITS */
};

/* A session's question: part of the session. */
struct account_question {
    uint64_t tag;    /* 0: none is open */
    uint8_t subject; /* enum account_subject */
};

void accounts_init(struct accounts *a, struct event_base *base);
void accounts_free(struct accounts *a);
/* A new channel to quota; takes over fd. What the older one was asked is lost. */
void accounts_attach(struct accounts *a, int fd);
/* Where to encode the session's question, which has the tag s->question.tag from now
 * on; the caller has the session wait. NULL: there is nobody to ask. */
struct buf *accounts_ask(struct session *s, enum account_subject subject);
/* Where to encode what follows in the exchange under s->question; NULL: it is lost. */
struct buf *accounts_go_on(struct session *s);
/* A message that nobody answers; NULL: there is nobody to hear it. */
struct buf *accounts_tell(struct session *s);
/* What was encoded last holds a password. */
void accounts_secret(struct session *s);
/* The answer is not wanted any more; harmless if none is due. */
void accounts_forget(struct session *s);
/* The session has waited too long, or quota is gone: what it waits for does not come. */
void accounts_late(struct session *s);

#endif

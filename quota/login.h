/* What the files of logins share: login.c, login_password.c, login_scram.c, tickets.c. */
#ifndef POSTERN_QUOTA_LOGIN_H
#define POSTERN_QUOTA_LOGIN_H

#include "quota/failures.h"
#include "quota/quota.h"
#include "quota/recent.h"
#include "quota/scram.h"

enum { CLIENT_BYTES = 16 };

struct logins {
    struct quota *q;
    struct verify *verify;
    struct failures failures;
    struct recent recent;
    char nobody[HASH_TEXT_MAX + 1]; /* what is compared when there is no such user */
};

/* A question under way: a password at the threads, or a SCRAM exchange. */
struct question {
    struct smtpd *s; /* NULL: given up, nobody waits */
    uint64_t tag;
    unsigned smtpd; /* its number */
    char login[LOGIN_MAX + 1];
    char client[CLIENT_BYTES];
    size_t client_len;
    bool known_user;     /* there is a password or key that can fit */
    const char *missing; /* otherwise: what there is not, for the log; NULL: such a user */
    int64_t epoch;       /* of the user, when the exchange began */
    bool is_scram;
    struct scram scram;
    unsigned char digest[RECENT_DIGEST];
    uint64_t changes; /* of logins->recent, when the password was given to the threads */
};

/* NULL: smtpd breaks the rules (*e). */
struct question *question_new(struct smtpd *s, uint64_t tag, struct slice client, struct err *e);
struct question *question_find(struct smtpd *s, uint64_t tag);
void question_free(struct question *x);

/* Answers; each ends the question. */

void login_fail(struct question *x, enum auth_status status, uint32_t delay, const char *reason);
/* A wrong password or user: they look the same outside. */
void login_wrong(struct logins *l, struct question *x);
/* The password was right; is the user still welcome? `message` is SCRAM's last one. */
void login_right(struct logins *l, struct question *x, struct slice message);
/* Others say that the password is right. */
void login_good_outside(struct logins *l, struct question *x);
/* Whether the operator has others who verify users. */
bool login_believes_others(const struct config *c);
/* The client wants to act as another user than it logs in as (RFC 4422 section 3.4.1), which
 * nobody may: true if the question was answered. Names are the same as user names are. */
bool login_for_another(struct question *x, struct slice authorization);
/* An unknown user in a database that waits for its import may be known soon: true if the question
 * was answered so. */
bool login_waits(struct logins *l, struct question *x);
/* What a SCRAM client is shown of a name without keys, for as long as the ticket key lives. */
void login_invented_keys(const struct quota *q, const char *login, struct scram_keys *out);
/* Limits on failures: true if the question was answered. */
bool login_turned_away(struct logins *l, struct question *x);

/* Appends a ticket. */
void ticket_make(const struct quota *q, const struct ticket *t, struct buf *out);

#endif

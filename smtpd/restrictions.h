/*
 * smtpd_client_restrictions and the like, checked as Postfix does by default: the
 * first four lists at each RCPT, the others at DATA (or the first BDAT) and at the
 * end of the message. They may refuse what would be taken; they never let anybody
 * relay (see policy.h). While a policy server is asked, the session waits.
 */
#ifndef POSTERN_SMTPD_RESTRICTIONS_H
#define POSTERN_SMTPD_RESTRICTIONS_H

#include "conf/restrictions.h"
#include "core/refusal.h"
#include "smtp/address.h"
#include "smtp/params.h"
#include "smtpd/policy_service.h"

struct session;

struct rule {
    enum restriction_kind kind;
    struct policy_service service; /* of RESTRICTION_SERVICE */
};

/* Made once: a reload replaces the process. */
struct restrictions {
    struct remote_network network;
    struct rule *rules[RESTRICTION_LISTS];
    size_t counts[RESTRICTION_LISTS];
};

enum check { CHECK_RECIPIENT, CHECK_DATA, CHECK_MESSAGE };
enum check_result { CHECK_PASSED, CHECK_REFUSED, CHECK_WAITS };
typedef void check_done(struct session *s, enum check_result result);

enum { CHECK_TEXT_MAX = 900 };

/* A check of one transaction, and what it has come to. */
struct check_run {
    struct session *session;
    struct policy_query query;
    check_done *done;
    enum check check;
    unsigned list; /* the rule that comes next */
    size_t rule;
    struct policy_service *asked; /* the server of the rule before it */
    bool hold;
    struct buf prepend;                  /* header lines */
    struct refusal refusal;              /* of CHECK_REFUSED */
    struct refusal if_permit, if_reject; /* code 0: none */
    char enhanced[3][12];                /* of these three */
    char text[3][CHECK_TEXT_MAX];        /* the same */
    struct smtp_path recipient;          /* of CHECK_RECIPIENT */
    struct rcpt_params params;           /* the same, for whoever goes on */
};

/* 0, or -1 with *e. The network is the caller's to set before. */
int restrictions_init(struct restrictions *r, const struct config *config, struct err *e);
void restrictions_free(struct restrictions *r);
void restrictions_tick(struct restrictions *r, int64_t now);
/* Takes over fd; see remote_connecting. */
void restrictions_connecting(struct restrictions *r, uint64_t tag, int fd, struct slice why);

/* Whether there is anything to check: never for users of this machine. */
bool restrictions_any(const struct session *s, enum check check);
/* Checks. When it has to wait, `done` is called later with the result, and then
 * the session goes on; otherwise the result is returned and `done` not called.
 * After CHECK_REFUSED s->tx.run->refusal says why. */
enum check_result restrictions_check_recipient(struct session *s, const struct smtp_path *recipient,
                                               const struct rcpt_params *params, check_done *done);
enum check_result restrictions_check_message(struct session *s, enum check check, check_done *done);
/* Says and logs the refusal; `to` may be empty. */
void restrictions_refuse(struct session *s, struct slice to);
/* The transaction is over. */
void restrictions_forget(struct session *s);

#endif

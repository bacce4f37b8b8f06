/* AUTH where Dovecot knows the passwords: it has the mechanisms, we pass on; what it says at the
 * end is quota's to count. */
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "smtp/dovecot_auth.h"
#include "smtpd/auth_internal.h"
#include "smtpd/dovecot.h"
#include "smtpd/limits.h"

void exchange_pass_on(struct session *s, const struct slice *text, bool first)
{
    struct slice name = slice_str(s->auth->mechanism);
    if ((first ? dovecot_begin(s, name, text) : dovecot_go_on(s, *text)) < 0)
        exchange_unavailable(s);
    else
        s->wait = WAIT_ACCOUNTS;
}

static void dovecot_granted(struct session *s, struct slice user, struct slice message)
{
    struct auth *a = s->auth;
    a->login = login_new(a->mechanism, user);
    if (message.len) {
        a->step = STEP_LAST_WORD;
        exchange_challenge(s, message);
    } else {
        exchange_succeed(s);
    }
}

static void dovecot_denied(struct session *s, uint32_t delay)
{
    struct auth *a = s->auth;
    a->status = AUTH_FAILED;
    exchange_log_failure(s, a->reason, a->user);
    if (delay)
        nap_begin(s, delay, exchange_tell);
    else
        exchange_tell(s);
}

static void dovecot_away(struct session *s, struct slice reason)
{
    if (!reason.len)
        reason = SLICE("Dovecot has no answer now");
    log_warning("%s: SASL %s authentication is not possible now: %s", s->peer, s->auth->mechanism,
                log_esc_n(reason, 200));
    s->auth->status = AUTH_TEMPORARY;
    exchange_tell(s);
}

/* Quota has counted it, or nobody counts. */
static void dovecot_verdict(struct session *s, uint32_t delay)
{
    struct auth *a = s->auth;
    if (a->good)
        dovecot_granted(s, a->user, buf_slice(&a->last));
    else
        dovecot_denied(s, delay);
}

void exchange_verdict(struct session *s, const struct ipc_auth_result *r)
{
    bool agrees = s->auth->good ? r->status == AUTH_NONE : r->status == AUTH_FAILED;
    if (agrees)
        dovecot_verdict(s, r->delay);
    else if (r->status == AUTH_TOO_MANY || r->status == AUTH_TEMPORARY)
        exchange_denied(s, r);
    else
        exchange_unavailable(s);
}

/* With accounts, failures of Dovecot's users count as those of our own, and whoever is over a
 * limit does not learn that a password is right. */
static void judge(struct session *s, const struct dovecot_line *l, struct slice message)
{
    struct auth *a = s->auth;
    struct slice reason = slice_make(l->reason, l->reason_len);
    size_t len = l->user_len < SASL_USER_MAX ? l->user_len : SASL_USER_MAX;
    if (len)
        memcpy(a->user_text, l->user, len);
    a->user = slice_make(a->user_text, len);
    a->good = l->kind == DOVECOT_OK;
    snprintf(a->reason, sizeof a->reason, "%s",
             reason.len ? log_esc_n(reason, sizeof a->reason - 1)
             : l->why   ? l->why
                        : "wrong user or password");
    buf_init(&a->last, AUTH_CHALLENGE_MAX);
    if (a->good && (!len || buf_adds(&a->last, message) < 0)) {
        exchange_unavailable(s);
        return;
    }
    if (!s->server->config->accounts_enable) {
        dovecot_verdict(s, 0);
        return;
    }
    struct buf *out = accounts_ask(s, ABOUT_LOGIN);
    if (!out) {
        exchange_unavailable(s);
        return;
    }
    a->step = STEP_VERDICT;
    ipc_auth_outside_encode(out, &(struct ipc_auth_outside){.tag = s->question.tag,
                                                            .client = session_address(s),
                                                            .user = a->user,
                                                            .good = a->good});
    s->wait = WAIT_ACCOUNTS;
}

void auth_dovecot(struct session *s, const struct dovecot_line *l, struct slice message)
{
    if (s->wait != WAIT_ACCOUNTS) /* unasked: the client's next line finds nobody */
        return;
    s->wait = WAIT_NOTHING;
    if (l->kind == DOVECOT_FAIL && l->temporary)
        dovecot_away(s, slice_make(l->reason, l->reason_len));
    else if (l->kind == DOVECOT_OK || l->kind == DOVECOT_FAIL)
        judge(s, l, message);
    else
        exchange_challenge(s, message);
    session_go_on(s);
}

bool auth_late(struct session *s)
{
    if (!s->dovecot.number)
        return false;
    dovecot_forget(s);
    auth_lost(s);
    return true;
}

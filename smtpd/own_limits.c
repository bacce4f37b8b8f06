#include "smtpd/own_limits.h"

#include "smtpd/gate.h"

static void take(struct session *s, uint64_t size, uint32_t recipients)
{
    struct login *l = gate_payer(s);
    if (!l)
        return;
    l->size_limit = size;
    l->recipient_limit = recipients;
    l->limits_at = s->server->accounts.changes;
}

void own_limits_ask(struct session *s, void (*done)(struct session *s))
{
    const struct login *l = gate_payer(s);
    bool old = l && l->limits_at != s->server->accounts.changes;
    struct buf *out = old ? accounts_ask(s, ABOUT_LIMITS) : NULL;
    if (!out) {
        done(s);
        return;
    }
    s->limits_known = done;
    ipc_limits_request_encode(
        out, &(struct ipc_limits_request){.tag = s->question.tag,
                                          .ticket = slice_make(l->ticket, l->ticket_len)});
    s->wait = WAIT_ACCOUNTS;
}

void own_limits_told(struct session *s, const struct ipc_mail_answer *a)
{
    take(s, a->size_limit, a->recipient_limit);
}

/* ---- answers --------------------------------------------------------------------------- */

void own_limits_answer(struct session *s, const struct ipc_limits *a)
{
    if (a->known)
        take(s, a->size_limit, a->recipient_limit);
    own_limits_lost(s);
}

void own_limits_lost(struct session *s)
{
    s->wait = WAIT_NOTHING;
    s->limits_known(s);
    session_go_on(s);
}

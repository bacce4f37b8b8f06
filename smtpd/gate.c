#include "smtpd/gate.h"

#include <stdio.h>

#include "core/log.h"
#include "core/mem.h"
#include "smtpd/authors.h"
#include "smtpd/content.h"
#include "smtpd/identity.h"
#include "smtpd/limits.h"
#include "smtpd/own_limits.h"
#include "smtpd/reply.h"

static const struct refusal unavailable = {451, "4.3.0",
                                           "Error: the accounts are not available, try later"};

/* ---- who pays ---------------------------------------------------------------------- */

struct login *gate_payer(const struct session *s)
{
    return s->login && s->login->ticket_len ? s->login : s->host_login;
}

static const struct login *payer(const struct session *s)
{
    return gate_payer(s);
}

static struct slice ticket_of(const struct session *s)
{
    const struct login *l = payer(s);
    return slice_make(l->ticket, l->ticket_len);
}

static struct slice client_address(const struct session *s)
{
    return s->local_user ? SLICE("") : session_address(s);
}

/* Whether the client's mail belongs to an account, as far as is known before quota is
 * asked. */
static bool has_account(const struct session *s)
{
    const struct config *c = s->server->config;
    if (!c->accounts_enable || s->nobody)
        return false;
    return payer(s) || s->login || (session_may_relay(s) && *c->mynetworks_account);
}

uint64_t gate_size_limit(const struct session *s)
{
    return payer(s) ? payer(s)->size_limit : 0;
}

/* ---- answers in general ---------------------------------------------------------------- */

/* An answer or the want of one; may begin another wait. */
static void answer(struct session *s, const struct refusal *no)
{
    s->wait = WAIT_NOTHING;
    s->tx.gate->done(s, no);
    if (no && no->code == 421) /* the login is over, and with it the session */
        session_end(s);
    session_go_on(s);
}

/* What quota refuses with, as a reply that cannot break out of its line; enhanced and
 * text are valid until the next one. */
static struct refusal refusal_of(uint16_t code, struct slice enhanced, struct slice text)
{
    static char status[12], words[1024];
    snprintf(status, sizeof status, "%s", log_esc_n(enhanced, sizeof status - 1));
    snprintf(words, sizeof words, "%s", log_esc_n(text, 250));
    if (code < 400 || code > 599)
        return unavailable;
    return (struct refusal){code, status, words};
}

void gate_lost(struct session *s)
{
    answer(s, &unavailable);
}

/* ---- MAIL ------------------------------------------------------------------------------- */

static void keep_rest(struct gate *g, const struct ipc_mail_answer *a)
{
    struct refusal more = refusal_of(a->more_code, a->more_enhanced, a->more_text);
    g->recipients = a->recipients;
    g->code = more.code;
    snprintf(g->enhanced, sizeof g->enhanced, "%s", more.enhanced);
    g->text = xstrdup(more.text);
}

/* An earlier answer may still hold. */
static void ask_mail(struct session *s)
{
    struct ipc_mail_answer known;
    if (mail_answers_find(&s->server->accounts.answers, ticket_of(s), buf_slice(&s->tx.sender),
                          s->tx.size, &known)) {
        keep_rest(s->tx.gate, &known);
        own_limits_told(s, &known);
        s->tx.gate->done(s, NULL);
        return;
    }
    struct buf *out = accounts_ask(s, ABOUT_MAIL);
    if (!out) {
        s->tx.gate->done(s, &unavailable);
        return;
    }
    ipc_mail_request_encode(out, &(struct ipc_mail_request){.tag = s->question.tag,
                                                            .ticket = ticket_of(s),
                                                            .client = client_address(s),
                                                            .sender = buf_slice(&s->tx.sender),
                                                            .size = s->tx.size});
    s->wait = WAIT_ACCOUNTS;
}

/* The user whom Dovecot or a proxy vouches for; empty: a client of mynetworks. */
static struct slice external_user(const struct session *s)
{
    return s->login ? slice_make(s->login->name, s->login->name_len) : SLICE("");
}

/* Once a session. */
static void ask_client(struct session *s)
{
    struct buf *out = accounts_ask(s, ABOUT_CLIENT);
    if (!out) {
        s->tx.gate->done(s, &unavailable);
        return;
    }
    ipc_client_account_encode(out, &(struct ipc_client_account){.tag = s->question.tag,
                                                                .client = client_address(s),
                                                                .user = external_user(s)});
    s->wait = WAIT_ACCOUNTS;
}

/* It is known, as far as it can be, whose certificate the client has. */
static void decide(struct session *s, void (*done)(struct session *s, const struct refusal *no))
{
    struct refusal no;
    if (identity_refuses(s, &no)) {
        done(s, &no);
        return;
    }
    if (!has_account(s)) {
        done(s, NULL);
        return;
    }
    s->tx.gate = xcalloc(1, sizeof *s->tx.gate);
    s->tx.gate->done = done;
    if (payer(s))
        ask_mail(s);
    else
        ask_client(s);
}

static void forget_gate(struct session *s)
{
    struct gate *g = s->tx.gate;
    if (!g)
        return;
    free(g->text);
    free(g->owner);
    xfree(&s->tx.gate);
}

static void identified(struct session *s)
{
    void (*done)(struct session * s, const struct refusal *no) = s->tx.gate->done;
    forget_gate(s);
    decide(s, done);
}

void gate_mail(struct session *s, void (*done)(struct session *s, const struct refusal *no))
{
    if (!identity_is_open(s)) {
        decide(s, done);
        return;
    }
    s->tx.gate = xcalloc(1, sizeof *s->tx.gate); /* quota was away when EHLO was said */
    s->tx.gate->done = done;
    identity_ask(s, identified);
}

/* The account of a client of mynetworks, or of a user that others vouch for. An
 * account may stand for all users that it does not know: then r has no user. */
void gate_client(struct session *s, const struct ipc_auth_result *r)
{
    struct refusal no = {550, "5.7.1", ""};
    char text[300];
    void (*done)(struct session * s, const struct refusal *no) = s->tx.gate->done;
    s->wait = WAIT_NOTHING;
    switch (r->status) {
    case AUTH_OK:
        s->host_login = login_of_account(r->user.len && s->login ? s->login->method : "", r,
                                         s->server->accounts.changes);
        if (s->host_login)
            ask_mail(s);
        else
            done(s, &unavailable);
        break;
    case AUTH_NONE:
        s->nobody = true;
        forget_gate(s);
        done(s, NULL);
        break;
    case AUTH_DENIED:
        snprintf(text, sizeof text, "Error: %s", log_esc_n(r->reason, 70));
        no.text = text;
        done(s, &no);
        break;
    default:
        log_warning("mail of %s is not taken: %s", s->peer, log_esc_n(r->reason, 200));
        done(s, &unavailable);
        break;
    }
    session_go_on(s);
}

void gate_mail_answer(struct session *s, const struct ipc_mail_answer *a)
{
    struct gate *g = s->tx.gate;
    if (a->code) {
        struct refusal no = refusal_of(a->code, a->enhanced, a->text);
        answer(s, &no);
        return;
    }
    mail_answers_keep(&s->server->accounts.answers, ticket_of(s), buf_slice(&s->tx.sender), a);
    keep_rest(g, a);
    own_limits_told(s, a);
    answer(s, NULL);
}

bool gate_recipient(struct session *s, struct slice address)
{
    const struct gate *g = s->tx.gate;
    if (!g || s->tx.rcpt_count < g->recipients)
        return true;
    reject_text(s, address, g->code, g->enhanced, "%s", g->text);
    return false;
}

/* ---- the end of data ---------------------------------------------------------------------- */

bool gate_wants_authors(const struct session *s)
{
    return s->tx.gate && !payer(s)->any_sender;
}

static const struct refusal *reserve(struct session *s)
{
    struct buf authors = BUF_INIT(AUTHORS_BYTES);
    const struct refusal *no = authors_list(s, &authors);
    struct buf *out = no ? NULL : accounts_ask(s, ABOUT_ROOM);
    if (!no && !out)
        no = &unavailable;
    if (out) {
        ipc_reserve_encode(out, &(struct ipc_reserve){.tag = s->question.tag,
                                                      .ticket = ticket_of(s),
                                                      .id = id_slice(&s->tx.id),
                                                      .client = client_address(s),
                                                      .sender = buf_slice(&s->tx.sender),
                                                      .authors = buf_slice(&authors),
                                                      .recipients = s->tx.rcpt_count,
                                                      .size = s->tx.content->data.sent});
        s->tx.gate->reserved = true; /* as far as we know */
        s->wait = WAIT_ACCOUNTS;
    }
    buf_free(&authors);
    return no;
}

void gate_message(struct session *s, void (*done)(struct session *s, const struct refusal *no))
{
    if (!s->tx.gate) {
        done(s, NULL);
        return;
    }
    s->tx.gate->done = done;
    const struct refusal *no = reserve(s);
    if (no)
        done(s, no);
}

void gate_reserved(struct session *s, const struct ipc_reserved *r)
{
    struct gate *g = s->tx.gate;
    if (r->code || r->owner.len == 0 || r->owner.len > OWNER_BYTES ||
        r->token.len > sizeof g->token || r->mail_class > CLASS_BULK ||
        r->class_most > CLASS_BULK) {
        struct refusal no = refusal_of(r->code, r->enhanced, r->text);
        g->reserved = r->code == 0;
        answer(s, &no);
        return;
    }
    g->owner = slice_dup(r->owner);
    g->token_len = (uint8_t)r->token.len;
    if (r->token.len)
        memcpy(g->token, r->token.ptr, r->token.len);
    g->mail_class = r->mail_class;
    g->class_most = r->class_most;
    s->tx.flags |= r->flags & MESSAGE_HELD;
    answer(s, NULL);
}

/* ---- the end -------------------------------------------------------------------------------- */

void gate_committed(struct session *s)
{
    if (s->tx.gate)
        s->tx.gate->reserved = false;
}

void gate_free(struct session *s)
{
    struct gate *g = s->tx.gate;
    struct buf *out = g && g->reserved ? accounts_tell(s) : NULL;
    if (!g)
        return;
    accounts_forget(s);
    if (out)
        ipc_release_encode(out, &(struct ipc_release){.id = id_slice(&s->tx.id)});
    forget_gate(s);
}

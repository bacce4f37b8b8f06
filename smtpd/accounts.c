#include "smtpd/accounts.h"

#include "core/log.h"
#include "core/mem.h"
#include "smtpd/auth.h"
#include "smtpd/gate.h"
#include "smtpd/identity.h"
#include "smtpd/own_limits.h"
#include "smtpd/session.h"

static struct slice question_key(const void *value)
{
    const struct account_question *q = value;
    return slice_make(&q->tag, sizeof q->tag);
}

void accounts_init(struct accounts *a, struct event_base *base)
{
    *a = (struct accounts){.base = base};
    map_init(&a->asked, question_key);
    mail_answers_init(&a->answers);
}

void accounts_free(struct accounts *a)
{
    channel_free(a->channel);
    a->channel = NULL;
    map_free(&a->asked);
    mail_answers_free(&a->answers);
}

/* ---- questions ---------------------------------------------------------------- */

static void close_question(struct accounts *a, struct account_question *q)
{
    map_remove(&a->asked, question_key(q));
    q->tag = 0;
}

struct buf *accounts_ask(struct session *s, enum account_subject subject)
{
    struct accounts *a = &s->server->accounts;
    if (!a->channel || !a->known || a->asked.count >= a->credit)
        return NULL;
    if (s->question.tag)
        panic("a second question to quota");
    s->question = (struct account_question){.tag = ++a->next_tag, .subject = (uint8_t)subject};
    map_put(&a->asked, &s->question);
    return channel_out(a->channel);
}

struct buf *accounts_go_on(struct session *s)
{
    return s->question.tag ? channel_out(s->server->accounts.channel) : NULL;
}

struct buf *accounts_tell(struct session *s)
{
    struct accounts *a = &s->server->accounts;
    return a->channel && a->known ? channel_out(a->channel) : NULL;
}

void accounts_secret(struct session *s)
{
    channel_secret(s->server->accounts.channel);
}

void accounts_forget(struct session *s)
{
    struct accounts *a = &s->server->accounts;
    struct account_question *q = &s->question;
    if (!q->tag)
        return;
    if (q->subject == ABOUT_LOGIN && a->channel)
        ipc_auth_abort_encode(channel_out(a->channel), &(struct ipc_auth_abort){.tag = q->tag});
    close_question(a, q);
}

void accounts_late(struct session *s)
{
    enum account_subject subject = (enum account_subject)s->question.subject;
    accounts_forget(s);
    if (subject == ABOUT_LOGIN)
        auth_lost(s);
    else if (subject == ABOUT_CERTIFICATE)
        identity_lost(s);
    else if (subject == ABOUT_LIMITS)
        own_limits_lost(s);
    else
        gate_lost(s);
}

/* ---- answers ------------------------------------------------------------------- */

/* The session that asked; NULL: it has given up, or has not asked this (*e). */
static struct session *asker(const struct accounts *a, uint64_t tag, unsigned subjects,
                             struct err *e)
{
    struct account_question *q = map_get(&a->asked, slice_make(&tag, sizeof tag));
    if (!q)
        return NULL;
    if (!(subjects & 1U << q->subject)) {
        err_set(e, "an answer to another question");
        return NULL;
    }
    return container_of(q, struct session, question);
}

/* An answer is over when the session has it, so that it can ask again. */
static struct session *take(struct accounts *a, uint64_t tag, unsigned subjects, struct err *e)
{
    struct session *s = asker(a, tag, subjects, e);
    if (s)
        close_question(a, &s->question);
    return s;
}

static int on_result(struct accounts *a, const struct ipc_auth_result *m, struct err *e)
{
    unsigned subjects = 1U << ABOUT_LOGIN | 1U << ABOUT_CLIENT | 1U << ABOUT_CERTIFICATE;
    struct session *s = asker(a, m->tag, subjects, e);
    if (!s)
        return *e->text ? -1 : 0;
    enum account_subject subject = (enum account_subject)s->question.subject;
    if (s->wait != WAIT_ACCOUNTS)
        return err_set(e, "a result that nobody waits for");
    close_question(a, &s->question);
    if (subject == ABOUT_LOGIN)
        auth_result(s, m);
    else if (subject == ABOUT_CERTIFICATE)
        identity_result(s, m);
    else
        gate_client(s, m);
    return 0;
}

static int on_challenge(struct accounts *a, const struct ipc_auth_challenge *m, struct err *e)
{
    struct session *s = asker(a, m->tag, 1U << ABOUT_LOGIN, e);
    if (s && s->wait == WAIT_ACCOUNTS)
        auth_challenge(s, m->message);
    else if (s)
        err_set(e, "a challenge that nobody waits for");
    return *e->text ? -1 : 0;
}

static int on_mail(struct accounts *a, const struct ipc_mail_answer *m, struct err *e)
{
    struct session *s = take(a, m->tag, 1U << ABOUT_MAIL, e);
    if (s)
        gate_mail_answer(s, m);
    return *e->text ? -1 : 0;
}

static int on_reserved(struct accounts *a, const struct ipc_reserved *m, struct err *e)
{
    struct session *s = take(a, m->tag, 1U << ABOUT_ROOM, e);
    if (s)
        gate_reserved(s, m);
    return *e->text ? -1 : 0;
}

static int on_limits(struct accounts *a, const struct ipc_limits *m, struct err *e)
{
    struct session *s = take(a, m->tag, 1U << ABOUT_LIMITS, e);
    if (s)
        own_limits_answer(s, m);
    return *e->text ? -1 : 0;
}

static int on_frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg, struct err *e)
{
    struct accounts *a = arg;
    struct ipc_quota_state state;
    struct ipc_auth_challenge challenge;
    struct ipc_auth_result result;
    struct ipc_mail_answer mail;
    struct ipc_reserved reserved;
    struct ipc_mail_forget forget;
    struct ipc_limits limits;
    (void)c;
    (void)fd; /* no message of quota's has one */
    *e = (struct err){0, ""};
    switch (f->number) {
    case IPC_NUMBER_ipc_quota_state:
        if (ipc_quota_state_decode(f->body, &state) < 0)
            break;
        a->known = true;
        a->credit = state.credit;
        return 0;
    case IPC_NUMBER_ipc_auth_challenge:
        if (ipc_auth_challenge_decode(f->body, &challenge) == 0)
            return on_challenge(a, &challenge, e);
        break;
    case IPC_NUMBER_ipc_auth_result:
        if (ipc_auth_result_decode(f->body, &result) == 0)
            return on_result(a, &result, e);
        break;
    case IPC_NUMBER_ipc_mail_answer:
        if (ipc_mail_answer_decode(f->body, &mail) == 0)
            return on_mail(a, &mail, e);
        break;
    case IPC_NUMBER_ipc_mail_forget:
        if (ipc_mail_forget_decode(f->body, &forget) < 0)
            break;
        mail_answers_forget(&a->answers);
        a->changes++;
        return 0;
    case IPC_NUMBER_ipc_limits:
        if (ipc_limits_decode(f->body, &limits) == 0)
            return on_limits(a, &limits, e);
        break;
    case IPC_NUMBER_ipc_reserved:
        if (ipc_reserved_decode(f->body, &reserved) == 0)
            return on_reserved(a, &reserved, e);
        break;
    default:
        break;
    }
    return err_set(e, "unexpected or malformed %s", ipc_name(f->number));
}

/* ---- the channel ------------------------------------------------------------------ */

/* Nobody will answer what is open. */
static void give_up(struct accounts *a)
{
    /* the map must not change while it is walked: gather first */
    size_t count = 0, at = 0;
    struct account_question *q,
        **all = xcalloc(a->asked.count + 1, sizeof(struct account_question *));
    while ((q = map_next(&a->asked, &at)))
        all[count++] = q;
    for (size_t i = 0; i < count; i++)
        accounts_late(container_of(all[i], struct session, question));
    free(all);
}

static void on_closed(struct channel *c, const char *why, void *arg)
{
    struct accounts *a = arg;
    if (c != a->channel)
        return;
    log_warning("quota is gone: %s; logins get 454 and mail of accounts 451 until it is back", why);
    a->channel = NULL;
    a->known = false;
    mail_answers_forget(&a->answers);
    give_up(a);
}

void accounts_attach(struct accounts *a, int fd)
{
    static const struct channel_ops ops = {on_frame, on_closed};
    channel_free(a->channel);
    a->channel = NULL;
    a->known = false;
    give_up(a);
    mail_answers_forget(&a->answers); /* MAIL_FORGET may have been lost */
    a->changes++;
    a->channel = channel_new(a->base, fd, "quota", &ops, a);
}

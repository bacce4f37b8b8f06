#include "smtpd/restrictions.h"

#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "smtpd/limits.h"
#include "smtpd/policy_request.h"
#include "smtpd/reply.h"
#include "smtpd/session.h"

/* ---- the rules --------------------------------------------------------------------- */

static char *or_default(struct slice own, const char *fallback)
{
    return own.len ? slice_dup(own) : xstrdup(fallback);
}

static void add_rule(struct restrictions *r, const struct config *config,
                     const struct restriction *from, struct rule *to)
{
    to->kind = from->kind;
    if (from->kind != RESTRICTION_SERVICE)
        return;
    struct policy_service *v = &to->service;
    int64_t seconds = from->timeout ? from->timeout : config->smtpd_policy_service_timeout;
    policy_service_init(v, &r->network, slice_dup(from->endpoint), seconds * CLOCK_SECOND);
    v->default_action =
        or_default(from->default_action, config->smtpd_policy_service_default_action);
    v->context = or_default(from->context, config->smtpd_policy_service_policy_context);
}

/* Servers must not move in memory once they are made: counted first. */
static int make_list(struct restrictions *r, const struct config *config, enum restriction_list at,
                     struct err *e)
{
    struct slice text = slice_str(restrictions_text(config, at)), list = text;
    struct restriction element;
    size_t count = 0;
    int rc;
    while ((rc = restriction_next(&list, &element, e)) == 1)
        count++;
    if (rc < 0)
        return -1;
    r->rules[at] = xcalloc(count + 1, sizeof *r->rules[at]);
    r->counts[at] = count;
    for (size_t i = 0; i < count && restriction_next(&text, &element, e) == 1; i++)
        add_rule(r, config, &element, &r->rules[at][i]);
    return 0;
}

int restrictions_init(struct restrictions *r, const struct config *config, struct err *e)
{
    for (int i = 0; i < RESTRICTION_LISTS; i++)
        if (make_list(r, config, (enum restriction_list)i, e) < 0)
            return -1;
    return 0;
}

/* Calls a function for each policy server until it returns true. */
static bool each_service(struct restrictions *r, bool (*call)(struct policy_service *v, void *arg),
                         void *arg)
{
    for (int i = 0; i < RESTRICTION_LISTS; i++)
        for (size_t k = 0; k < r->counts[i]; k++)
            if (r->rules[i][k].kind == RESTRICTION_SERVICE && call(&r->rules[i][k].service, arg))
                return true;
    return false;
}

static bool free_service(struct policy_service *v, void *arg)
{
    (void)arg;
    policy_service_free(v);
    return false;
}

void restrictions_free(struct restrictions *r)
{
    each_service(r, free_service, NULL);
    for (int i = 0; i < RESTRICTION_LISTS; i++) {
        xfree(&r->rules[i]);
        r->counts[i] = 0;
    }
}

static bool tick_service(struct policy_service *v, void *arg)
{
    remote_tick(&v->remote, *(int64_t *)arg);
    return false;
}

void restrictions_tick(struct restrictions *r, int64_t now)
{
    each_service(r, tick_service, &now);
}

struct connecting {
    uint64_t tag;
    int fd;
    struct slice why;
};

static bool offer_connection(struct policy_service *v, void *arg)
{
    const struct connecting *c = arg;
    return remote_connecting(&v->remote, c->tag, c->fd, c->why);
}

void restrictions_connecting(struct restrictions *r, uint64_t tag, int fd, struct slice why)
{
    struct connecting c = {tag, fd, why};
    /* who asked may have given up meanwhile */
    if (!each_service(r, offer_connection, &c) && fd >= 0)
        close(fd);
}

/* Which lists a check goes through. */
static const struct {
    enum restriction_list first, last;
} checks[] = {
    [CHECK_RECIPIENT] = {RESTRICT_CLIENT, RESTRICT_RECIPIENT},
    [CHECK_DATA] = {RESTRICT_DATA, RESTRICT_DATA},
    [CHECK_MESSAGE] = {RESTRICT_END_OF_DATA, RESTRICT_END_OF_DATA},
};

bool restrictions_any(const struct session *s, enum check check)
{
    const struct restrictions *r = &s->server->restrictions;
    if (s->local_user)
        return false;
    for (unsigned i = checks[check].first; i <= checks[check].last; i++)
        if (r->counts[i])
            return true;
    return false;
}

/* ---- refusals ----------------------------------------------------------------------- */

enum { SLOT_REFUSAL, SLOT_IF_PERMIT, SLOT_IF_REJECT };

/* What is refused, as Postfix says it. */
static struct slice subject(const struct session *s, unsigned list)
{
    switch (list) {
    case RESTRICT_CLIENT:
        return slice_str(s->peer);
    case RESTRICT_HELO:
        return slice_str(s->helo);
    case RESTRICT_SENDER:
        return buf_slice(&s->tx.sender);
    case RESTRICT_RECIPIENT:
        return path_address(&s->tx.run->recipient);
    default:
        return slice_str(s->where);
    }
}

static void set_refusal(struct session *s, struct refusal *out, int slot,
                        const struct policy_action *a, const char *fallback)
{
    static const char *const kinds[RESTRICTION_LISTS] = {
        [RESTRICT_CLIENT] = "Client host",    [RESTRICT_HELO] = "Helo command",
        [RESTRICT_SENDER] = "Sender address", [RESTRICT_RECIPIENT] = "Recipient address",
        [RESTRICT_DATA] = "Data command",     [RESTRICT_END_OF_DATA] = "End-of-data",
    };
    struct check_run *run = s->tx.run;
    char *text = run->text[slot], *enhanced = run->enhanced[slot];
    snprintf(text, CHECK_TEXT_MAX, "<%s>: %s rejected: %s",
             log_esc_n(subject(s, run->list), ADDRESS_MAX), kinds[run->list],
             a->text.len ? log_esc(a->text) : fallback);
    memcpy(enhanced, a->enhanced, sizeof run->enhanced[slot]);
    *out = (struct refusal){a->code, enhanced, text};
}

void restrictions_refuse(struct session *s, struct slice to)
{
    const struct refusal *r = &s->tx.run->refusal;
    reject(s, to, r);
    if (r->code == 421 || r->code == 521) /* these say that the connection ends */
        session_end(s);
}

/* ---- a check --------------------------------------------------------------------------- */

enum rule_result { RULE_NEXT, RULE_ENDS_LIST, RULE_REFUSES, RULE_WAITS };

static enum rule_result refuse(struct session *s, const char *action, const char *fallback)
{
    struct policy_action a;
    policy_action_parse(slice_str(action), &a);
    set_refusal(s, &s->tx.run->refusal, SLOT_REFUSAL, &a, fallback);
    return RULE_REFUSES;
}

static const char *log_id(const struct session *s)
{
    return s->tx.rcpt_count ? s->tx.id.text : "NOQUEUE";
}

static void add_header(struct check_run *run, struct slice line)
{
    if (run->prepend.len + line.len + 2 > run->prepend.max) {
        log_warning("policy server: more than %d bytes of header lines to prepend", PREPEND_MAX);
        return;
    }
    buf_adds(&run->prepend, line);
    buf_add(&run->prepend, "\r\n", 2);
}

/* Does what a policy server says. */
static enum rule_result act(struct session *s, const struct policy_action *a)
{
    struct check_run *run = s->tx.run;
    switch (a->verb) {
    case POLICY_DUNNO:
        return RULE_NEXT;
    case POLICY_PERMIT:
        return RULE_ENDS_LIST;
    case POLICY_REFUSE:
        set_refusal(s, &run->refusal, SLOT_REFUSAL, a,
                    a->code < 500 ? "Try again later" : "Access denied");
        return RULE_REFUSES;
    case POLICY_DEFER_IF_PERMIT:
        if (!run->if_permit.code)
            set_refusal(s, &run->if_permit, SLOT_IF_PERMIT, a, "Service unavailable");
        return RULE_NEXT;
    case POLICY_DEFER_IF_REJECT:
        if (!run->if_reject.code)
            set_refusal(s, &run->if_reject, SLOT_IF_REJECT, a, "Service unavailable");
        return RULE_NEXT;
    case POLICY_HOLD:
        run->hold = true;
        log_info("%s: hold: %s from %s: %s", log_id(s), s->where, s->peer, log_esc(a->text));
        return RULE_NEXT;
    case POLICY_PREPEND:
        add_header(run, a->text);
        return RULE_NEXT;
    case POLICY_LOG:
        log_info("%s: info: %s from %s: %s", log_id(s), s->where, s->peer, log_esc(a->text));
        return RULE_NEXT;
    case POLICY_UNSUPPORTED:
        break;
    }
    log_warning("policy server %s: its action is not supported, or malformed",
                run->asked->endpoint);
    return refuse(s, "451 4.3.5", "Server configuration error");
}

static void on_answer(struct policy_query *q, const struct policy_action *a);

static enum rule_result ask(struct session *s, struct policy_service *v)
{
    struct check_run *run = s->tx.run;
    run->asked = v;
    buf_init(&run->query.remote.request, POLICY_REQUEST_MAX);
    if (policy_request(s, v->context, &run->query.remote.request) < 0)
        panic("a request to a policy server of more than %d bytes", POLICY_REQUEST_MAX);
    run->query.answered = on_answer;
    policy_ask(v, &run->query);
    s->wait = WAIT_POLICY;
    return RULE_WAITS;
}

static enum rule_result apply(struct session *s, struct rule *r)
{
    struct slice address = slice_make(s->address, s->address_len);
    switch (r->kind) {
    case RESTRICTION_PERMIT:
        return RULE_ENDS_LIST;
    case RESTRICTION_PERMIT_NETWORKS:
        return nets_match(&s->server->relay_networks, address) ? RULE_ENDS_LIST : RULE_NEXT;
    case RESTRICTION_PERMIT_LOGIN:
        return s->login ? RULE_ENDS_LIST : RULE_NEXT;
    case RESTRICTION_PERMIT_CERTIFICATE:
        return secure_may_relay(s) ? RULE_ENDS_LIST : RULE_NEXT;
    case RESTRICTION_REJECT_UNAUTH:
        return session_may_relay(s) ? RULE_NEXT : refuse(s, "554 5.7.1", "Relay access denied");
    case RESTRICTION_REJECT:
        return refuse(s, "554 5.7.1", "Access denied");
    case RESTRICTION_DEFER:
        return refuse(s, "450 4.7.1", "Try again later");
    case RESTRICTION_SERVICE:
        return ask(s, &r->service);
    }
    return RULE_NEXT;
}

/* Nothing refused: what was asked for on that condition happens now. */
static enum check_result pass(struct session *s)
{
    struct check_run *run = s->tx.run;
    if (run->if_permit.code) {
        run->refusal = run->if_permit;
        return CHECK_REFUSED;
    }
    if (run->hold)
        s->tx.flags |= MESSAGE_HOLD;
    if (buf_adds(&s->tx.prepend, buf_slice(&run->prepend)) < 0)
        log_warning("%s: more than %d bytes of header lines to prepend", s->tx.id.text,
                    PREPEND_MAX);
    return CHECK_PASSED;
}

static enum check_result refused(struct check_run *run)
{
    if (run->if_reject.code && run->refusal.code >= 500)
        run->refusal = run->if_reject;
    return CHECK_REFUSED;
}

/* Takes rules until one waits, refuses, or none is left; `result` is that of the
 * rule before. */
static enum check_result go_on(struct session *s, enum rule_result result)
{
    struct restrictions *all = &s->server->restrictions;
    struct check_run *run = s->tx.run;
    for (;;) {
        if (result == RULE_REFUSES)
            return refused(run);
        if (result == RULE_WAITS)
            return CHECK_WAITS;
        if (result == RULE_ENDS_LIST || run->rule == all->counts[run->list]) {
            run->rule = 0;
            if (run->list++ == checks[run->check].last)
                return pass(s);
            result = RULE_NEXT;
            continue;
        }
        result = apply(s, &all->rules[run->list][run->rule++]);
    }
}

static void on_answer(struct policy_query *q, const struct policy_action *a)
{
    struct check_run *run = container_of(q, struct check_run, query);
    struct session *s = run->session;
    enum check_result result = go_on(s, act(s, a));
    if (result == CHECK_WAITS)
        return;
    s->wait = WAIT_NOTHING;
    run->done(s, result);
    session_go_on(s);
}

static enum check_result begin(struct session *s, enum check check, check_done *done)
{
    struct check_run *run = s->tx.run;
    if (!run)
        run = s->tx.run = xcalloc(1, sizeof *run);
    run->session = s;
    run->done = done;
    run->check = check;
    run->list = checks[check].first;
    run->rule = 0;
    run->hold = false;
    run->refusal.code = run->if_permit.code = run->if_reject.code = 0;
    buf_free(&run->prepend);
    buf_init(&run->prepend, PREPEND_MAX);
    return go_on(s, RULE_NEXT);
}

enum check_result restrictions_check_recipient(struct session *s, const struct smtp_path *recipient,
                                               const struct rcpt_params *params, check_done *done)
{
    if (!restrictions_any(s, CHECK_RECIPIENT))
        return CHECK_PASSED;
    if (!s->tx.run)
        s->tx.run = xcalloc(1, sizeof *s->tx.run);
    s->tx.run->recipient = *recipient;
    s->tx.run->params = *params;
    return begin(s, CHECK_RECIPIENT, done);
}

enum check_result restrictions_check_message(struct session *s, enum check check, check_done *done)
{
    return restrictions_any(s, check) ? begin(s, check, done) : CHECK_PASSED;
}

void restrictions_forget(struct session *s)
{
    struct check_run *run = s->tx.run;
    if (!run)
        return;
    policy_forget(&run->query);
    buf_free(&run->prepend);
    xfree(&s->tx.run);
}

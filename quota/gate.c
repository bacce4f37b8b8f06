/* May it be sent? At MAIL as far as can be told, at the end of data for good. */
#include "quota/gate.h"

#include "core/log.h"
#include "quota/rates.h"
#include "quota/spike.h"

enum {
    GOOD_FOR = 1000,        /* milliseconds that an answer to MAIL holds for other messages, */
    GOOD_ROOM = 2000,       /* if so many of them have room, */
    GOOD_SIZE = 256 * 1024, /* each with so many bytes */
    ENOUGH = CHARGE_RECIPIENTS_MAX /* more is never asked for */
};

void gate_refuse(struct answer *a, uint16_t code, const char *enhanced, const char *format, ...)
{
    va_list args;
    a->code = code;
    a->enhanced = enhanced;
    buf_clear(&a->text);
    va_start(args, format);
    (void)buf_vprintf(&a->text, format, args);
    va_end(args);
}

/* ---- who ------------------------------------------------------------------------- */

/* Not for good: who knows the password of now logs in again. smtpd ends the session. */
static void login_over(struct answer *no)
{
    gate_refuse(no, 421, "4.7.0", "Error: the login does not hold any longer, log in again");
}

bool gate_identify(struct asking *x, struct quota *q, struct slice ticket, struct answer *no)
{
    static struct ticket t;
    const char *why;
    struct user u;
    *x = (struct asking){.q = q, .user_name = t.user, .now = quota_now()};
    if (ticket_read(q, ticket, &t) < 0) {
        login_over(no);
        return false;
    }
    bool known = *t.user && user_find(q, slice_str(t.user), &u) == 1;
    struct account *a = account_find(q, slice_str(t.account));
    if (q->empty && (!a || (*t.user && !known))) {
        gate_refuse(no, 451, "4.3.0", "Error: the accounts are not there yet, try again later");
        return false;
    }
    if (!a) {
        gate_refuse(no, 550, "5.7.1", "Error: the account does not exist any more");
        return false;
    }
    if (*t.user && (!known || strcmp(u.account, t.account) != 0 || u.suspended)) {
        gate_refuse(no, 550, "5.7.1", "Error: the user is %s",
                    known ? "suspended" : "not there any more");
        return false;
    }
    if (!account_usable(q, a, &why)) {
        gate_refuse(no, 550, "5.7.1", "Error: %s", why);
        return false;
    }
    const struct account *planless = account_without_plan(q, a);
    if (planless) {
        gate_refuse(no, 451, "4.3.5",
                    "Error: the plan of account %s is not known at present, try again later",
                    planless->name);
        return false;
    }
    if (t.epoch != ticket_epoch(q, a, known ? &u : NULL)) {
        login_over(no);
        return false;
    }
    x->levels = account_chain(q, a, x->chain);
    for (unsigned i = 0; i < x->levels; i++) {
        x->parties[i] = party_find(q, x->chain[i], SLICE(""));
        rates_roll(&x->parties[i]->tally, x->chain[i]->plan, x->chain[i]->plan->account_rates,
                   x->now);
    }
    if (*t.user) {
        x->user = party_find(q, a, slice_str(t.user));
        rates_roll(&x->user->tally, a->plan, a->plan->user_rates, x->now);
    }
    return true;
}

/* ---- what is left --------------------------------------------------------------------- */

/* Notes that `n` have room; true if that is less than is known of. */
static bool room_shrinks(struct room *r, uint64_t n)
{
    if (n < r->volume)
        r->volume = n;
    if (n >= r->messages)
        return false;
    r->messages = n;
    return true;
}

static void rate_room(const struct asking *x, const struct plan *p, const struct plan_rate *rates,
                      const struct party *party, const char *whose, struct room *r)
{
    const struct plan_rate *full = NULL;
    int64_t next = 0;
    if (p->rate_action != RATE_DEFER)
        return;
    uint64_t n = rates_room(&party->tally, p, rates, party->pending.messages, x->now, &full, &next);
    if (!room_shrinks(r, n))
        return;
    struct buf rate = BUF_INIT(100), when = BUF_INIT(200);
    rates_print(&rate, full);
    plan_print_time(&when, p, next);
    gate_refuse(r->no, 450, "4.7.1", "Error: the %s may send %.*s, more from %.*s on", whose,
                SLICE_ARG(buf_slice(&rate)), SLICE_ARG(buf_slice(&when)));
    buf_free(&rate);
    buf_free(&when);
}

static void plan_room(const struct asking *x, unsigned level, uint64_t size, struct room *r)
{
    const struct account *a = x->chain[level];
    const struct party *p = x->parties[level];
    uint64_t most = r->messages > GOOD_ROOM ? r->messages : GOOD_ROOM;
    uint64_t n = plan_fit(a->plan, &p->usage, a->grants, a->grant_count, p->pending,
                          plan_cost(a->plan, size, 1), most, x->now);
    if (!room_shrinks(r, n))
        return;
    struct buf when = BUF_INIT(200);
    plan_print_time(&when, a->plan, p->usage.period.end);
    if (p->usage.period.end == INT64_MAX)
        gate_refuse(r->no, 550, "5.7.1", "Error: the volume of account %s is used up", a->name);
    else
        gate_refuse(r->no, 550, "5.7.1", "Error: the volume of account %s is used up until %.*s",
                    a->name, SLICE_ARG(buf_slice(&when)));
    buf_free(&when);
}

/* spike_action = slow: what the guard leaves of this hour. */
static void spike_room_now(const struct asking *x, unsigned level, struct room *r)
{
    const struct account *a = x->chain[level];
    const struct party *p = x->parties[level];
    struct buf when = BUF_INIT(200);
    if (a->plan->spike_action != SPIKE_SLOW ||
        !room_shrinks(r, spike_room(&p->tally, a->plan, p->pending.messages)))
        return;
    r->spike = true;
    r->spike_level = level;
    plan_print_time(&when, a->plan, p->tally.hour + 3600);
    gate_refuse(r->no, 450, "4.7.1",
                "Error: account %s sends far more than its usual, more is taken from %.*s on",
                a->name, SLICE_ARG(buf_slice(&when)));
    buf_free(&when);
}

struct room gate_room(const struct asking *x, uint64_t size, uint64_t wanted, struct answer *no)
{
    const struct plan *own = x->chain[0]->plan;
    const struct message_limits most = account_message_limits(x->chain, x->levels);
    struct room r = {.messages = wanted, .volume = GOOD_ROOM, .no = no};
    if (most.recipients && most.recipients < r.messages) {
        r.messages = most.recipients;
        gate_refuse(no, 452, "4.5.3", "Error: a message may have %llu recipients",
                    (unsigned long long)most.recipients);
    }
    if (x->user)
        rate_room(x, own, own->user_rates, x->user, "user", &r);
    for (unsigned i = 0; i < x->levels; i++) {
        rate_room(x, x->chain[i]->plan, x->chain[i]->plan->account_rates, x->parties[i], "account",
                  &r);
        plan_room(x, i, size, &r);
    }
    for (unsigned i = 0; i < x->levels; i++)
        spike_room_now(x, i, &r);
    return r;
}

/* What MAIL and the end of data check alike. */
bool gate_may_send(const struct asking *x, struct slice sender, uint64_t size, struct answer *no)
{
    uint64_t limit = account_message_limits(x->chain, x->levels).size;
    if (x->q->disk_full)
        gate_refuse(no, 452, "4.3.1", "Error: insufficient system storage");
    else if (sender.len && !account_owns(x->q, x->chain[0], sender))
        gate_refuse(no, 553, "5.7.1", "<%s>: Sender address rejected: not owned by account %s",
                    log_esc(sender), x->chain[0]->name);
    else if (limit && size > limit)
        gate_refuse(no, 552, "5.3.4", "Error: a message may have %llu bytes",
                    (unsigned long long)limit);
    else
        return true;
    return false;
}

/* Room for a message of this size. Where there is plenty even for large ones, that is
 * the answer, and it holds for a moment. */
static struct room room_at_mail(const struct asking *x, uint64_t size, struct answer *no,
                                struct ipc_mail_answer *out)
{
    uint64_t limit = account_message_limits(x->chain, x->levels).size;
    uint64_t most = limit && limit < GOOD_SIZE ? limit : GOOD_SIZE;
    if (size <= most) {
        struct room r = gate_room(x, most, ENOUGH, no);
        if (r.volume >= GOOD_ROOM) {
            out->good_for = GOOD_FOR;
            out->good_size = most;
            return r;
        }
    }
    no->code = 0;
    return gate_room(x, size, ENOUGH, no);
}

static void tell_limits(struct smtpd *s, const struct asking *x, uint64_t *size,
                        uint32_t *recipients)
{
    const struct message_limits most = account_message_limits(x->chain, x->levels);
    *size = most.size;
    *recipients = most.recipients < UINT32_MAX ? (uint32_t)most.recipients : UINT32_MAX;
    s->told++;
}

int gate_limits(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_limits_request in;
    struct asking x;
    struct answer no = {.text = BUF_INIT(1000)};
    if (ipc_limits_request_decode(body, &in) < 0)
        return err_set(e, "malformed LIMITS_REQUEST");
    struct ipc_limits out = {.tag = in.tag};
    if (gate_identify(&x, s->q, in.ticket, &no)) {
        out.known = 1;
        tell_limits(s, &x, &out.size_limit, &out.recipient_limit);
    }
    ipc_limits_encode(channel_out(s->channel), &out);
    buf_free(&no.text);
    return 0;
}

int gate_mail(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_mail_request in;
    struct asking x;
    struct answer no = {.text = BUF_INIT(1000)}, more = {.text = BUF_INIT(1000)};
    struct ipc_mail_answer out;
    if (ipc_mail_request_decode(body, &in) < 0)
        return err_set(e, "malformed MAIL_REQUEST");
    out = (struct ipc_mail_answer){.tag = in.tag};
    if (gate_identify(&x, s->q, in.ticket, &no) && gate_may_send(&x, in.sender, in.size, &no)) {
        struct room r = room_at_mail(&x, in.size, &more, &out);
        tell_limits(s, &x, &out.size_limit, &out.recipient_limit);
        if (r.spike && r.messages == 0)
            (void)guard_acts(&x, r.spike_level, 1);
        out.recipients = (uint32_t)r.messages;
        if (r.messages == 0) {
            out.code = more.code;
            out.enhanced = slice_str(more.enhanced);
            out.text = buf_slice(&more.text);
        }
        out.more_code = more.code;
        out.more_enhanced = slice_str(more.enhanced);
        out.more_text = buf_slice(&more.text);
    }
    if (no.code) {
        out.code = no.code;
        out.enhanced = slice_str(no.enhanced);
        out.text = buf_slice(&no.text);
    }
    ipc_mail_answer_encode(channel_out(s->channel), &out);
    buf_free(&no.text);
    buf_free(&more.text);
    return 0;
}

void gate_changed(struct quota *q)
{
    for (unsigned i = 0; i < q->smtpd_count; i++) {
        struct smtpd *s = q->smtpds[i];
        if (s->told)
            ipc_mail_forget_encode(channel_out(s->channel),
                                   &(struct ipc_mail_forget){.answers = s->told});
        s->told = 0;
    }
}

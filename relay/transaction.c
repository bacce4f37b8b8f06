/*
 * One MAIL transaction: MAIL, RCPTs, DATA or BDAT, content. With PIPELINING all
 * commands up to DATA leave in one write; BDAT waits until a recipient is
 * accepted, so that nothing is ever sent that might be delivered before its
 * recipients are known.
 */
#include "core/mem.h"
#include "relay/connect.h"
#include "relay/outcome.h"
#include "relay/slots.h"
#include "smtp/address.h"

enum { DOMAINS_MAX = 16 }; /* of a transaction, where the server limits them at all */

static bool pipelining(const struct session *s)
{
    return (s->ehlo.features & EHLO_PIPELINING) != 0;
}

static bool chunking(const struct session *s)
{
    return (s->ehlo.features & EHLO_CHUNKING) != 0;
}

/* The next recipient from *at on that is in this state, or NULL. */
static struct recipient *next_recipient(struct job *j, unsigned *at, enum recipient_state state)
{
    for (; *at < j->recipient_count; ++*at)
        if (j->recipients[*at].state == state)
            return &j->recipients[*at];
    return NULL;
}

/* ---- start ----------------------------------------------------------------- */

/* The different domains of a transaction, where the server limits their number
 * (RCPTDOMAINMAX, RFC 9422 3.3). */
struct domains {
    uint64_t limit; /* 0: none */
    unsigned count;
    struct slice names[DOMAINS_MAX];
};

/* Whether a recipient of this address may join. */
static bool admits(struct domains *d, struct slice address)
{
    if (d->limit == 0)
        return true;
    struct slice name = address_domain(address);
    for (unsigned i = 0; i < d->count; i++)
        if (slice_caseeq(d->names[i], name))
            return true;
    if (d->count >= d->limit || d->count == DOMAINS_MAX)
        return false;
    d->names[d->count++] = name;
    return true;
}

static void choose_recipients(struct session *s)
{
    struct job *j = s->job;
    struct domains domains = {.limit = s->ehlo.rcpt_domain_max};
    uint64_t limit = s->ehlo.rcpt_max ? s->ehlo.rcpt_max : JOB_RECIPIENTS_MAX;
    struct recipient *r;
    if (j->m.recipients_max && j->m.recipients_max < limit)
        limit = j->m.recipients_max;
    if (s->rcpt_limit && s->rcpt_limit < limit)
        limit = s->rcpt_limit;
    for (unsigned at = 0; s->tx.rcpt_due < limit; at++) {
        if (!(r = next_recipient(j, &at, RECIPIENT_PENDING)))
            break;
        if (!admits(&domains, r->address))
            continue;
        r->state = RECIPIENT_CHOSEN;
        s->tx.rcpt_due++;
    }
}

static void queue_text(struct session *s, struct slice text)
{
    if (buf_adds(session_queue(s), text) < 0)
        panic("commands longer than WIRE_OUT_MAX");
}

static void queue_next_rcpt(struct session *s)
{
    struct recipient *r = next_recipient(s->job, &s->tx.cursor, RECIPIENT_CHOSEN);
    commands_rcpt(s, r, session_queue(s));
}

/* MAIL, RCPT, DATA in one write (RFC 2920 3.1). */
static void queue_rest_pipelined(struct session *s)
{
    struct buf *out = session_queue(s);
    struct job *j = s->job;
    for (unsigned i = 0; i < j->recipient_count; i++)
        if (j->recipients[i].state == RECIPIENT_CHOSEN)
            commands_rcpt(s, &j->recipients[i], out);
    if (chunking(s))
        return;
    queue_text(s, SLICE("DATA\r\n"));
    s->tx.data_sent = true;
}

void transaction_begin(struct session *s)
{
    struct job *j = s->job;
    const struct config *config = s->relay->service->config;
    s->tx = (struct transaction){.cursor = 0};
    needs_check(s);
    if (j->undecided == 0) {
        session_finish_job(s);
        return;
    }
    if (!j->connected) {
        j->connected = clock_mono();
        j->deadline = j->connected + config->smtp_transaction_time_limit * CLOCK_SECOND;
    }
    j->dsn = (s->ehlo.features & EHLO_DSN) != 0;
    j->use_count = ++s->transactions;
    j->taken_count = s->taken;
    j->mail_max = s->ehlo.mail_max < UINT32_MAX ? (uint32_t)s->ehlo.mail_max : UINT32_MAX;
    job_set_tls(j, s->tls.text, s->tls.peer);
    choose_recipients(s);
    s->tx.commands = 1 + s->tx.rcpt_due;
    s->tx.began = clock_mono();
    if (s->needs_rset)
        queue_text(s, SLICE("RSET\r\n"));
    if (!s->needs_rset || pipelining(s))
        commands_mail(s, session_queue(s));
    if (pipelining(s))
        queue_rest_pipelined(s);
    session_enter(s, s->needs_rset ? SESSION_RSET : SESSION_MAIL);
    s->needs_rset = false;
}

/* ---- end ------------------------------------------------------------------- */

static void transaction_end(struct session *s)
{
    struct job *j = s->job;
    if (j->undecided == 0) {
        session_finish_job(s);
    } else if (session_usable(s, j)) {
        transaction_begin(s);
    } else {
        /* MAILMAX or our own limit: the rest of the recipients over another */
        struct relay *relay = s->relay;
        s->job = NULL;
        slots_hand_on(s, j);
        session_leave(s);
        connect_restart(relay, j);
    }
}

/* Recipients in `state` get what this reply says. */
static void decide(struct session *s, enum recipient_state state, enum smtp_stage stage,
                   const struct smtp_reply *r)
{
    struct verdict v = verdict_of_reply(stage, r);
    enum rcpt_outcome outcome = outcome_of_code(r->code);
    if (outcome != OUTCOME_SENT)
        job_widen(s->job, SCOPE_MESSAGE);
    job_decide_all(s->job, state, outcome, &v);
}

static void start_content(struct session *s)
{
    /* not the content's: how long that takes is a matter of its size and of the line */
    s->job->reply = (clock_mono() - s->tx.began) / s->tx.commands;
    content_init(&s->tx.content, s->job, !s->tx.data_sent && chunking(s));
    session_enter(s, SESSION_CONTENT);
}

static void after_rcpts(struct session *s)
{
    if (s->tx.data_sent) {
        session_enter(s, SESSION_DATA);
    } else if (s->tx.accepted == 0) {
        s->needs_rset = true;
        transaction_end(s);
    } else if (chunking(s)) {
        start_content(s);
    } else {
        queue_text(s, SLICE("DATA\r\n"));
        session_enter(s, SESSION_DATA);
    }
}

/* ---- replies --------------------------------------------------------------- */

void transaction_on_rset(struct session *s, const struct smtp_reply *r)
{
    struct verdict v;
    if (r->code / 100 != 2) {
        v = verdict_of_reply(STAGE_MAIL, r);
        session_fail(s, &v, true);
        return;
    }
    if (!pipelining(s))
        commands_mail(s, session_queue(s));
    session_enter(s, SESSION_MAIL);
}

void transaction_on_mail(struct session *s, const struct smtp_reply *r)
{
    if (r->code / 100 == 3) {
        session_protocol_error(s, "an unexpected reply");
        return;
    }
    if (r->code / 100 != 2) {
        decide(s, RECIPIENT_CHOSEN, STAGE_MAIL, r);
        s->tx.refused = true;
    }
    if (s->tx.refused && !pipelining(s)) {
        s->needs_rset = true;
        transaction_end(s);
        return;
    }
    if (!pipelining(s))
        queue_next_rcpt(s);
    session_enter(s, SESSION_RCPT);
}

static void take_rcpt_reply(struct session *s, struct recipient *to, const struct smtp_reply *r)
{
    if (r->code / 100 == 2) {
        to->state = RECIPIENT_ACCEPTED;
        s->tx.accepted++;
        return;
    }
    if (reply_too_many(r) && s->tx.accepted > 0) {
        to->state = RECIPIENT_PENDING;
        s->rcpt_limit = s->tx.accepted;
        return;
    }
    struct verdict v = verdict_of_reply(STAGE_RCPT, r);
    bool temporary = reply_too_many(r);
    job_decide(s->job, to, temporary ? OUTCOME_DEFERRED : outcome_of_code(r->code), &v);
}

void transaction_on_rcpt(struct session *s, const struct smtp_reply *r)
{
    if (r->code / 100 == 3) {
        session_protocol_error(s, "an unexpected reply");
        return;
    }
    if (!s->tx.refused)
        take_rcpt_reply(s, next_recipient(s->job, &s->tx.cursor, RECIPIENT_CHOSEN), r);
    if (--s->tx.rcpt_due == 0) {
        after_rcpts(s);
        return;
    }
    if (!pipelining(s))
        queue_next_rcpt(s);
    session_enter(s, SESSION_RCPT);
}

void transaction_on_data(struct session *s, const struct smtp_reply *r)
{
    if (r->code >= 400) {
        if (s->tx.accepted > 0)
            decide(s, RECIPIENT_ACCEPTED, STAGE_DATA, r);
        s->needs_rset = true;
        transaction_end(s);
    } else if (r->code != 354 || (s->tx.accepted == 0 && s->lmtp)) {
        session_protocol_error(s, "an unexpected reply");
    } else if (s->tx.accepted == 0) {
        /* nobody to send to, but the server waits for an end of data (RFC 2920 3.1) */
        s->tx.empty = true;
        queue_text(s, SLICE(".\r\n"));
        session_enter(s, SESSION_DOT);
    } else {
        start_content(s);
    }
}

/* A reply before the end of data: a refusal is believed, a 2xx cannot be one to
 * what has not been sent (B46). In both cases the two sides are out of step. */
void transaction_on_content(struct session *s, const struct smtp_reply *r)
{
    if (r->code < 400) {
        session_protocol_error(s, "a reply before the end of data");
        return;
    }
    struct relay *relay = s->relay;
    struct job *j = s->job;
    decide(s, RECIPIENT_ACCEPTED, STAGE_DOT, r);
    s->job = NULL;
    if (j->undecided > 0)
        slots_hand_on(s, j);
    session_close(s);
    if (j->undecided == 0)
        relay_job_done(relay, j);
    else
        connect_restart(relay, j);
}

/* LMTP: a reply for each recipient that was accepted, in order (RFC 2033 4.2). */
static void take_lmtp_reply(struct session *s, const struct smtp_reply *r)
{
    struct verdict v = verdict_of_reply(STAGE_DOT, r);
    struct recipient *to = next_recipient(s->job, &s->tx.cursor, RECIPIENT_ACCEPTED);
    job_decide(s->job, to, outcome_of_code(r->code), &v);
    s->tx.accepted--;
}

void transaction_on_dot(struct session *s, const struct smtp_reply *r)
{
    if (r->code / 100 == 3) {
        session_protocol_error(s, "an unexpected reply");
        return;
    }
    if (s->tx.empty || r->code >= 400)
        s->needs_rset = true;
    if (s->tx.empty) {
        transaction_end(s);
    } else if (s->lmtp) {
        take_lmtp_reply(s, r);
        s->taken += s->tx.accepted == 0;
        if (s->tx.accepted == 0)
            transaction_end(s);
    } else {
        s->taken += r->code / 100 == 2;
        decide(s, RECIPIENT_ACCEPTED, STAGE_DOT, r);
        transaction_end(s);
    }
}

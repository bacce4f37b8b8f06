/* What relay processes tell of their jobs: is it of a job that they have, and what does it
 * mean for its recipients. */
#include "core/fault.h"
#include "core/log.h"
#include "qmgr/connections.h"
#include "qmgr/relays.h"
#include "qmgr/sources.h"

enum {
    JOB_RECIPIENTS_MAX = 1000,
    JOB_CONNECTIONS_MAX = 10000 /* that a relay process may say it began for one */
};

static int place_of(const struct job *j, uint32_t index, uint32_t hint)
{
    if (hint < j->count && j->rcpts[hint] == index)
        return (int)hint;
    uint32_t low = 0, high = j->count; /* they are in ascending order */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (j->rcpts[middle] < index)
            low = middle + 1;
        else
            high = middle;
    }
    return low < j->count && j->rcpts[low] == index ? (int)low : -1;
}

/* B92, B93: every outcome is of a recipient of this job, and none comes twice.
 * Marks in `seen` which came. */
static int check_outcomes(const struct job *j, const struct ipc_result *in, uint8_t *seen,
                          struct err *e)
{
    struct ipc_cursor cursor = ipc_list_cursor(in->outcomes);
    struct ipc_outcome o;
    uint32_t n = 0;
    while (ipc_outcome_next(&cursor, &o)) {
        int at = place_of(j, o.index, n++);
        if (at < 0 || seen[at] || o.status > OUTCOME_FAILED)
            return err_set(e, "RESULT for recipient %u, which it was not given", o.index);
        if (in->scope == SCOPE_NO_CONNECTION && o.status != OUTCOME_DEFERRED)
            return err_set(e, "RESULT: not tried, though recipient %u has an answer", o.index);
        seen[at] = 1;
    }
    return cursor.failed ? err_set(e, "malformed RESULT") : 0;
}

static bool same_words(const struct ipc_outcome *a, const struct ipc_outcome *b)
{
    return a->status == b->status && a->code == b->code && a->stage == b->stage &&
           a->local == b->local && slice_eq(a->enhanced, b->enhanced) && slice_eq(a->text, b->text);
}

static struct answer *answer_of(const struct ipc_outcome *o, const struct attempt *t)
{
    struct answer *a = answer_new(o->code, o->enhanced, o->text, t->host, t->address);
    a->stage = o->stage;
    a->local = o->local != 0;
    a->final = t->lmtp;
    return a;
}

struct result {
    const struct ipc_result *in;
    struct attempt t;
    const struct verdict *verdict;
    int64_t not_before;
};

static void report(struct qmgr *q, struct job *j, const struct result *r, struct ipc_outcome *o,
                   const uint32_t *rcpts, uint32_t count)
{
    struct fate fate;
    const struct source *from = j->queue->lane->from;
    struct attempt t = r->t;
    bool judged = r->verdict->failed && o->index == r->verdict->worst.index;
    verdict_recipient(q, j, r->verdict, o, &fate);
    t.rule = fate.rule;
    t.judged = judged ? o->index + 1 : 0;
    t.acts = judged && r->verdict->acts;
    int64_t after = fate.after;
    if (r->in->scope == SCOPE_SOURCE && from && o->status == OUTCOME_DEFERRED)
        after = -1; /* from another source */
    struct answer *a = answer_of(o, &t);
    a->greylisted = fate.greylisted;
    a->odd = fate.odd;
    a->since = fate.since;
    a->source = from ? from->number : 0;
    if (o->status == OUTCOME_SENT)
        outcome_sent(q, j->m, rcpts, count, a, &t);
    else if (o->status == OUTCOME_FAILED)
        outcome_failed(q, j->m, rcpts, count, a, &t);
    else if (after && !r->not_before)
        outcome_deferred(q, j->m, rcpts, count, a, &t, after > 0 ? q->now + after : q->now, false);
    else
        outcome_deferred(q, j->m, rcpts, count, a, &t, r->not_before, true);
    answer_unref(a);
}

/* Recipients with the same outcome are reported together. */
static void report_all(struct qmgr *q, struct job *j, const struct result *r, const uint8_t *seen)
{
    struct ipc_cursor cursor = ipc_list_cursor(r->in->outcomes);
    struct ipc_outcome o, first = {.index = 0};
    uint32_t group[JOB_RECIPIENTS_MAX], count = 0;
    while (ipc_outcome_next(&cursor, &o)) {
        if (count && !same_words(&o, &first)) {
            report(q, j, r, &first, group, count);
            count = 0;
        }
        if (count == 0)
            first = o;
        group[count++] = o.index;
    }
    if (count)
        report(q, j, r, &first, group, count);
    count = 0;
    for (uint32_t k = 0; k < j->count; k++)
        if (!seen[k])
            group[count++] = j->rcpts[k];
    struct ipc_outcome missing = {.status = OUTCOME_DEFERRED,
                                  .local = 1,
                                  .enhanced = SLICE("4.3.0"),
                                  .text = SLICE("mail system trouble: no outcome was reported")};
    if (count)
        report(q, j, r, &missing, group, count);
}

static struct attempt attempt_of(struct qmgr *q, const struct job *j, const struct ipc_result *in)
{
    return (struct attempt){
        .site = j->site,
        .host = in->host,
        .address = in->address,
        .source = source_sent_from(q, j->queue->lane->from, in->address),
        .tls = in->tls,
        .tls_status = in->tls_status,
        .port = in->port,
        .use_count = in->use_count,
        .sent = j->sent_at,
        .wait_us = in->wait_us,
        .connect_us = in->connect_us,
        .transfer_us = in->transfer_us,
        .dsn_taken_over = in->dsn != 0,
        .lmtp = j->site->transport == TRANSPORT_LMTP,
        .delivery = ++q->deliveries,
    };
}

/* It might not open a connection, and none was open. */
static int not_tried(struct qmgr *q, struct job *j, struct err *e)
{
    struct message *m = j->m;
    if (j->may_connect)
        return err_set(e, "RESULT: not tried, of a job that may open a connection");
    if (!(m->flags & (MESSAGE_HELD | MESSAGE_EXPIRED | MESSAGE_DELETED)) && !m->env->discarded) {
        dispatch_return(q, j);
        return 0;
    }
    dispatch_over(q, j, &relays_nothing, NULL);
    for (uint32_t k = 0; k < j->count; k++)
        recipient_waits(m, j->rcpts[k], queue_seconds(q, q->now));
    m->env->queued -= j->count;
    job_free(q, j);
    if (m->env->discarded)
        message_discard(q, m);
    message_settle(q, m);
    return 0;
}

int relays_result(struct relay *relay, struct slice body, struct err *e)
{
    struct qmgr *q = relay->peer.q;
    struct ipc_result in;
    uint8_t seen[JOB_RECIPIENTS_MAX] = {0};
    if (ipc_result_decode(body, &in) < 0)
        return err_set(e, "malformed RESULT");
    struct job *j = relays_find(&q->relays, in.job);
    if (!j || j->relay != relay || j->state != JOB_SENT)
        return err_set(e, "RESULT of a job that it does not have");
    if (in.connections > JOB_CONNECTIONS_MAX)
        return err_set(e, "RESULT: %u connections for one job", in.connections);
    if (check_outcomes(j, &in, seen, e) < 0)
        return -1;
    if (connections_result(j, &in, e) < 0)
        return -1;
    if (in.scope == SCOPE_NO_CONNECTION)
        return not_tried(q, j, e);
    struct message *m = j->m;
    struct result r = {.in = &in, .t = attempt_of(q, j, &in)};
    if (in.after_dot) {
        r.not_before = q->now + LOST_RELAY_DELAY / q->s->config->shaping_time_divisor;
        log_warning("%s: possible duplicate: the server may have taken the message, but its "
                    "answer did not come",
                    m->id.text);
    }
    if (in.use_count > 0 && in.host.len > 0)
        site_note_tls(j->site, in.tls, in.tls_status);
    if (in.use_count > 0)
        j->queue->lane->mail_max = in.mail_max < UINT16_MAX ? (uint16_t)in.mail_max : 0;
    struct verdict v;
    verdict_of(q, j, &in, &v);
    r.verdict = &v;
    sources_result(q, j, &in, &v);
    bool tells = v.failed && v.report.signal > SHAPER_NEUTRAL;
    struct answer *why = tells ? answer_of(&v.worst, &r.t) : NULL;
    /* first, while its recipients still hold the message: it may settle others */
    dispatch_over(q, j, &v.report, why);
    answer_unref(why);
    fault_point("qmgr.result");
    report_all(q, j, &r, seen);
    job_free(q, j);
    message_settle(q, m);
    return 0;
}

int relays_dot(struct relay *r, struct slice body, struct err *e)
{
    struct ipc_dot in;
    if (ipc_dot_decode(body, &in) < 0)
        return err_set(e, "malformed DOT");
    struct job *j = relays_find(&r->peer.q->relays, in.job);
    if (!j || j->relay != r)
        return err_set(e, "DOT of a job that it does not have");
    j->dot = true;
    return 0;
}

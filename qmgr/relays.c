/* Jobs at relay processes: the table of what is under way, contents on their way
 * out, results on their way in. */
#include <stdio.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/sources.h"
#include "rules/rules.h"
#include "tls/level.h"

enum {
    RELAY_JOBS_MAX = 100000, /* whatever it says */
    JOB_RECIPIENTS_MAX = 1000,
    JOB_CONNECTIONS_MAX = 10000, /* that a relay process may say it began for one */
    SESSIONS_NAME_MAX = 32,
    LOST_AT_ONCE_MAX = 2 /* then a message that kills relay processes waits too */
};

struct relay {
    struct qmgr *q;
    struct channel *channel;
    struct list jobs;
    unsigned slot;
    uint32_t limit, in_flight;
    bool broke_rules;
};

void relays_init(struct qmgr *q)
{
    buf_init(&q->relays.rcpts, 2 * JOB_RECIPIENT_BYTES);
}

/* ---- the table -------------------------------------------------------------------------- */

static void table_grow(struct relays *t)
{
    uint32_t size = t->table_size ? t->table_size * 2 : 256;
    t->table = xreallocarray(t->table, size, sizeof *t->table);
    t->free_slots = xreallocarray(t->free_slots, size, sizeof *t->free_slots);
    for (uint32_t i = size; i > t->table_size; i--) {
        t->table[i - 1] = NULL;
        t->free_slots[t->free_count++] = i - 1;
    }
    t->table_size = size;
}

static void table_add(struct relays *t, struct job *j)
{
    if (t->free_count == 0)
        table_grow(t);
    uint32_t slot = t->free_slots[--t->free_count];
    j->number = (uint64_t)++t->generation << 32 | slot;
    t->table[slot] = j;
}

static struct job *table_find(const struct relays *t, uint64_t number)
{
    uint32_t slot = (uint32_t)number;
    struct job *j = slot < t->table_size ? t->table[slot] : NULL;
    return j && j->number == number ? j : NULL;
}

void relays_release(struct qmgr *q, struct job *j)
{
    if (!j->relay)
        return;
    uint32_t slot = (uint32_t)j->number;
    q->relays.table[slot] = NULL;
    q->relays.free_slots[q->relays.free_count++] = slot;
    j->relay->in_flight--;
    j->relay = NULL;
}

/* ---- choosing ----------------------------------------------------------------------------- */

static bool has_room(const struct relay *r)
{
    return r->in_flight < r->limit;
}

unsigned relays_ready(const struct qmgr *q)
{
    unsigned n = 0;
    for (unsigned i = 0; i < q->relays.count; i++)
        n += has_room(q->relays.list[i]);
    return n;
}

struct relay *relays_pick(struct qmgr *q, const struct lane *lane)
{
    struct relays *t = &q->relays;
    struct relay *least = NULL;
    for (unsigned i = 0; i < t->count; i++)
        if (has_room(t->list[i]) && (!least || t->list[i]->in_flight < least->in_flight))
            least = t->list[i];
    if (!least)
        return NULL;
    /* where sessions to the destination are open: only so it is known how many there are.
     * Where many are allowed that one may not get much busier than the others. */
    enum { FEW = 64 };
    struct relay *home = t->list[map_hash(slice_str(lane->group->key)) % t->count];
    bool few = shaper_window(&lane->shaper) <= FEW;
    return has_room(home) && (few || home->in_flight <= 4 + 2 * least->in_flight) ? home : least;
}

/* Of a delivery that says nothing about the destination. */
static const struct shaper_report nothing = {.signal = SHAPER_NEUTRAL};

/* ---- sending -------------------------------------------------------------------------------- */

/* Ends a job that could not be sent. */
static void not_sent(struct qmgr *q, struct job *j, const char *why)
{
    struct message *m = j->m;
    struct attempt t = {.site = j->site, .sent = q->now};
    log_error("%s: content cannot be read, tried again later: %s", m->id.text, why);
    struct answer *a = answer_new(0, SLICE("4.3.0"),
                                  SLICE("mail system trouble: the message cannot "
                                        "be read at the moment"),
                                  SLICE(""), SLICE(""));
    a->local = true;
    dispatch_over(q, j, &nothing, NULL);
    outcome_deferred(q, m, j->rcpts, j->count, a, &t, 0, true);
    answer_unref(a);
    job_free(q, j);
    message_settle(q, m);
}

static struct slice encode_recipients(struct qmgr *q, const struct job *j)
{
    struct buf *b = &q->relays.rcpts;
    buf_clear(b);
    for (uint32_t k = 0; k < j->count; k++) {
        uint32_t i = j->rcpts[k];
        ipc_job_rcpt_add(b, &(struct ipc_job_rcpt){.index = i,
                                                   .address = recipient_address(j->m, i),
                                                   .orcpt = recipient_orcpt(j->m, i),
                                                   .notify = j->m->env->recipients[i].notify});
    }
    return buf_slice(b);
}

/* By what sessions are shared: the addresses, where no host must prove its name. */
static struct slice sessions_name(const struct job *j, char name[static SESSIONS_NAME_MAX])
{
    struct ipc_cursor cursor = ipc_list_cursor(tls_rules_list(j->tls));
    struct ipc_tls_rule rule;
    bool unproven = true;
    while (ipc_tls_rule_next(&cursor, &rule))
        unproven = unproven && rule.level <= TLS_LEVEL_ENCRYPT && rule.host.len == 0;
    if (!unproven || cursor.failed || j->site->transport != TRANSPORT_SMTP)
        return site_name(j->site);
    int n = snprintf(name, SESSIONS_NAME_MAX, "addresses %016llx",
                     (unsigned long long)j->site->sessions);
    return slice_make(name, (size_t)n);
}

/* The level that providers.conf asks for, against what resolve found: what the operator's
 * table says of the domain goes before, and nothing that its policy asks for is lowered. */
static uint8_t level_of(const struct ipc_tls_rule *rule, enum rules_tls wish)
{
    if (rule->origin == TLS_ORIGIN_TABLE)
        return rule->level;
    if (wish == RULES_TLS_ENCRYPT && rule->level < TLS_LEVEL_ENCRYPT)
        return TLS_LEVEL_ENCRYPT;
    if (wish == RULES_TLS_MAY && rule->level < TLS_LEVEL_MAY)
        return TLS_LEVEL_MAY;
    if (wish == RULES_TLS_NONE && rule->level == TLS_LEVEL_MAY)
        return TLS_LEVEL_NONE;
    return rule->level;
}

/* The rules about TLS of a job; valid until the next call. */
static struct slice tls_of(const struct lane *l, const struct job *j)
{
    static struct buf b = {NULL, 0, 0, IPC_FRAME_MAX};
    enum rules_tls wish = (enum rules_tls)l->shaper.limits->tls;
    struct ipc_cursor cursor = ipc_list_cursor(tls_rules_list(j->tls));
    struct ipc_tls_rule rule;
    bool others = false;
    if (wish == RULES_TLS_UNSET || j->site->transport != TRANSPORT_SMTP)
        return tls_rules_list(j->tls);
    buf_clear(&b);
    while (ipc_tls_rule_next(&cursor, &rule)) {
        others = others || rule.host.len == 0;
        rule.level = level_of(&rule, wish);
        ipc_tls_rule_add(&b, &rule);
    }
    if (!others && wish != RULES_TLS_NONE) {
        rule = (struct ipc_tls_rule){.origin = TLS_ORIGIN_CONFIG};
        rule.level = wish == RULES_TLS_ENCRYPT ? TLS_LEVEL_ENCRYPT : TLS_LEVEL_MAY;
        ipc_tls_rule_add(&b, &rule);
    }
    return buf_slice(&b);
}

static void deliver(struct qmgr *q, struct job *j, struct slice prefix, struct slice body, int fd)
{
    const struct lane *l = j->queue->lane;
    const struct config *c = q->s->config;
    const struct message *m = j->m;
    char name[SESSIONS_NAME_MAX];
    bool lmtp = j->site->transport == TRANSPORT_LMTP;
    uint32_t messages = shaper_messages(&l->shaper),
             most = (uint32_t)c->smtp_connection_reuse_count_limit;
    struct ipc_deliver out = {
        .job = j->number,
        .id = id_slice(&m->id),
        .site = sessions_name(j, name),
        .transport = j->site->transport,
        .source = lane_address(l),
        .source6 = l->from && l->from->has_v4 && l->from->has_v6
                       ? slice_make(l->from->v6, sizeof l->from->v6)
                       : SLICE(""),
        .helo = slice_str(lmtp                          ? c->lmtp_lhlo_name
                          : l->from && l->from->helo[0] ? l->from->helo
                                                        : c->smtp_helo_name),
        .tls = tls_of(l, j),
        .recipients_max = l->shaper.limits->recipients,
        .idle_seconds = l->shaper.limits->idle_seconds,
        .tls_report = tls_rules_report(j->tls),
        .session_messages = messages && messages < most ? messages : most,
        .sessions = shaper_window(&l->shaper),
        .reuse_only = !j->may_connect,
        .greetings = shaper_works(&l->shaper, q->now) ? 1 : 0,
        .flags = m->flags & MESSAGE_FLAGS_ALL & ~(uint32_t)MESSAGE_HOLD,
        .ret = m->env->ret,
        .envid = message_envid(m),
        .sender = message_sender(m),
        .targets = buf_slice(&j->site->targets),
        .recipients = encode_recipients(q, j),
        .prefix = prefix,
        .body = body,
        .body_at = fd >= 0 ? m->ref.body_at : 0,
        .body_len = fd >= 0 ? m->ref.body_len : body.len,
    };
    ipc_deliver_encode(channel_out(j->relay->channel), &out);
    if (fd >= 0) {
        channel_attach(j->relay->channel, fd);
        close(fd);
    }
    j->state = JOB_SENT;
    j->sent_at = q->now;
}

static void deliver_large(struct qmgr *q, struct job *j, struct slice prefix)
{
    struct err e;
    int fd = store_reader(q->store, &j->m->id, &j->m->ref, &e);
    if (fd < 0)
        not_sent(q, j, e.text);
    else
        deliver(q, j, prefix, SLICE(""), fd);
}

struct reading {
    struct qmgr *q;
    struct message *m;
    uint64_t number;
};

static void on_content(struct slice prefix, struct slice body, const char *error, void *arg)
{
    struct reading *r = arg;
    struct qmgr *q = r->q;
    struct message *m = r->m;
    struct job *j = table_find(&q->relays, r->number);
    free(r);
    queue_tick(q);
    if (!message_unpin(q, m))
        return;
    if (!j) /* its relay process died meanwhile */
        message_settle(q, m);
    else if (error)
        not_sent(q, j, error);
    else if (m->ref.large)
        deliver_large(q, j, prefix);
    else
        deliver(q, j, prefix, body, -1);
}

void relays_send(struct qmgr *q, struct relay *r, struct job *j)
{
    struct message *m = j->m;
    const struct body *b = m->env->body;
    j->relay = r;
    j->sent_at = q->now;
    r->in_flight++;
    table_add(&q->relays, j);
    list_push(&r->jobs, &j->link);
    if (b && !m->ref.large) {
        deliver(q, j, slice_make(b->data, b->prefix_len),
                slice_make(b->data + b->prefix_len, b->body_len), -1);
    } else if (m->ref.large && (b || m->ref.prefix_len == 0)) {
        deliver_large(q, j, b ? slice_make(b->data, b->prefix_len) : SLICE(""));
    } else {
        struct reading *reading = xmalloc(sizeof *reading);
        *reading = (struct reading){q, m, j->number};
        message_pin(m);
        store_read(q->store, &m->id, &m->ref, m->ref.large ? 0 : UINT64_MAX, on_content, reading);
    }
}

/* ---- results ----------------------------------------------------------------------------------
 */

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
    int64_t not_before;
};

static void report(struct qmgr *q, struct job *j, const struct result *r, struct ipc_outcome *o,
                   const uint32_t *rcpts, uint32_t count)
{
    struct fate fate;
    const struct source *from = j->queue->lane->from;
    verdict_recipient(q, j, o, &fate);
    int64_t after = fate.after;
    if (r->in->scope == SCOPE_SOURCE && from && o->status == OUTCOME_DEFERRED)
        after = -1; /* from another source */
    struct answer *a = answer_of(o, &r->t);
    a->greylisted = fate.greylisted;
    a->odd = fate.odd;
    a->since = fate.since;
    a->source = from ? from->number : 0;
    if (o->status == OUTCOME_SENT)
        outcome_sent(q, j->m, rcpts, count, a, &r->t);
    else if (o->status == OUTCOME_FAILED)
        outcome_failed(q, j->m, rcpts, count, a, &r->t);
    else if (after && !r->not_before)
        outcome_deferred(q, j->m, rcpts, count, a, &r->t, after > 0 ? q->now + after : q->now,
                         false);
    else
        outcome_deferred(q, j->m, rcpts, count, a, &r->t, r->not_before, true);
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

static struct attempt attempt_of(const struct qmgr *q, const struct job *j,
                                 const struct ipc_result *in)
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
    };
}

/* It might not open a connection, and none was open. */
static int not_tried(struct qmgr *q, struct job *j, struct err *e)
{
    struct message *m = j->m;
    if (j->may_connect)
        return err_set(e, "RESULT: not tried, of a job that may open a connection");
    if (!(m->flags & (MESSAGE_HOLD | MESSAGE_EXPIRED | MESSAGE_DELETED)) && !m->env->discarded) {
        dispatch_return(q, j);
        return 0;
    }
    dispatch_over(q, j, &nothing, NULL);
    for (uint32_t k = 0; k < j->count; k++)
        recipient_waits(m, j->rcpts[k], queue_seconds(q, q->now));
    m->env->queued -= j->count;
    job_free(q, j);
    if (m->env->discarded)
        message_discard(q, m);
    message_settle(q, m);
    return 0;
}

static int on_result(struct relay *relay, struct slice body, struct err *e)
{
    struct qmgr *q = relay->q;
    struct ipc_result in;
    uint8_t seen[JOB_RECIPIENTS_MAX] = {0};
    if (ipc_result_decode(body, &in) < 0)
        return err_set(e, "malformed RESULT");
    struct job *j = table_find(&q->relays, in.job);
    if (!j || j->relay != relay || j->state != JOB_SENT)
        return err_set(e, "RESULT of a job that it does not have");
    if (in.connections > JOB_CONNECTIONS_MAX)
        return err_set(e, "RESULT: %u connections for one job", in.connections);
    if (check_outcomes(j, &in, seen, e) < 0)
        return -1;
    if (in.scope == SCOPE_NO_CONNECTION)
        return not_tried(q, j, e);
    struct message *m = j->m;
    struct result r = {.in = &in, .t = attempt_of(q, j, &in)};
    if (in.after_dot) {
        r.not_before = q->now + LOST_RELAY_DELAY;
        log_warning("%s: possible duplicate: the server may have taken the message, but its "
                    "answer did not come",
                    m->id.text);
    }
    if (in.use_count > 0 && in.host.len > 0)
        site_note_tls(j->site, in.tls, in.tls_status);
    struct verdict v;
    verdict_of(q, j, &in, &v);
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

static int on_dot(struct relay *r, struct slice body, struct err *e)
{
    struct ipc_dot in;
    if (ipc_dot_decode(body, &in) < 0)
        return err_set(e, "malformed DOT");
    struct job *j = table_find(&r->q->relays, in.job);
    if (!j || j->relay != r)
        return err_set(e, "DOT of a job that it does not have");
    j->dot = true;
    return 0;
}

/* ---- the channel --------------------------------------------------------------------------------
 */

static int take_frame(struct relay *r, const struct ipc_frame *f, struct err *e)
{
    struct ipc_relay_ready ready;
    switch (f->number) {
    case IPC_NUMBER_ipc_result:
        return on_result(r, f->body, e);
    case IPC_NUMBER_ipc_dot:
        return on_dot(r, f->body, e);
    case IPC_NUMBER_ipc_relay_ready:
        if (ipc_relay_ready_decode(f->body, &ready) < 0)
            return err_set(e, "malformed RELAY_READY");
        r->limit = ready.jobs < RELAY_JOBS_MAX ? ready.jobs : RELAY_JOBS_MAX;
        return 0;
    case IPC_NUMBER_ipc_tls_session:
        return sites_tls_session(r->q, f->body, e);
    default:
        return err_set(e, "%s is not for qmgr", ipc_name(f->number));
    }
}

static int on_frame(struct channel *channel, const struct ipc_frame *f, int fd, void *arg,
                    struct err *e)
{
    struct relay *r = arg;
    (void)channel;
    queue_tick(r->q);
    if (fd >= 0)
        close(fd);
    int rc = take_frame(r, f, e);
    r->broke_rules = rc < 0;
    return rc;
}

/* When a message that may be what kills relay processes is tried again. */
static int64_t patience(const struct qmgr *q, unsigned lost)
{
    int64_t wait = LOST_RELAY_DELAY, max = q->s->config->maximal_backoff_time * CLOCK_SECOND;
    for (unsigned i = LOST_AT_ONCE_MAX + 1; i < lost && wait < max; i++)
        wait *= 2;
    return wait;
}

/* Its process is gone: what it had goes to another. F12: at once if the end of
 * data was not sent, which is told before (ipc_dot); F13: after a while if it may
 * have been. What waits counts as an attempt, so that it expires one day. */
static void lost_job(struct qmgr *q, struct job *j)
{
    struct message *m = j->m;
    struct attempt t = {.site = j->site, .sent = j->sent_at};
    bool maybe_sent = j->state == JOB_SENT && j->dot;
    if (maybe_sent) {
        log_warning("%s: possible duplicate: a relay process died while it may have sent the "
                    "message; tried again in %llds",
                    m->id.text, (long long)(LOST_RELAY_DELAY / CLOCK_SECOND));
    }
    if (m->env->lost < UINT8_MAX)
        m->env->lost++;
    dispatch_over(q, j, &nothing, NULL);
    if (!maybe_sent && m->env->lost <= LOST_AT_ONCE_MAX) {
        for (uint32_t k = 0; k < j->count; k++)
            recipient_waits(m, j->rcpts[k], queue_seconds(q, q->now));
        m->env->queued -= j->count;
    } else {
        int64_t wait = maybe_sent ? LOST_RELAY_DELAY : patience(q, m->env->lost);
        struct answer *a =
            answer_new(0, SLICE("4.3.0"), SLICE("mail system trouble: the delivery process died"),
                       SLICE(""), SLICE(""));
        a->local = true;
        outcome_deferred(q, m, j->rcpts, j->count, a, &t, q->now + wait, false);
        answer_unref(a);
    }
    job_free(q, j);
    if (m->env->discarded)
        message_discard(q, m);
    message_settle(q, m);
}

static void on_closed(struct channel *channel, const char *why, void *arg)
{
    struct relay *r = arg;
    struct qmgr *q = r->q;
    queue_tick(q);
    peer_gone(q, channel, why, r->broke_rules);
    if (r->in_flight)
        log_warning("%u deliveries were under way in %s", r->in_flight, channel_name(channel));
    for (unsigned i = 0; i < q->relays.count; i++)
        if (q->relays.list[i] == r)
            q->relays.list[i] = q->relays.list[--q->relays.count];
    while (!list_empty(&r->jobs))
        lost_job(q, container_of(r->jobs.next, struct job, link));
    free(r);
}

void relays_peer(struct qmgr *q, unsigned slot, unsigned pid, int fd)
{
    static const struct channel_ops ops = {on_frame, on_closed};
    char name[64];
    if (q->relays.count == RELAYS_MAX) {
        log_error("more than %d relay processes: one stays without work", RELAYS_MAX);
        close(fd);
        return;
    }
    snprintf(name, sizeof name, "relay %u (process %u)", slot, pid);
    struct relay *r = xcalloc(1, sizeof *r);
    r->q = q;
    r->slot = slot;
    list_init(&r->jobs);
    r->channel = channel_new(q->s->base, fd, name, &ops, r);
    q->relays.list[q->relays.count++] = r;
}

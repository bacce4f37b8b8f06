/* What the operator does to messages, and how they are looked at. */
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/qmgr.h"
#include "qmgr/sites.h"

/* ---- looking ------------------------------------------------------------------------- */

enum queue_status queue_status(const struct message *m)
{
    if (m->phase == PHASE_COMMITTING)
        return QUEUE_INCOMING;
    if (m->flags & MESSAGE_DELETED)
        return QUEUE_DELETED;
    if (m->flags & MESSAGE_HELD)
        return QUEUE_HOLD;
    return m->env && (m->env->queued || !m->env->active_logged) ? QUEUE_ACTIVE : QUEUE_DEFERRED;
}

static int64_t wall_of(const struct qmgr *q, int64_t mono)
{
    return clock_wall() + (mono - q->now);
}

int64_t queue_next_attempt(struct qmgr *q, const struct message *m)
{
    return heap_has(&m->due) ? wall_of(q, m->due.key) : 0;
}

void queue_recipient(struct qmgr *q, const struct message *m, uint32_t i,
                     struct queue_recipient *out)
{
    const struct recipient *r = &m->env->recipients[i];
    *out = (struct queue_recipient){
        .address = recipient_address(m, i),
        .orcpt = recipient_orcpt(m, i),
        .state = r->state,
        .attempts = r->attempts,
        .next = r->state == RCPT_WAITING ? wall_of(q, queue_mono(q, r->due)) : 0,
        .answer = r->answer,
    };
}

struct read {
    struct qmgr *q;
    struct message *m;
    void (*done)(struct slice prefix, struct slice body, const char *error, void *arg);
    void *arg;
};

static void on_read(struct slice prefix, struct slice body, const char *error, void *arg)
{
    struct read r = *(struct read *)arg;
    free(arg);
    r.done(prefix, body, error, r.arg);
    if (message_unpin(r.q, r.m))
        message_settle(r.q, r.m);
}

void queue_read(struct qmgr *q, struct message *m, uint64_t limit,
                void (*done)(struct slice prefix, struct slice body, const char *error, void *arg),
                void *arg)
{
    struct read *r = xmalloc(sizeof *r);
    *r = (struct read){q, m, done, arg};
    message_pin(m);
    store_read(q->store, &m->id, &m->ref, limit, on_read, r);
}

/* ---- acting ---------------------------------------------------------------------------- */

void message_set_flags(struct qmgr *q, struct message *m, uint32_t flags)
{
    struct buf out = BUF_INIT(SPOOL_RECORD_MAX);
    struct spool_record r = {.type = SPOOL_RECORD_FLAGS, .flags = flags, .when = clock_wall()};
    if (message_stopped(m->flags) && !message_stopped(flags))
        m->env->held = (uint32_t)((q->now - m->born) / CLOCK_SECOND);
    m->flags = flags;
    message_count_held(q, m);
    if (spool_record_encode(&out, &m->id, &r) == 0 && !m->quarantined)
        store_record(q->store, &m->id, &m->ref, buf_slice(&out), NULL, NULL);
    buf_free(&out);
}

/* Makes all that wait due now; true if there were any. */
static bool make_due(struct message *m)
{
    bool any = false;
    for (uint32_t i = 0; i < m->recipient_count; i++) {
        struct recipient *r = &m->env->recipients[i];
        if (r->state != RCPT_WAITING)
            continue;
        any = true;
        recipient_waits(m, i, 0);
    }
    m->env->notice_at = 0;
    return any;
}

static uint32_t collect(const struct message *m, enum recipient_state state, uint32_t *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->recipient_count; i++)
        if (m->env->recipients[i].state == state)
            out[n++] = i;
    return n;
}

static bool expire(struct qmgr *q, struct message *m)
{
    uint32_t *rcpts = xmalloc(m->recipient_count * sizeof *rcpts);
    message_set_flags(q, m, m->flags | MESSAGE_EXPIRED);
    message_withdraw(q, m);
    uint32_t count = collect(m, RCPT_WAITING, rcpts);
    m->env->next_due = UINT32_MAX;
    if (count)
        outcome_expired(q, m, rcpts, count);
    free(rcpts);
    return true;
}

/* What a relay has cannot be called back; it is dropped when it returns. */
void message_discard(struct qmgr *q, struct message *m)
{
    static const enum recipient_state states[] = {RCPT_WAITING, RCPT_FAILED, RCPT_CONFIRMED};
    uint32_t *rcpts = xmalloc(m->recipient_count * sizeof *rcpts);
    m->env->discarded = true;
    message_withdraw(q, m);
    m->env->next_due = UINT32_MAX;
    m->env->more = false;
    for (size_t s = 0; s < sizeof states / sizeof states[0]; s++) {
        uint32_t count = collect(m, states[s], rcpts);
        if (states[s] == RCPT_FAILED)
            m->env->failed -= count;
        if (states[s] == RCPT_CONFIRMED)
            m->env->confirmed -= count;
        if (count)
            recipients_done(q, m, rcpts, count, SPOOL_DROPPED);
    }
    m->env->delay_due = false;
    free(rcpts);
}

static bool release(struct qmgr *q, struct message *m)
{
    if (!(m->flags & MESSAGE_HELD))
        return false;
    message_set_flags(q, m, m->flags & ~MESSAGE_HELD);
    make_due(m);
    return true;
}

/* What operator, restrictions or spike guard hold stays held; what was deleted stays so, and
 * is not held for its rate if it comes back. */
static bool release_rate(struct qmgr *q, struct message *m)
{
    if (!(m->flags & MESSAGE_HOLD_RATE))
        return false;
    message_set_flags(q, m, m->flags & ~(uint32_t)MESSAGE_HOLD_RATE);
    if (!(m->flags & (MESSAGE_HOLD | MESSAGE_DELETED)))
        make_due(m);
    return true;
}

static bool hold(struct qmgr *q, struct message *m)
{
    if (m->flags & MESSAGE_HOLD)
        return false;
    message_set_flags(q, m, m->flags | MESSAGE_HOLD);
    message_withdraw(q, m);
    return true;
}

/* "Now" also means sites that are suspended: one message probes. */
static bool flush(struct qmgr *q, struct message *m)
{
    for (uint32_t i = 0; i < m->recipient_count; i++)
        if (m->env->recipients[i].state == RCPT_WAITING)
            sites_unsuspend(q, recipient_address(m, i));
    return make_due(m);
}

static bool requeue(struct qmgr *q, struct message *m)
{
    for (uint32_t i = 0; i < m->recipient_count; i++)
        if (m->env->recipients[i].state <= RCPT_QUEUED)
            sites_forget(q, recipient_address(m, i));
    message_withdraw(q, m);
    return flush(q, m);
}

bool queue_act(struct qmgr *q, struct message *m, enum queue_action action, const char *by)
{
    static const char *const names[] = {
        [QUEUE_DO_HOLD] = "held",
        [QUEUE_DO_RELEASE] = "released",
        [QUEUE_DO_RELEASE_RATE] = "released",
        [QUEUE_DO_FLUSH] = "flushed",
        [QUEUE_DO_REQUEUE] = "requeued",
        [QUEUE_DO_DELETE] = "deleted",
        [QUEUE_DO_UNDELETE] = "undeleted",
        /* "expired" is what happens to the message then, of itself or by this */
        [QUEUE_DO_EXPIRE] = "expire_requested",
    };
    bool changed = true, first = action == QUEUE_DO_EXPIRE; /* what follows from it is logged too */
    bool deleted = m->flags & MESSAGE_DELETED;
    if (m->phase != PHASE_LOADED ||
        (deleted && action < QUEUE_DO_DELETE && action != QUEUE_DO_RELEASE_RATE))
        return false;
    if (first && by)
        events_action(q, m, names[action], by);
    switch (action) {
    case QUEUE_DO_HOLD:
        changed = hold(q, m);
        break;
    case QUEUE_DO_RELEASE:
        changed = release(q, m);
        break;
    case QUEUE_DO_RELEASE_RATE:
        changed = release_rate(q, m);
        break;
    case QUEUE_DO_FLUSH:
        changed = m->env->forced = flush(q, m);
        break;
    case QUEUE_DO_REQUEUE:
        changed = m->env->forced = requeue(q, m);
        break;
    case QUEUE_DO_EXPIRE:
        changed = expire(q, m);
        break;
    case QUEUE_DO_DELETE:
        changed = message_delete(q, m);
        by = deleted ? NULL : by; /* its purge is logged */
        break;
    case QUEUE_DO_UNDELETE:
        changed = message_undelete(q, m);
        break;
    }
    if (changed && by && !first)
        events_action(q, m, names[action], by);
    message_activate(q, m);
    return changed;
}

void queue_make_durable(struct qmgr *q, void (*done)(const char *error, void *arg), void *arg)
{
    store_sync(q->store, done, arg);
}

void queue_wake_all(struct qmgr *q, bool force)
{
    list_each(&q->all, at)
    {
        struct message *m = container_of(at, struct message, all);
        if (m->flags & MESSAGE_HELD)
            continue;
        if (m->phase == PHASE_STUB || m->phase == PHASE_LOADING) {
            m->flushed = true;
            m->forced = force;
            if (m->phase == PHASE_STUB)
                heap_set(&q->stubs, &m->due, q->now);
        } else if (m->phase == PHASE_LOADED && make_due(m)) {
            m->env->forced = force;
            heap_set(&q->due, &m->due, q->now);
        }
    }
}

/* Recipients of m that wait for the end of a suspension there. */
static bool make_suspended_due(struct qmgr *q, struct message *m,
                               bool (*there)(struct qmgr *q, const struct group *g, void *arg),
                               void *arg)
{
    bool any = false;
    for (uint32_t i = 0; i < m->recipient_count; i++) {
        const struct recipient *r = &m->env->recipients[i];
        if (r->state != RCPT_WAITING || !r->answer || !r->answer->suspended)
            continue;
        const struct route *route = sites_route_known(q, recipient_address(m, i));
        if (route && route->site && !there(q, route->site->group, arg))
            continue;
        recipient_waits(m, i, 0);
        any = true;
    }
    return any;
}

void message_wake_suspended(struct qmgr *q, struct message *m)
{
    if (!m->suspended || m->phase == PHASE_COMMITTING)
        return;
    m->flushed = true;
    if (m->phase != PHASE_LOADING)
        message_plan(q, m, q->now);
}

void queue_wake_suspended(struct qmgr *q,
                          bool (*there)(struct qmgr *q, const struct group *g, void *arg),
                          void *arg)
{
    list_each(&q->all, at)
    {
        struct message *m = container_of(at, struct message, all);
        bool in_memory = m->phase == PHASE_LOADED && !m->env->peeked;
        if (m->flags & MESSAGE_HELD)
            continue;
        if (in_memory && make_suspended_due(q, m, there, arg))
            message_plan(q, m, q->now);
        else if (!in_memory)
            message_wake_suspended(q, m);
    }
}

void queue_flush_all(struct qmgr *q)
{
    dispatch_unsuspend_all(q);
    queue_wake_all(q, true);
}

/* Messages that come from the spool: found by its scan, read back when they are
 * due, or read for a walk to look at. */
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/qmgr.h"

/* A planned wall time on qmgr's clock. A clock that was stepped (F30) must not
 * put an attempt off for longer than the longest back-off. */
static uint32_t second_of(int64_t wall, void *arg)
{
    struct qmgr *q = arg;
    int64_t wait;
    if (__builtin_sub_overflow(wall, clock_wall(), &wait))
        return 0;
    int64_t max = q->s->config->maximal_backoff_time * CLOCK_SECOND;
    if (wait <= 0)
        return 0;
    return queue_seconds(q, q->now + (wait < max + max / 10 ? wait : max)) + 1;
}

/* What goes while neither held nor deleted was released when its last record of flags says so;
 * a time that the clock has not reached is nobody's (F31). */
static uint32_t held_until_release(const struct message *m)
{
    int64_t at = m->env->flags_at, held;
    if (at == 0 || message_stopped(m->flags) || at > clock_wall() ||
        __builtin_sub_overflow(at, m->arrival, &held) || held < 0)
        return 0;
    held /= CLOCK_SECOND;
    return held < UINT32_MAX ? (uint32_t)held : UINT32_MAX;
}

static int load_envelope(struct qmgr *q, struct message *m, const struct store_found *found)
{
    if (message_build(m, found, second_of, q) < 0)
        return -1;
    m->phase = PHASE_LOADED;
    q->active++;
    m->env->held = held_until_release(m);
    m->env->active_logged = m->env->next_due != 0;
    return 0;
}

/* B77: the operator has it in corrupt/ and in the log; the queue lets it go at
 * its next message_settle. */
void queue_quarantined(const struct id *id, const char *why, void *arg)
{
    struct qmgr *q = arg;
    struct message *m = queue_find(q, id_slice(id));
    (void)why;
    if (!m)
        return;
    m->quarantined = true;
    store_unload(q->store, &m->id, &m->ref);
}

struct load {
    struct qmgr *q;
    struct message *m;
    int64_t due; /* as a stub, if it is read for walks; INT64_MAX: nothing planned */
    bool peek;
};

/* F25: the sender is not to blame; the operator must know. */
static void not_loaded(struct qmgr *q, struct message *m, const char *error)
{
    if (m->quarantined) {
        charges_lost(q, m);
        message_drop(q, m);
        return;
    }
    log_error("%s: cannot be read back, tried again later: %s", m->id.text,
              error ? error : "its envelope breaks a limit");
    m->unreadable = true;
    if (!(m->flags & MESSAGE_DELETED))
        message_plan(q, m, q->now + q->s->config->minimal_backoff_time * CLOCK_SECOND);
}

/* Those who only look do not change when it is due, nor does it take the place of
 * one that is. */
static void keep_for_walks(struct qmgr *q, struct message *m, int64_t due)
{
    m->env->peeked = true;
    m->env->peek_due = due;
    q->active--;
    m->env->removed = m->kept;
    if (!m->kept && due < INT64_MAX && (due > q->now || queue_has_room(q)))
        message_plan(q, m, due);
    if (m->viewers == 0)
        message_viewed(q, m);
}

static void on_loaded(const struct store_found *found, const char *error, void *arg)
{
    struct load l = *(struct load *)arg;
    struct qmgr *q = l.q;
    struct message *m = l.m;
    free(arg);
    queue_tick(q);
    if (l.peek)
        q->peeking--;
    else
        q->loading--;
    if (!message_unpin(q, m))
        return;
    m->phase = PHASE_STUB;
    uint32_t flags = m->flags; /* the record of a change may not have found room on the disk */
    bool good = found && load_envelope(q, m, found) == 0;
    m->flags = flags;
    if (!good) {
        not_loaded(q, m, error);
        return;
    }
    m->ref = found->ref;
    m->unreadable = false;
    bool hurried = m->hurried;
    m->hurried = false;
    if (l.peek && !m->flushed) {
        keep_for_walks(q, m, hurried ? q->now : l.due);
        return;
    }
    list_remove(&m->parked);
    for (uint32_t i = 0; m->flushed && i < m->recipient_count; i++)
        if (m->env->recipients[i].state == RCPT_WAITING)
            recipient_waits(m, i, 0);
    m->env->forced = m->flushed && m->forced;
    m->flushed = m->forced = false;
    message_activate(q, m);
}

static void load(struct qmgr *q, struct message *m, bool peek)
{
    struct load *l = xmalloc(sizeof *l);
    *l = (struct load){q, m, heap_has(&m->due) ? m->due.key : INT64_MAX, peek};
    if (!(m->flags & MESSAGE_DELETED)) /* that stays where it is until it is purged */
        message_plan(q, m, INT64_MAX);
    m->phase = PHASE_LOADING;
    message_pin(m);
    *(peek ? &q->peeking : &q->loading) += 1;
    store_load(q->store, &m->id, &m->ref, on_loaded, l);
}

void message_load(struct qmgr *q, struct message *m)
{
    load(q, m, false);
}

void message_peek(struct qmgr *q, struct message *m)
{
    load(q, m, true);
}

void message_viewed(struct qmgr *q, struct message *m)
{
    if (m->phase != PHASE_LOADED || m->viewers > 0)
        return;
    if (m->env->peeked && m->pins == 0)
        message_stub(q, m, m->kept ? m->due.key : m->env->peek_due);
    else if (m->env->peeked || m->kept || queue_crowded(q))
        message_settle(q, m);
}

void queue_found(const struct store_found *found, void *arg)
{
    struct qmgr *q = arg;
    if (queue_find(q, id_slice(&found->id)))
        return; /* committed meanwhile */
    queue_tick(q);
    struct message *m = message_new(q, &found->id);
    m->ref = found->ref;
    m->phase = PHASE_STUB;
    if (load_envelope(q, m, found) < 0) {
        log_error("%s: its envelope breaks a limit; left alone in the spool", m->id.text);
        message_drop(q, m);
        return;
    }
    int64_t age;
    if (__builtin_sub_overflow(clock_wall(), m->arrival, &age) || age < 0)
        age = 0;
    m->born = q->now - age;
    message_count_held(q, m);
    if (m->flags & MESSAGE_DELETED)
        deleted_found(q, m);
    charges_found(q, m, found);
    if (m->env->left == 0) { /* power failed between its last mark and its end */
        if (!charges_wait(q, m))
            message_finish(q, m);
        return;
    }
    bool owes = m->env->failed || m->env->confirmed;
    if (m->flags & MESSAGE_DELETED) {
        if (!owes)
            deleted_settle(q, m);
        return;
    }
    int64_t due = message_next_due(q, m);
    if (owes)
        due = q->now; /* its notice is owed; made when the scan is over, if it is not there */
    if (!owes && (!queue_has_room(q) || message_better_as_stub(q, due)))
        message_stub(q, m, due);
    else
        message_plan(q, m, due);
}

/* What was owed before the restart, and our own notices, waited for the end of the
 * scan. */
static void after_scan(struct qmgr *q, struct list *messages)
{
    list_each_safe(messages, n)
    {
        struct message *m = container_of(n, struct message, all);
        bool owes = m->phase == PHASE_LOADED && (m->env->failed || m->env->confirmed);
        if (owes)
            notices_found(q, m);
        if (m->phase == PHASE_STUB && notices_is_one(m))
            message_hurry(q, m);
        else if (owes || (m->phase == PHASE_LOADED && notices_is_one(m)))
            message_settle(q, m);
    }
}

void queue_scanned(uint64_t messages, uint64_t quarantined, void *arg)
{
    struct qmgr *q = arg;
    q->scanned = true;
    log_info("spool read: %llu messages, %llu quarantined", (unsigned long long)messages,
             (unsigned long long)quarantined);
    after_scan(q, &q->all);
    after_scan(q, &q->deleted);
}

/* The life of a message in memory: it arrives, becomes due, waits with or without
 * its envelope in memory, ends. */
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/qmgr.h"

static struct slice message_key(const void *value)
{
    return id_slice(&((const struct message *)value)->id);
}

void queue_init(struct qmgr *q)
{
    map_init(&q->messages, message_key);
    list_init(&q->all);
    list_init(&q->deleted);
    list_init(&q->walks);
    list_init(&q->commits_free);
    q->now = q->mono_epoch = clock_mono();
    q->started = clock_wall();
}

struct message *queue_find(struct qmgr *q, struct slice id)
{
    return map_get(&q->messages, id);
}

/* ---- beginning and end ----------------------------------------------------------- */

struct message *message_new(struct qmgr *q, const struct id *id)
{
    struct message *m = xcalloc(1, sizeof *m);
    m->id = *id;
    m->ref.fd = -1;
    m->phase = PHASE_COMMITTING;
    list_init(&m->parked);
    list_push(&q->all, &m->all);
    if (map_put(&q->messages, m))
        panic("ID %s exists twice", id->text);
    return m;
}

/* Which heap has it, if any: see struct qmgr. */
static struct heap *heap_of(struct qmgr *q, const struct message *m)
{
    if (m->flags & MESSAGE_DELETED)
        return &q->kept;
    return m->phase == PHASE_STUB ? &q->stubs : &q->due;
}

void message_plan(struct qmgr *q, struct message *m, int64_t due)
{
    if (due < INT64_MAX)
        heap_set(heap_of(q, m), &m->due, due);
    else
        heap_remove(heap_of(q, m), &m->due);
}

static void drop_envelope(struct qmgr *q, struct message *m)
{
    message_drop_body(q, m);
    if (m->phase == PHASE_LOADED && !m->env->peeked)
        q->active--;
    envelope_free(m->env, m->recipient_count);
    m->env = NULL;
}

void message_drop(struct qmgr *q, struct message *m)
{
    walks_forget(q, m);
    map_remove(&q->messages, id_slice(&m->id));
    list_remove(&m->all);
    list_remove(&m->parked);
    message_plan(q, m, INT64_MAX);
    deleted_forget(q, m);
    m->flags = 0;
    message_count_held(q, m);
    drop_envelope(q, m);
    m->phase = PHASE_GONE;
    if (m->pins == 0)
        free(m);
}

void message_pin(struct message *m)
{
    if (m->pins == UINT16_MAX)
        panic("%s: too many users", m->id.text);
    m->pins++;
}

bool message_unpin(struct qmgr *q, struct message *m)
{
    (void)q;
    m->pins--;
    if (m->phase != PHASE_GONE)
        return true;
    if (m->pins == 0)
        free(m);
    return false;
}

void message_count_held(struct qmgr *q, struct message *m)
{
    bool held = (m->flags & MESSAGE_HELD) && !(m->flags & MESSAGE_DELETED);
    if (held && !m->held)
        q->held++;
    if (!held && m->held)
        q->held--;
    m->held = held;
}

void message_keep_body(struct qmgr *q, struct message *m, struct body *body)
{
    uint64_t len = body->prefix_len + body->body_len;
    if (q->body_bytes + len > (uint64_t)q->s->config->qmgr_body_memory_limit) {
        free(body);
        return;
    }
    q->body_bytes += len;
    m->env->body = body;
}

void message_drop_body(struct qmgr *q, struct message *m)
{
    if (!m->env || !m->env->body)
        return;
    q->body_bytes -= m->env->body->prefix_len + m->env->body->body_len;
    xfree(&m->env->body);
}

/* ---- recipients -------------------------------------------------------------------- */

void recipient_waits(struct message *m, uint32_t i, uint32_t due)
{
    struct recipient *r = &m->env->recipients[i];
    r->state = RCPT_WAITING;
    r->parked = false;
    r->due = due;
    if (due < m->env->next_due)
        m->env->next_due = due;
}

void recipients_done(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                     enum spool_status status)
{
    for (uint32_t k = 0; k < count; k++)
        m->env->recipients[rcpts[k]].state = RCPT_DONE;
    m->env->left -= count;
    charges_over(q, m, rcpts, count, status);
    if (m->env->left == 0 && charges_known(q, m))
        return; /* the end of the message says it all */
    for (uint32_t k = 0; k < count && !m->quarantined; k++)
        store_mark(q->store, &m->id, &m->ref, rcpts[k], status);
}

void message_withdraw(struct qmgr *q, struct message *m)
{
    list_each_safe(&m->env->jobs, n)
    {
        struct job *j = container_of(n, struct job, of_message);
        if (j->state != JOB_ROUTING && j->state != JOB_QUEUED)
            continue;
        for (uint32_t k = 0; k < j->count; k++)
            recipient_waits(m, j->rcpts[k], 0);
        m->env->queued -= j->count;
        job_free(q, j);
    }
}

/* ---- becoming active ------------------------------------------------------------------ */

static struct job *job_for(struct qmgr *q, struct message *m, struct route *route, uint32_t bytes,
                           uint32_t remaining, struct list *jobs)
{
    struct job *j = route_open_job(route);
    if (j && j->count < j->room && j->bytes + bytes <= JOB_RECIPIENT_BYTES)
        return j;
    uint32_t limit = (uint32_t)q->s->config->destination_recipient_limit;
    j = job_new(m, remaining < limit ? remaining : limit);
    j->route = route;
    list_push(jobs, &j->link);
    route_set_open_job(route, j);
    return j;
}

/* Every recipient that is due goes into a job of its route. */
static void make_jobs(struct qmgr *q, struct message *m, struct list *jobs)
{
    struct envelope *e = m->env;
    uint32_t now = queue_seconds(q, q->now);
    e->next_due = UINT32_MAX;
    e->more = false;
    for (uint32_t i = 0; i < m->recipient_count; i++) {
        struct recipient *r = &e->recipients[i];
        if (r->state != RCPT_WAITING)
            continue;
        if (r->due > now || e->queued >= ACTIVATE_RECIPIENTS_MAX) {
            if (r->due > now && r->due < e->next_due)
                e->next_due = r->due;
            e->more |= r->due <= now;
            continue;
        }
        uint32_t bytes = recipient_job_bytes(r);
        struct route *route = sites_route(q, recipient_address(m, i));
        struct job *j = job_for(q, m, route, bytes, m->recipient_count - i, jobs);
        j->rcpts[j->count++] = i;
        j->bytes += bytes;
        r->state = RCPT_QUEUED;
        e->queued++;
    }
}

static void schedule(struct qmgr *q, struct message *m)
{
    struct list jobs;
    list_init(&jobs);
    make_jobs(q, m, &jobs);
    list_each(&jobs, n) route_set_open_job(container_of(n, struct job, link)->route, NULL);
    struct list *n;
    while ((n = list_pop(&jobs)))
        sites_submit(q, container_of(n, struct job, link));
}

/* F10: a notice that was delivered and forgotten before the scan came to its
 * original, which a crash left unmarked, would be made again. */
static bool waits_for_scan(const struct qmgr *q, const struct message *m)
{
    return !q->scanned && notices_is_one(m);
}

/* An envelope that was read for walks comes into the schedule. */
void message_stay(struct qmgr *q, struct message *m)
{
    if (m->env->peeked)
        q->active++;
    m->env->peeked = false;
}

void message_activate(struct qmgr *q, struct message *m)
{
    message_stay(q, m);
    bool stopped = (m->flags & (MESSAGE_HELD | MESSAGE_DELETED)) || m->env->discarded;
    if (!stopped && !q->draining && !waits_for_scan(q, m) && !pools_wait(q, m)) {
        m->env->activated = q->now;
        if (!m->env->active_logged)
            events_active(q, m);
        m->env->active_logged = true;
        schedule(q, m);
    }
    message_settle(q, m);
}

bool queue_has_room(const struct qmgr *q)
{
    return q->active + q->loading < (uint64_t)q->s->config->qmgr_message_active_limit;
}

bool queue_crowded(const struct qmgr *q)
{
    return q->active > (uint64_t)q->s->config->qmgr_message_active_limit / 2;
}

/* Messages that only wait take half of the room at most: what is due must find
 * some. */
bool message_better_as_stub(const struct qmgr *q, int64_t due)
{
    return queue_crowded(q) && due > q->now + 5 * CLOCK_SECOND;
}

/* Recipients wait for the end of a suspension. */
static bool message_is_suspended(const struct message *m)
{
    for (uint32_t i = 0; i < m->recipient_count; i++) {
        const struct recipient *r = &m->env->recipients[i];
        if (r->state == RCPT_WAITING && r->answer && r->answer->suspended)
            return true;
    }
    return false;
}

void message_stub(struct qmgr *q, struct message *m, int64_t due)
{
    message_plan(q, m, INT64_MAX);
    if (!m->env->peeked) /* on the disk it is not known */
        m->suspended = message_is_suspended(m);
    drop_envelope(q, m);
    if (m->pins == 0) /* descriptors are for those that are worked on */
        store_unload(q->store, &m->id, &m->ref);
    m->phase = PHASE_STUB;
    message_plan(q, m, due);
}

/* Its envelope has stayed in memory, for other recipients. False: none was parked. */
static bool unpark(struct qmgr *q, struct message *m)
{
    bool any = false;
    for (uint32_t i = 0; i < m->recipient_count; i++) {
        const struct recipient *r = &m->env->recipients[i];
        if (r->state != RCPT_WAITING || !r->parked)
            continue;
        recipient_waits(m, i, 0);
        any = true;
    }
    if (any)
        message_plan(q, m, q->now);
    return any;
}

bool message_hurry(struct qmgr *q, struct message *m)
{
    if (m->flags & (MESSAGE_HELD | MESSAGE_DELETED))
        return false;
    m->hurried = m->phase == PHASE_LOADING;
    if (m->phase == PHASE_LOADED && !m->env->peeked)
        return unpark(q, m);
    if (m->phase == PHASE_STUB || m->phase == PHASE_LOADED)
        message_plan(q, m, q->now);
    return true;
}

void message_enter(struct qmgr *q, struct message *m)
{
    message_count_held(q, m);
    if (q->active > (uint64_t)q->s->config->qmgr_message_active_limit)
        message_stub(q, m, q->now);
    else
        message_activate(q, m);
}

/* ---- after a change --------------------------------------------------------------------- */

void message_finish(struct qmgr *q, struct message *m)
{
    if (!m->env->removed) {
        q->counters.removed++;
        events_removed(q, m, m->quarantined ? "quarantined" : "done");
    }
    if (m->quarantined)
        charges_lost(q, m);
    else
        store_finish(q->store, &m->id, &m->ref);
    message_drop(q, m);
}

static bool idle(const struct message *m)
{
    const struct envelope *e = m->env;
    return e->queued == 0 && e->failing == 0 && e->failed == 0 && e->confirmed == 0 &&
           !e->noticing && m->pins == 0 && m->viewers == 0;
}

/* When m needs attention next. */
int64_t message_next_due(struct qmgr *q, const struct message *m)
{
    const struct envelope *e = m->env;
    int64_t due = INT64_MAX;
    if (waits_for_scan(q, m))
        return due;
    if ((m->flags & MESSAGE_HELD) == 0) {
        int64_t pool = pools_due(q, m);
        if (e->more && e->queued < ACTIVATE_RECIPIENTS_MAX / 2)
            return pool > q->now ? pool : q->now;
        if (e->next_due != UINT32_MAX)
            due = queue_mono(q, e->next_due);
        due = pool > due ? pool : due;
    }
    bool owes = e->failed || e->confirmed || e->delay_due;
    /* later than that it waits for recipients under way, whose results settle m */
    if (owes && !e->noticing && e->notice_at > q->now && e->notice_at < due)
        due = e->notice_at;
    return due;
}

void message_settle(struct qmgr *q, struct message *m)
{
    struct envelope *e = m->env;
    if (m->phase != PHASE_LOADED)
        return;
    message_stay(q, m);
    if (m->quarantined && !e->discarded)
        message_discard(q, m);
    if (e->left == 0 && e->failing == 0 && !e->noticing) {
        /* while its file is being read (`postern message show`), its name and
         * descriptor must stay; whoever unpins it settles it again */
        if (m->pins == 0 && !charges_wait(q, m))
            message_finish(q, m);
        return;
    }
    if (m->flags & MESSAGE_DELETED) {
        deleted_settle(q, m);
        return;
    }
    notices_start(q, m);
    if (e->queued == 0) {
        message_drop_body(q, m);
        e->forced = false;
    }
    int64_t due = message_next_due(q, m);
    if (message_better_as_stub(q, due) && idle(m))
        message_stub(q, m, due);
    else
        message_plan(q, m, due);
}

/* ---- each turn -------------------------------------------------------------------------- */

static bool may_load(const struct qmgr *q)
{
    return q->loading < LOADS_MAX && queue_has_room(q);
}

void queue_turn(struct qmgr *q)
{
    struct heap_node *n;
    if (q->draining)
        return;
    for (int i = 0; i < DUE_PER_TURN && (n = heap_min(&q->due)) && n->key <= q->now; i++) {
        struct message *m = container_of(n, struct message, due);
        heap_remove(&q->due, n);
        message_activate(q, m);
    }
    deleted_turn(q);
    while (may_load(q) && (n = heap_min(&q->stubs)) && n->key <= q->now)
        message_load(q, container_of(n, struct message, due));
}

int64_t queue_next_due(const struct qmgr *q)
{
    if (q->draining)
        return INT64_MAX;
    const struct heap_node *a = heap_min(&q->due), *b = may_load(q) ? heap_min(&q->stubs) : NULL;
    int64_t due = a ? a->key : INT64_MAX, deleted = deleted_next_due(q);
    if (deleted < due)
        due = deleted;
    return b && b->key < due ? b->key : due;
}

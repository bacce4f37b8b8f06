/*
 * Test builds count everything anew after each turn of the loop and compare with
 * the counters, so that every test of qmgr also finds a counter that drifts, a
 * recipient without a state's consequence, or a message that nothing will wake.
 */
#include "qmgr/brakes.h"
#include "qmgr/connections.h"
#include "qmgr/dispatch_inside.h"
#include "qmgr/qmgr.h"
#include "qmgr/relays.h"
#include "qmgr/seats.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"

#ifdef POSTERN_FAULTS

#include "core/mem.h"

enum { CHECKED_MESSAGES_MAX = 500 /* with more in the queue it would take too long */ };

struct totals {
    uint64_t active, held, body_bytes, loading, deleted;
};

static void same(const struct message *m, const char *what, uint64_t counted, uint64_t kept)
{
    if (counted != kept)
        panic("%s: %llu %s, but the counter says %llu", m ? m->id.text : "queue",
              (unsigned long long)counted, what, (unsigned long long)kept);
}

static void check_recipients(const struct message *m)
{
    const struct envelope *e = m->env;
    uint32_t in_state[RCPT_DONE + 1] = {0}, in_jobs = 0;
    for (uint32_t i = 0; i < m->recipient_count; i++) {
        const struct recipient *r = &e->recipients[i];
        in_state[r->state]++;
        if (r->state == RCPT_WAITING && r->due < e->next_due && !e->more && !e->discarded)
            panic("%s: recipient %u is due before its message", m->id.text, i);
    }
    list_each(&e->jobs, n) in_jobs += container_of(n, struct job, of_message)->count;
    same(m, "recipients in jobs", in_jobs, in_state[RCPT_QUEUED]);
    same(m, "recipients queued", in_state[RCPT_QUEUED], e->queued);
    same(m, "recipients failing", in_state[RCPT_FAILING], e->failing);
    same(m, "recipients failed", in_state[RCPT_FAILED], e->failed);
    same(m, "recipients confirmed", in_state[RCPT_CONFIRMED], e->confirmed);
    same(m, "recipients left", m->recipient_count - in_state[RCPT_DONE], e->left);
}

/* Something will go on with m by itself: a time, a job, a call to the store, a
 * notice that is being made, quota, or the operator; at a stop, the next start. */
static void check_awake(const struct qmgr *q, const struct message *m)
{
    const struct envelope *e = m->env;
    bool waits = heap_has(&m->due) || m->pins || m->viewers || (m->flags & MESSAGE_HELD) ||
                 !q->scanned || q->draining || (e && !list_empty(&e->waiting));
    if (!waits && !e)
        panic("%s: nothing will read it back", m->id.text);
    if (!waits && !e->queued && !e->failing && !e->noticing)
        panic("%s: nothing will wake it", m->id.text);
}

static void check_message(const struct qmgr *q, const struct message *m, struct totals *t)
{
    t->held += m->held;
    t->loading += m->phase == PHASE_LOADING;
    if ((m->env != NULL) != (m->phase == PHASE_LOADED) && m->phase != PHASE_COMMITTING)
        panic("%s: phase %u and its envelope do not fit", m->id.text, m->phase);
    if (m->phase == PHASE_LOADED) {
        t->active += !m->env->peeked;
        if (m->env->body)
            t->body_bytes += m->env->body->prefix_len + m->env->body->body_len;
        check_recipients(m);
    }
    if (m->phase == PHASE_LOADED || m->phase == PHASE_STUB)
        check_awake(q, m);
}

static uint32_t check_jobs(const struct queue *k, const struct list *list)
{
    uint32_t jobs = 0;
    list_each(list, n)
    {
        const struct job *j = container_of(n, struct job, link);
        if (j->state != JOB_QUEUED || j->queue != k)
            panic("%s: a job in the wrong queue", j->m->id.text);
        jobs++;
    }
    return jobs;
}

/* Jobs of a queue that wait in brakes' lines. */
static uint32_t held_of(const struct qmgr *q, const struct queue *k)
{
    uint32_t jobs = 0;
    list_each(&q->brakes->all, n)
    {
        const struct brake *b = container_of(n, struct brake, link);
        for (int class = 0; class < 3; class ++)
            list_each(&b->line[class], at) jobs += container_of(at, struct job, link)->queue == k;
    }
    return jobs;
}

/* Each account that waits at a lane has one queue in its list. */
static void check_waiting(const struct lane *l)
{
    uint64_t in_list = 0, standing = 0;
    list_each(&l->waiting, n) in_list++;
    list_each(&l->queues, n)
    {
        const struct queue *k = container_of(n, struct queue, of_lane);
        unsigned listed = 0;
        if (k->place != PLACE_WAITING)
            continue;
        standing += !list_empty(&k->link);
        list_each(&l->queues, at)
        {
            const struct queue *other = container_of(at, struct queue, of_lane);
            listed += other->account == k->account && other->place == PLACE_WAITING &&
                      !list_empty(&other->link);
        }
        same(NULL, "queues that stand for a waiting account", listed, 1);
    }
    same(NULL, "accounts that wait", standing, in_list);
}

static uint32_t check_queue(const struct qmgr *q, const struct queue *k)
{
    uint32_t jobs = check_jobs(k, &k->again) + check_jobs(k, &k->jobs);
    if (jobs && k->place == PLACE_IDLE)
        panic("queue: jobs in a queue that waits for nothing");
    if (k->place == PLACE_ROUTE && list_empty(&k->link))
        panic("queue: it waits for no route");
    if (!jobs && k->place != PLACE_IDLE)
        panic("queue: an empty queue waits for its turn");
    if (q->brakes->held)
        jobs += held_of(q, k);
    same(NULL, "jobs in a queue", jobs, k->count);
    return jobs;
}

static bool has_ready(const struct lane *l)
{
    list_each(&l->queues, n)
    {
        if (container_of(n, struct queue, of_lane)->place == PLACE_READY)
            return true;
    }
    return false;
}

/* Open connections, as the relay processes told of them. */
static void check_connections(const struct qmgr *q, const struct lane *l)
{
    uint32_t open = 0, leaving = 0, claims = 0;
    for (unsigned i = 0; i < q->relays.count; i++) {
        const struct relay *r = q->relays.list[i];
        const struct lane_at *at;
        for (size_t cursor = 0; (at = map_next(&r->lanes, &cursor));) {
            open += at->lane == l ? at->open : 0;
            leaving += at->lane == l ? at->leaving + at->sparing : 0;
        }
        list_each(&r->jobs, n)
        {
            const struct job *j = container_of(n, struct job, link);
            claims += j->queue->lane == l && j->may_connect;
        }
    }
    same(NULL, "connections of a lane", open, l->open);
    same(NULL, "connections of a lane that leave", leaving, l->leaving);
    same(NULL, "claims of a lane", claims, l->claims);
}

/* What waits at a lane will be woken. */
static void check_lane_awake(const struct lane *l)
{
    if (!list_empty(&l->waiting) && !heap_has(&l->wake) && l->in_flight == 0 && !has_ready(l) &&
        list_empty(&l->of_whole) && l->leaving == 0)
        panic("site %s: nothing will wake what waits there", l->group->name);
}

/* So will the lanes that wait at a whole. */
static void check_wholes(const struct qmgr *q)
{
    const struct whole *w;
    for (size_t cursor = 0; (w = map_next(&q->shaping.wholes, &cursor));) {
        bool awake = list_empty(&w->waiting) || heap_has(&w->wake) || w->shaper.in_flight > 0 ||
                     w->leaving > 0;
        uint32_t under_way = 0, open = 0, claims = 0, leaving = 0;
        list_each(&q->dispatch.lanes, n)
        {
            const struct lane *l = container_of(n, struct lane, all);
            if (l->group->whole != w)
                continue;
            awake = awake || has_ready(l);
            under_way += l->in_flight;
            open += l->open;
            claims += l->claims;
            leaving += l->leaving;
        }
        if (!awake)
            panic("all sources of %s: nothing will wake what waits there", w->name);
        same(NULL, "deliveries of all sources", under_way, w->shaper.in_flight);
        same(NULL, "connections of all sources", open, w->open);
        same(NULL, "claims of all sources", claims, w->claims);
        same(NULL, "leaving connections of all sources", leaving, w->leaving);
    }
}

/* Seats are counted right, never given twice, and who waits for one will be woken. */
static void check_seats(const struct qmgr *q)
{
    const struct seats *s;
    for (size_t cursor = 0; (s = map_next(&q->dispatch.seats, &cursor));) {
        uint32_t under_way = 0, ready = 0, waiting = 0, listed = 0, refs = 0;
        list_each(&s->group->lanes, n)
        {
            const struct lane *l = container_of(n, struct lane, of_group);
            list_each(&l->queues, of)
            {
                const struct queue *k = container_of(of, struct queue, of_lane);
                if (k->seats != s)
                    continue;
                refs++;
                under_way += k->in_flight;
                ready += k->place == PLACE_READY;
                waiting += k->place == PLACE_SEATS;
            }
        }
        for (int class = 0; class < 3; class ++)
            list_each(&s->waiting[class], n) listed++;
        same(NULL, "queues with seats", refs, s->refs);
        same(NULL, "deliveries in seats", under_way, s->in_flight);
        same(NULL, "ready queues with seats", ready, s->ready);
        same(NULL, "queues that wait for a seat", waiting, listed);
        if (listed && list_empty(&s->due) && !heap_has(&s->wake) && !under_way && !ready)
            panic("account %s at %s: nothing will wake what waits for a seat", s->account->name,
                  s->group->name);
    }
}

/* Each line's jobs, and that something will let the first of them go. */
static void check_brakes(const struct qmgr *q)
{
    uint64_t held = 0;
    list_each(&q->brakes->all, n)
    {
        const struct brake *b = container_of(n, struct brake, link);
        uint32_t jobs = 0;
        for (int class = 0; class < 3; class ++)
            list_each(&b->line[class], at)
            {
                const struct job *j = container_of(at, struct job, link);
                if (j->state != JOB_QUEUED || j->brake != b || j->queue->mail_class != class)
                    panic("%s: a job in the wrong line", j->m->id.text);
                jobs++;
            }
        same(NULL, "jobs in a brake's line", jobs, b->held);
        if (b->held && !heap_has(&b->wake) && !b->probe)
            panic("brake %s: nothing will wake its line", b->who);
        if (b->probe && !b->probe->probe)
            panic("brake %s: its probe is none", b->who);
        held += jobs;
    }
    same(NULL, "jobs in brakes' lines", held, q->brakes->held);
}

static uint32_t recipients_counted(const struct qmgr *q, const struct source_record *cap)
{
    uint32_t sum = 0;
    list_each(&q->dispatch.lanes, n)
    {
        const struct lane *l = container_of(n, struct lane, all);
        sum += l->capped == cap ? l->recipients : 0;
    }
    return sum;
}

static uint64_t recipients_in_lanes(const struct list *messages)
{
    uint64_t sum = 0;
    list_each(messages, n)
    {
        const struct message *m = container_of(n, struct message, all);
        if (!m->env)
            continue;
        list_each(&m->env->jobs, at)
        {
            const struct job *j = container_of(at, struct job, of_message);
            sum += j->queue ? j->count : 0;
        }
    }
    return sum;
}

/* What takes room under a day's limits is what is in line or under way. */
static void check_days(const struct qmgr *q)
{
    uint64_t sum = 0;
    list_each(&q->dispatch.lanes, n)
    {
        const struct lane *l = container_of(n, struct lane, all);
        sum += l->recipients;
        if (l->capped && l->capped != l->record)
            same(NULL, "recipients that a daily cap counts", recipients_counted(q, l->capped),
                 l->capped->waiting);
    }
    same(NULL, "recipients in line or under way",
         recipients_in_lanes(&q->all) + recipients_in_lanes(&q->deleted), sum);
}

/* Jobs of a list of lines; of the group's, unless that is NULL. */
static uint64_t check_line(const struct list *line, const struct group *g)
{
    uint64_t jobs = 0;
    list_each(line, n)
    {
        const struct job *j = container_of(n, struct job, of_line);
        if (j->state != JOB_QUEUED || (g && j->queue->lane->group != g))
            panic("%s: a job in the wrong group's line", j->m->id.text);
        jobs++;
    }
    return jobs;
}

static void check_lanes(const struct qmgr *q)
{
    uint64_t queued = 0, in_flight = 0, busy = 0, in_line = check_line(&q->dispatch.looking, NULL);
    list_each(&q->dispatch.lanes, n)
    {
        const struct lane *l = container_of(n, struct lane, all);
        uint32_t jobs = 0, started = 0;
        list_each(&l->queues, of)
        {
            const struct queue *k = container_of(of, struct queue, of_lane);
            uint32_t count = check_queue(q, k);
            jobs += count;
            busy += count > 0;
            started += k->in_flight;
        }
        check_waiting(l);
        check_connections(q, l);
        if (!q->draining)
            check_lane_awake(l);
        same(NULL, "jobs of a lane's queues under way", started, l->in_flight);
        same(NULL, "jobs queued at a lane", jobs, l->queued);
        same(NULL, "jobs of a lane under way", l->shaper.in_flight, l->in_flight);
        queued += jobs;
        in_flight += l->in_flight;
    }
    const struct group *g;
    for (size_t cursor = 0; (g = map_next(&q->shaping.groups, &cursor));)
        in_line += check_line(&g->line, g);
    same(NULL, "jobs in lines", queued, in_line);
    same(NULL, "jobs queued", queued, q->dispatch.queued);
    same(NULL, "jobs under way", in_flight, q->dispatch.in_flight);
    same(NULL, "busy queues", busy, q->dispatch.busy_queues);
}

void queue_check(const struct qmgr *q)
{
    struct totals t = {0};
    if (q->messages.count > CHECKED_MESSAGES_MAX)
        return;
    list_each(&q->all, n) check_message(q, container_of(n, struct message, all), &t);
    list_each(&q->deleted, n)
    {
        const struct message *m = container_of(n, struct message, all);
        check_message(q, m, &t);
        t.deleted++;
        if (!m->kept || !(m->flags & MESSAGE_DELETED) || !heap_has(&m->due))
            panic("%s: is not kept as a deleted message should be", m->id.text);
    }
    same(NULL, "messages deleted", t.deleted, q->deleted_count);
    same(NULL, "messages to be purged", q->kept.count, q->deleted_count);
    same(NULL, "envelopes in memory", t.active, q->active);
    same(NULL, "messages held", t.held, q->held);
    same(NULL, "bytes of bodies", t.body_bytes, q->body_bytes);
    same(NULL, "messages being loaded", t.loading, q->loading + q->peeking);
    check_lanes(q);
    check_days(q);
    if (!q->draining)
        check_wholes(q);
    if (!q->draining)
        check_seats(q);
    check_brakes(q);
}

#else

void queue_check(const struct qmgr *q)
{
    (void)q;
}

#endif

/*
 * Who is next. Deficit round robin over accounts, then classes (transactional before bulk),
 * then queues (turns.c tells how queues wait where a lane has no room). What is started comes
 * back as a result, or untried.
 */
#include "core/log.h"
#include "qmgr/brakes.h"
#include "qmgr/classes.h"
#include "qmgr/connections.h"
#include "qmgr/dispatch_inside.h"
#include "qmgr/halts.h"
#include "qmgr/moves.h"
#include "qmgr/seats.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"

enum {
    QUANTUM = 8,           /* jobs an account may start in its turn */
    COST_UNIT = 64 * 1024, /* so many bytes cost as much as one job more */
    COST_MAX = 64,
    STARTS_PER_TURN = 256
};

/* What it had of connections is free, before those that wait look for it. */
static void unclaim(struct job *j)
{
    connections_back(j);
    if (j->may_connect)
        connections_unclaim(j->queue->lane);
    j->may_connect = false;
}

void dispatch_over(struct qmgr *q, struct job *j, const struct shaper_report *report,
                   struct answer *why)
{
    struct lane *l = j->queue->lane;
    l->in_flight--;
    j->queue->in_flight--;
    q->dispatch.in_flight--;
    seats_over(q, j->queue);
    unclaim(j);
    l->used = clock_tenths(q->now);
    if (j->probe)
        brakes_probed(q, j, report->recipients > 0);
    j->probe = false;
    if (report->recipients)
        brakes_taken(q, j, report->recipients);
    if (why) {
        answer_unref(l->last);
        l->last = answer_ref(why);
    }
    if (report->signal >= SHAPER_TOO_FAST)
        lane_blame(q, l, report->started);
    const struct shaper_report own = whole_finished(q, l, report);
    uint8_t events = l->shaper.events_next;
    bool suspended = shaper_finished(&l->shaper, &own, q->now);
    events_shaping(q, l, events);
    if (suspended)
        dispatch_suspend(q, l);
    else
        lane_wake(q, l);
    whole_wake(q, l);
    connections_trim(q, l);
}

/* A queue that has a job that goes before others. */
static void wait_first(struct qmgr *q, struct queue *k)
{
    if (k->place != PLACE_IDLE)
        return;
    if (seats_free(q, k))
        queue_waits(q, k, true);
    else
        seats_wait(q, k, true);
}

/* A job came back to the lane, which may have been suspended meanwhile: then it goes the way
 * of those that were there. */
static void go_on(struct qmgr *q, struct lane *l)
{
    int64_t when;
    if (halts_at(q, l->group, l->from))
        sources_move(q, l);
    else if (!l->suspended || whole_room(q, l, false, &when) != SHAPER_SUSPENDED)
        lane_wake(q, l);
    else if (l->blocked)
        sources_move(q, l);
    else
        jobs_defer(q, l);
}

void dispatch_return(struct qmgr *q, struct job *j)
{
    struct queue *k = j->queue;
    struct lane *l = k->lane;
    l->in_flight--;
    k->in_flight--;
    q->dispatch.in_flight--;
    seats_returned(q, k, j->count);
    unclaim(j);
    k->window -= j->count < k->window ? j->count : k->window;
    uint32_t units = turn_cost(k, j);
    turn_pay_back(q, k, units);
    shaper_returned(&l->shaper, j->count, j->sent_at, q->now);
    whole_returned(q, k, j->count, units, j->sent_at);
    whole_wake(q, l);
    relays_release(q, j);
    list_remove(&j->link);
    j->state = JOB_QUEUED;
    list_push_front(verdict_goes_first(j) ? &k->again : &k->jobs, &j->link);
    list_push_front(&l->group->line, &j->of_line);
    l->queued++;
    q->dispatch.queued++;
    if (k->count++ == 0)
        q->dispatch.busy_queues++;
    wait_first(q, k);
    go_on(q, l);
}

void dispatch_again(struct qmgr *q, struct job *j)
{
    struct queue *k = j->queue;
    brakes_leave(q, j);
    list_push(&k->again, &j->link);
    wait_first(q, k);
    go_on(q, k->lane);
}

bool dispatch_wake(struct qmgr *q, struct lane *l)
{
    return lane_wake(q, l);
}

/* ---- choosing -------------------------------------------------------------------------------- */

/* The queue whose turn it is, or NULL if none is ready. */
static struct queue *choose(struct qmgr *q, struct account **of)
{
    struct dispatch *d = &q->dispatch;
    while (!list_empty(&d->active)) {
        struct account *a = container_of(d->active.next, struct account, active);
        if (a->deficit <= 0) {
            a->deficit += QUANTUM;
            list_remove(&a->active);
            list_push(&d->active, &a->active);
            continue;
        }
        uint8_t class = class_in_turn(q->s->config, a->ready, &a->turns);
        *of = a;
        return container_of(a->ready[class].next, struct queue, link);
    }
    return NULL;
}

static int32_t cost(const struct job *j)
{
    uint64_t units = 1 + message_size(j->m) / COST_UNIT;
    return units < COST_MAX ? (int32_t)units : COST_MAX;
}

/* The lane has no room: the queue waits there, first in line. */
static void block(struct qmgr *q, struct queue *k, enum shaper_room room)
{
    lane_no_room(q, k->lane, room);
    queue_idle(q, k);
    queue_waits(q, k, true);
}

static void start(struct qmgr *q, struct queue *k, struct relay *r)
{
    struct lane *l = k->lane;
    struct job *j = queue_first(k);
    k->took_again = k->again.next == &j->link;
    k->account->deficit -= cost(j);
    k->window += j->count;
    k->routed = 0;
    job_unqueue(q, j);
    uint32_t units = turn_cost(k, j);
    turn_pay(q, k, units);
    seats_started(q, k, j->count);
    if (queue_has_jobs(k)) { /* the next one of its class and lane comes first */
        queue_idle(q, k);
        if (!seats_free(q, k))
            seats_wait(q, k, false);
        else if (lane_has_waiting(l))
            queue_waits(q, k, false);
        else
            queue_ready(q, k);
    }
    bool reuses = connections_idle_at(r, l); /* before this one counts */
    l->in_flight++;
    k->in_flight++;
    q->dispatch.in_flight++;
    shaper_started(&l->shaper, j->count, q->now);
    j->may_connect =
        whole_started(q, k, j->count, units, !reuses && shaper_may_connect(&l->shaper, q->now));
    if (j->may_connect)
        connections_claim(l);
    lane_wake(q, l);
    whole_wake(q, l);
    j->state = JOB_READING; /* until it is sent */
    relays_send(q, r, j);
}

/* The processes that have unused connections of it have as many jobs as they take, and there is
 * no place for a new one. */
static void come_again(struct qmgr *q, struct queue *k)
{
    static const int64_t SOON = CLOCK_SECOND / 10;
    heap_set(&q->dispatch.wakes, &k->lane->wake, q->now + SOON);
    whole_lose_turn(q, k->lane);
    block(q, k, SHAPER_FULL);
}

/* Its first job's sender goes slower here than the lane, or not at all. */
static bool held_by_brake(struct qmgr *q, struct queue *k)
{
    struct job *j = queue_first(k);
    struct message *m = j->m;
    switch (brakes_hold(q, k->lane, j, true)) {
    case BRAKE_DEFERRED:
        message_settle(q, m);
        return true;
    case BRAKE_LINED:
        if (!queue_has_jobs(k))
            queue_idle(q, k);
        lane_wake(q, k->lane); /* the room was given to this queue */
        return true;
    default:
        return false;
    }
}

/* The operator has suspended the destination. */
static bool held_by_halt(struct qmgr *q, struct queue *k)
{
    struct job *j = queue_first(k);
    struct message *m = j->m;
    if (!halts_hold(q, k->lane, j))
        return false;
    message_settle(q, m);
    return true;
}

/* Its account has as much under way there as it may. */
static bool held_by_seats(struct qmgr *q, struct queue *k)
{
    if (seats_free(q, k))
        return false;
    queue_idle(q, k);
    seats_wait(q, k, true);
    if (!lane_wake(q, k->lane)) /* the room was given to this queue */
        whole_lose_turn(q, k->lane);
    return true;
}

void dispatch_turn(struct qmgr *q)
{
    struct dispatch *d = &q->dispatch;
    struct heap_node *n;
    struct account *a;
    struct queue *k;
    while ((n = heap_min(&d->wakes)) && n->key <= q->now) {
        heap_remove(&d->wakes, n);
        lane_wake(q, container_of(n, struct lane, wake));
    }
    wholes_turn(q);
    seats_turn(q);
    for (int i = 0; i < STARTS_PER_TURN && !q->draining && (k = choose(q, &a)); i++) {
        struct lane *l = k->lane;
        int64_t when;
        struct relay *r = relays_pick(q, l);
        if (!r)
            return;
        if (moves_hold(q, k) || held_by_halt(q, k) || held_by_seats(q, k))
            continue;
        switch (whole_room(q, l, true, &when)) {
        case SHAPER_GO:
            if (!connections_idle_at(r, l) && !connections_place(l))
                come_again(q, k);
            else if (!held_by_brake(q, k))
                start(q, k, r);
            else
                whole_lose_turn(q, l);
            break;
        case SHAPER_LATER:
            heap_set(&d->wakes, &l->wake, when);
            block(q, k, SHAPER_LATER);
            break;
        case SHAPER_FULL:
            block(q, k, SHAPER_FULL);
            break;
        case SHAPER_SUSPENDED:
            jobs_defer(q, l);
            break;
        }
    }
}

int64_t dispatch_next_due(const struct qmgr *q)
{
    const struct heap_node *n = heap_min(&q->dispatch.wakes),
                           *whole = heap_min(&q->dispatch.whole_wakes);
    if (!list_empty(&q->dispatch.active) && !q->draining && relays_ready(q))
        return q->now;
    if (whole && (!n || whole->key < n->key))
        n = whole;
    int64_t seats = seats_next_due(q), moves = moves_next_due(q);
    int64_t due = seats < moves ? seats : moves;
    return n && n->key < due ? n->key : due;
}

/* Jobs: into line at a lane and out of it, together where they can be, deferred where it is
 * suspended. */
#include <stdlib.h>

#include "core/log.h"
#include "core/mem.h"
#include "qmgr/brakes.h"
#include "qmgr/dispatch_inside.h"
#include "qmgr/halts.h"
#include "qmgr/relays.h"
#include "qmgr/seats.h"
#include "qmgr/sites.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"

/* ---- jobs ----------------------------------------------------------------------------------- */

struct job *job_new(struct message *m, uint32_t room)
{
    struct job *j = xmalloc(sizeof *j + room * sizeof j->rcpts[0]);
    *j = (struct job){.m = m, .room = room, .state = JOB_ROUTING};
    list_init(&j->link);
    list_init(&j->of_line);
    list_push(&m->env->jobs, &j->of_message);
    return j;
}

/* None of those that wait in a brake's line. */
bool queue_has_jobs(const struct queue *k)
{
    return !list_empty(&k->again) || !list_empty(&k->jobs);
}

/* Takes a queued job out of its queue, or out of the line of a brake. */
void job_unqueue(struct qmgr *q, struct job *j)
{
    struct queue *k = j->queue;
    if (j->brake)
        brakes_leave(q, j);
    list_remove(&j->link);
    list_remove(&j->of_line);
    k->lane->queued--;
    q->dispatch.queued--;
    if (--k->count == 0)
        q->dispatch.busy_queues--;
    if (!queue_has_jobs(k))
        queue_idle(q, k);
    park_release(q, k);
}

/* Recipients in line or under way count as used of what the source may send. */
static void hold_room(struct lane *l, uint32_t recipients)
{
    l->recipients += recipients;
    if (l->record)
        l->record->waiting += recipients;
    if (l->capped && l->capped != l->record)
        l->capped->waiting += recipients;
}

static void give_room(struct lane *l, uint32_t recipients)
{
    l->recipients -= recipients;
    if (l->record)
        l->record->waiting -= recipients;
    if (l->capped && l->capped != l->record)
        l->capped->waiting -= recipients;
}

void job_free(struct qmgr *q, struct job *j)
{
    if (j->queue)
        give_room(j->queue->lane, j->count);
    if (j->state == JOB_QUEUED) {
        struct lane *l = j->queue->lane;
        job_unqueue(q, j);
        if (!lane_wake(q, l)) /* the room may have been given to the queue that it leaves */
            whole_lose_turn(q, l);
    }
    if (j->probe)
        brakes_probed(q, j, false);
    relays_release(q, j);
    list_remove(&j->link);
    list_remove(&j->of_message);
    tls_rules_unref(j->tls);
    site_unref(q, j->site);
    free(j);
}

/* The site is suspended: its job waits for the end of that, not for its own
 * back-off, so that mail flows as soon as the site is back; but not longer than any
 * attempt waits, so that its age is looked at and the operator's resume is seen. */
static void defer_suspended(struct qmgr *q, struct lane *l, struct job *j)
{
    struct attempt t = {.site = j->site, .sent = q->now};
    int64_t most = q->now + q->s->config->maximal_backoff_time * CLOCK_SECOND;
    int64_t until = l->shaper.suspended_until < most ? l->shaper.suspended_until : most;
    until += retry_jitter((until - q->now) / 10 + CLOCK_SECOND);
    struct answer *a = answer_ref(l->suspended);
    outcome_deferred(q, j->m, j->rcpts, j->count, a, &t, until, false);
    answer_unref(a);
    job_free(q, j);
}

/* By turns: while those that were put off once are delivered, new ones are put off whose time
 * comes later; one after the other would leave the destination idle. */
struct list *queue_line(struct queue *k)
{
    bool again = list_empty(&k->jobs) || (!k->took_again && !list_empty(&k->again));
    return again ? &k->again : &k->jobs;
}

struct job *queue_first(struct queue *k)
{
    return container_of(queue_line(k)->next, struct job, link);
}

void jobs_defer(struct qmgr *q, struct lane *l)
{
    struct list jobs, *n;
    list_init(&jobs);
    brakes_give_up(q, l, &jobs);
    while ((n = list_pop(&jobs))) {
        struct job *j = container_of(n, struct job, link);
        struct message *m = j->m;
        defer_suspended(q, l, j);
        message_settle(q, m);
    }
    list_each(&l->queues, of)
    {
        struct queue *k = container_of(of, struct queue, of_lane);
        while (queue_has_jobs(k)) {
            struct job *j = queue_first(k);
            struct message *m = j->m;
            defer_suspended(q, l, j);
            message_settle(q, m);
        }
    }
}

/* Recipients of one message whose domains share the site go in one job. */
static bool merge(struct qmgr *q, struct queue *k, struct job *j)
{
    if (list_empty(&k->jobs))
        return false;
    struct job *last = container_of(k->jobs.prev, struct job, link);
    if (last->m != j->m || last->site != j->site || !tls_rules_same(last->tls, j->tls) ||
        last->room - last->count < j->count || last->bytes + j->bytes > JOB_RECIPIENT_BYTES ||
        last->rcpts[last->count - 1] > j->rcpts[0])
        return false;
    memcpy(last->rcpts + last->count, j->rcpts, j->count * sizeof j->rcpts[0]);
    hold_room(k->lane, j->count);
    last->count += j->count;
    last->bytes += j->bytes;
    job_free(q, j);
    return true;
}

/* Its recipients wait until then; nothing was tried. */
static void put_off(struct qmgr *q, struct job *j, int64_t until)
{
    for (uint32_t i = 0; i < j->count; i++)
        recipient_waits(j->m, j->rcpts[i], queue_seconds(q, until) + 1);
    j->m->env->queued -= j->count;
    job_free(q, j);
}

void dispatch_add(struct qmgr *q, struct lane *l, struct site *site, struct job *j)
{
    int64_t when;
    j->site = site;
    site->refs++;
    enum shaper_room room = whole_room(q, l, false, &when);
    l->used = clock_tenths(q->now);
    if (halts_hold(q, l, j))
        return;
    if (room == SHAPER_SUSPENDED && l->suspended) {
        defer_suspended(q, l, j);
        return;
    }
    int64_t in_vain = verdict_in_vain(q, l, j);
    if (in_vain) {
        put_off(q, j, in_vain);
        return;
    }
    if (brakes_hold(q, l, j, false) != BRAKE_LETS_GO)
        return;
    struct queue *k = lane_queue(q, l, j->m);
    bool first = verdict_goes_first(j);
    if (!first && merge(q, k, j))
        return;
    if (!first && park_wanted(q, k)) {
        park(q, k, j);
        return;
    }
    list_push(first ? &k->again : &k->jobs, &j->link);
    j->queue = k;
    j->state = JOB_QUEUED;
    list_push(&l->group->line, &j->of_line);
    hold_room(l, j->count);
    if (k->count++ == 0)
        q->dispatch.busy_queues++;
    l->queued++;
    q->dispatch.queued++;
    if (k->place != PLACE_IDLE)
        return;
    if (seats_free(q, k))
        queue_in_line(q, k);
    else
        seats_wait(q, k, first);
}

static void take(struct qmgr *q, struct job *j)
{
    struct lane *l = j->queue->lane;
    job_unqueue(q, j);
    give_room(l, j->count);
    j->queue = NULL;
    j->state = JOB_ROUTING;
}

void dispatch_take(struct qmgr *q, struct job *j)
{
    struct lane *l = j->queue->lane;
    take(q, j);
    if (!lane_wake(q, l)) /* the room may have been given to the queue that it leaves */
        whole_lose_turn(q, l);
}

void dispatch_take_all(struct qmgr *q, struct lane *l, struct list *jobs)
{
    struct list held, *n;
    list_init(&held);
    brakes_give_up(q, l, &held);
    while ((n = list_pop(&held))) {
        take(q, container_of(n, struct job, link));
        list_push(jobs, n);
    }
    list_each(&l->queues, of)
    {
        struct queue *k = container_of(of, struct queue, of_lane);
        while (queue_has_jobs(k)) {
            struct job *j = queue_first(k);
            take(q, j);
            list_push(jobs, &j->link);
        }
    }
    whole_lose_turn(q, l);
}

void dispatch_suspend(struct qmgr *q, struct lane *l)
{
    struct buf text = BUF_INIT(8 * ANSWER_TEXT_MAX);
    char status[ENHANCED_MAX + 1];
    buf_addstr(&text, "delivery temporarily suspended: ");
    if (l->last)
        answer_describe(l->last, &text);
    answer_unref(l->suspended);
    l->suspended =
        answer_new(0, answer_status(l->last, '4', status), buf_slice(&text), SLICE(""), SLICE(""));
    l->suspended->local = l->suspended->suspended = true;
    l->suspended->source = l->from ? l->from->number : 0;
    buf_free(&text);
    log_info("site %s: suspended for %llds", log_esc(slice_str(l->group->name)),
             (long long)((l->shaper.suspended_until - q->now + CLOCK_SECOND - 1) / CLOCK_SECOND));
    if (l->blocked)
        sources_move(q, l); /* those that find no other source come back, and are deferred */
    else
        jobs_defer(q, l);
}

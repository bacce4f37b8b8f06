/*
 * What stands in line for long. A message that waits for its next attempt is looked at when
 * that is due: its sender is warned of the delay, and at the end of its life it is returned.
 * One that is in line, at a destination that is slow, capped, or suspended for a while again
 * and again, over one source address or over all, has no such time. So the lines are looked
 * through, a part each minute.
 */
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/brakes.h"
#include "qmgr/dispatch_inside.h"
#include "qmgr/shaping_show.h"
#include "qmgr/sources.h"

enum { LOOKED_AT_MAX = 50000, SETTLED_MAX = 2000 }; /* jobs; messages; in one sweep */

/* F30: never without an attempt because a clock was wrong at the start: what was not tried
 * yet has at least stood here for as long as any attempt waits. */
static bool may_expire(const struct qmgr *q, const struct message *m)
{
    int64_t least = q->s->config->maximal_backoff_time * CLOCK_SECOND;
    bool tried = false;
    for (uint32_t i = 0; i < m->recipient_count && !tried; i++)
        tried = m->env->recipients[i].attempts > 0;
    return tried || q->now - m->env->activated >= least;
}

/* Whether its sender must hear of it now. */
static bool is_overdue(const struct qmgr *q, const struct message *m)
{
    if (m->flags & (MESSAGE_HELD | MESSAGE_DELETED) || m->phase != PHASE_LOADED)
        return false;
    if (retry_expired(q, m))
        return may_expire(q, m);
    return retry_is_late(q, m) && !m->env->delay_sent && !m->env->delay_due && !m->env->noticing;
}

/* What its recipients are told that heard nothing of the other side yet. */
static struct answer *words_of(struct qmgr *q, struct lane *l)
{
    struct buf text = BUF_INIT(2048);
    struct lane_state state;
    lane_state(q, l, &state);
    buf_printf(&text, "delivery delayed in line for %s: %s", log_esc(slice_str(l->group->name)),
               state.words);
    struct answer *a = answer_new(0, SLICE("4.4.5"), buf_slice(&text), SLICE(""), SLICE(""));
    a->local = true;
    a->source = l->from ? l->from->number : 0;
    buf_free(&text);
    return a;
}

/* Nothing was tried, and nothing is forgotten of what the other side said last. */
static void put_back(struct qmgr *q, struct job *j)
{
    struct attempt t = {.site = j->site, .sent = q->now};
    struct answer *waits = words_of(q, j->queue->lane);
    j->queue->lane->used = clock_tenths(q->now); /* it comes back there */
    for (uint32_t k = 0; k < j->count; k++) {
        struct answer *last = j->m->env->recipients[j->rcpts[k]].answer;
        struct answer *a = answer_ref(last && !last->local ? last : waits);
        outcome_deferred(q, j->m, &j->rcpts[k], 1, a, &t, q->now, false);
        answer_unref(a);
    }
    answer_unref(waits);
    job_free(q, j);
}

/* All of its jobs leave their lines, for a notice waits until none is in one; it is in line
 * again at once, if it has not expired. */
static void tell_sender(struct qmgr *q, struct message *m)
{
    message_pin(m);
    list_each_safe(&m->env->jobs, n)
    {
        struct job *j = container_of(n, struct job, of_message);
        if (j->state == JOB_QUEUED)
            put_back(q, j);
    }
    if (message_unpin(q, m))
        message_settle(q, m);
}

struct sweep {
    struct message **found; /* pinned */
    unsigned count, looked;
};

static void look_at(const struct qmgr *q, const struct list *jobs, struct sweep *s)
{
    list_each(jobs, n)
    {
        struct message *m = container_of(n, struct job, link)->m;
        if (s->count >= SETTLED_MAX)
            return;
        s->looked++;
        if (!is_overdue(q, m))
            continue;
        message_pin(m); /* twice, if two of its jobs are found: told once */
        s->found[s->count++] = m;
    }
}

/* Settling one message may change any line, so it comes after looking. */
void overdue_sweep(struct qmgr *q)
{
    struct dispatch *d = &q->dispatch;
    uint64_t at = 0;
    if (d->queued == 0 || q->draining)
        return;
    struct sweep s = {.found = xcalloc(SETTLED_MAX, sizeof(struct message *))};
    list_each(&d->lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (at++ < d->lanes_looked)
            continue;
        if (s.looked >= LOOKED_AT_MAX || s.count >= SETTLED_MAX)
            break;
        d->lanes_looked++;
        list_each(&l->queues, of)
        {
            const struct queue *k = container_of(of, struct queue, of_lane);
            look_at(q, &k->again, &s);
            look_at(q, &k->jobs, &s);
        }
    }
    if (d->lanes_looked >= at)
        d->lanes_looked = 0; /* the next time from the first on */
    for (unsigned i = 0; i < s.count; i++) {
        struct message *m = s.found[i];
        if (message_unpin(q, m) && is_overdue(q, m))
            tell_sender(q, m);
    }
    free(s.found);
}

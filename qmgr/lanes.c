/*
 * Accounts, lanes and queues: found, made, and freed when nothing has used them for long. A
 * lane is a destination from one source; a queue is what one account has for one lane in one
 * class.
 */
#include <stdlib.h>

#include "core/mem.h"
#include "qmgr/brakes.h"
#include "qmgr/dispatch_inside.h"
#include "qmgr/halts.h"
#include "qmgr/memory.h"
#include "qmgr/seats.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"

enum { LANE_IDLE_SECONDS = 3600 };

static struct slice account_key(const void *value)
{
    const struct account *a = value;
    return slice_make(a->name, a->name_len);
}

enum { QUEUE_KEY = offsetof(struct queue, mail_class) + 1 - offsetof(struct queue, account) };
_Static_assert(QUEUE_KEY == 2 * sizeof(void *) + 1, "a queue has its key inside");

static struct slice queue_key(const void *value)
{
    const struct queue *k = value;
    return slice_make(&k->account, QUEUE_KEY);
}

struct lane_key {
    struct group *group;
    struct source *from;
};
_Static_assert(offsetof(struct lane, from) - offsetof(struct lane, group) ==
                   offsetof(struct lane_key, from),
               "a lane has its key inside");

static struct slice lane_key(const void *value)
{
    const struct lane *l = value;
    return slice_make(&l->group, sizeof(struct lane_key));
}

void dispatch_init(struct qmgr *q)
{
    map_init(&q->dispatch.lanes_known, lane_key);
    map_init(&q->dispatch.accounts, account_key);
    map_init(&q->dispatch.queues, queue_key);
    list_init(&q->dispatch.active);
    list_init(&q->dispatch.lanes);
    list_init(&q->dispatch.looking);
    seats_init(q);
}

/* ---- accounts, lanes, queues ------------------------------------------------------------ */

static struct account *account_get(struct qmgr *q, struct slice name)
{
    struct dispatch *d = &q->dispatch;
    if (d->recent && slice_eq(account_key(d->recent), name))
        return d->recent;
    struct account *a = map_get(&d->accounts, name);
    if (!a) {
        a = xcalloc(1, sizeof *a + name.len);
        a->name_len = name.len;
        if (name.len)
            memcpy(a->name, name.ptr, name.len);
        list_init(&a->active);
        list_init(&a->seats);
        pools_limits(q, name, &a->connections, &a->rate);
        for (int i = 0; i < 3; i++)
            list_init(&a->ready[i]);
        map_put(&d->accounts, a);
    }
    d->recent = a;
    return a;
}

struct account *account_known(const struct qmgr *q, struct slice name)
{
    return map_get(&q->dispatch.accounts, name);
}

struct slice account_next(const struct qmgr *q, size_t *cursor)
{
    const struct account *a = map_next(&q->dispatch.accounts, cursor);
    return a ? account_key(a) : slice_make(NULL, 0);
}

struct lane *dispatch_lane_known(const struct qmgr *q, struct group *group, struct source *from)
{
    struct lane_key key = {group, from};
    return map_get(&q->dispatch.lanes_known, slice_make(&key, sizeof key));
}

static void set_source(struct lane *l, struct source *s)
{
    l->record = source_record(s, slice_str(l->group->provider));
    s->lanes++;
}

struct lane *dispatch_lane(struct qmgr *q, struct group *group, struct source *from)
{
    struct lane *l = dispatch_lane_known(q, group, from);
    if (l)
        return l;
    l = xcalloc(1, sizeof *l);
    l->group = group;
    l->from = from;
    l->number = ++q->dispatch.lane_number;
    if (from)
        set_source(l, from);
    group->refs++;
    l->used = clock_tenths(q->now);
    list_init(&l->queues);
    list_init(&l->of_whole);
    list_init(&l->waiting);
    lane_limits(q, l);
    shaper_init(&l->shaper, l->shaper.limits);
    list_push(&group->lanes, &l->of_group);
    list_push(&q->dispatch.lanes, &l->all);
    map_put(&q->dispatch.lanes_known, l);
    memory_recall(q, l);
    return l;
}

struct queue *queue_known(const struct qmgr *q, struct account *a, struct lane *l, uint8_t class)
{
    struct queue probe = {.account = a, .lane = l, .mail_class = class};
    return map_get(&q->dispatch.queues, queue_key(&probe));
}

/* The queues of one account and lane know of each other. */
static void meet_kin(const struct qmgr *q, struct queue *k)
{
    for (uint8_t class = 0; class < 3; class ++) {
        struct queue *other = queue_known(q, k->account, k->lane, class);
        if (!other)
            continue;
        k->kin |= (uint8_t)(1u << class);
        other->kin |= (uint8_t)(1u << k->mail_class);
    }
}

struct queue *lane_queue(struct qmgr *q, struct lane *l, const struct message *m)
{
    char name[ACCOUNT_MAX + 1];
    struct account *a = account_get(q, dispatch_sharer(m, name));
    uint8_t class = m->env->mail_class;
    if (l->recent && l->recent->account == a && l->recent->mail_class == class)
        return l->recent;
    struct queue *k = queue_known(q, a, l, class);
    if (!k) {
        k = xcalloc(1, sizeof *k);
        *k = (struct queue){.account = a, .lane = l, .mail_class = class};
        list_init(&k->link);
        list_init(&k->again);
        list_init(&k->jobs);
        list_init(&k->parked);
        list_push(&l->queues, &k->of_lane);
        a->queues++;
        map_put(&q->dispatch.queues, k);
        meet_kin(q, k);
    }
    l->recent = k;
    return k;
}

/* The account's queue there in another class, or NULL. */
struct queue *queue_kin(const struct qmgr *q, const struct queue *k, uint8_t class)
{
    return k->kin & 1u << class ? queue_known(q, k->account, k->lane, class) : NULL;
}

/* ---- now and then ------------------------------------------------------------------ */

void dispatch_reload(struct qmgr *q)
{
    list_each(&q->dispatch.lanes, n) lane_wake(q, container_of(n, struct lane, all));
}

void dispatch_unsuspend_all(struct qmgr *q)
{
    list_each(&q->dispatch.lanes, n) shaper_unsuspend(&container_of(n, struct lane, all)->shaper);
    wholes_resume(q);
}

static void free_queues(struct qmgr *q, struct lane *l)
{
    l->recent = NULL;
    list_each_safe(&l->queues, n)
    {
        struct queue *k = container_of(n, struct queue, of_lane);
        struct account *a = k->account;
        seats_leave(q, k);
        map_remove(&q->dispatch.queues, queue_key(k));
        list_remove(&k->of_lane);
        while (list_pop(&k->parked)) /* each has its time */
            continue;
        free(k);
        if (--a->queues == 0) {
            if (q->dispatch.recent == a)
                q->dispatch.recent = NULL;
            map_remove(&q->dispatch.accounts, account_key(a));
            free(a);
        }
    }
}

void dispatch_sweep(struct qmgr *q)
{
    brakes_sweep(q);
    halts_sweep(q);
    overdue_sweep(q);
    sources_sweep(q);
    list_each_safe(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (l->cold != record_is_cold(q, l->record)) { /* its warm-up is over */
            lane_limits(q, l);
            lane_wake(q, l);
        }
        if (l->queued || l->in_flight)
            continue;
        free_queues(q, l);
        if (l->open || l->leaving || clock_tenths(q->now) - l->used < LANE_IDLE_SECONDS * 10 ||
            shaper_remembers(&l->shaper, q->now))
            continue;
        memory_keep(q, l);
        heap_remove(&q->dispatch.wakes, &l->wake);
        list_remove(&l->all);
        list_remove(&l->of_whole);
        whole_lose_turn(q, l);
        list_remove(&l->of_group);
        map_remove(&q->dispatch.lanes_known, lane_key(l));
        lane_uncount_cap(l);
        if (l->from)
            l->from->lanes--;
        answer_unref(l->last);
        answer_unref(l->suspended);
        limits_unref(q, l->shaper.limits);
        group_unref(q, l->group);
        free(l);
    }
}

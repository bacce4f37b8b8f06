/*
 * Who is next. Deficit round robin over accounts, then classes (transactional
 * before bulk), then queues; a queue is what one account has for one lane in one
 * class. A queue whose lane has no room leaves the ready ones and waits at the
 * lane, which wakes its queues in turn, so that accounts share a slow site evenly
 * too and a customer's bulk mail never stands before another's password reset.
 */
#include <stdio.h>

#include "core/log.h"
#include "core/mem.h"
#include "qmgr/brakes.h"
#include "qmgr/classes.h"
#include "qmgr/memory.h"
#include "qmgr/qmgr.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"

enum {
    QUANTUM = 8,           /* jobs an account may start in its turn */
    COST_UNIT = 64 * 1024, /* so many bytes cost as much as one job more */
    COST_MAX = 64,
    STARTS_PER_TURN = 256,
    LANE_IDLE_SECONDS = 3600
};

struct account {
    struct list active;   /* in dispatch.active while it has ready queues */
    struct list ready[3]; /* queues, by class */
    int32_t deficit;
    struct class_turns turns;
    uint32_t queues, ready_count;
    size_t name_len;
    char name[];
};

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
        for (int i = 0; i < 3; i++)
            list_init(&a->ready[i]);
        map_put(&d->accounts, a);
    }
    d->recent = a;
    return a;
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

/* A destination that was suspended by hand is so for sources that come later, too. */
static void share_suspension(struct qmgr *q, struct lane *l)
{
    const struct lane *other = NULL;
    list_each(&l->group->lanes, n)
    {
        other = container_of(n, struct lane, of_group);
        if (!other->shaper.by_hand || other->shaper.suspended_until <= q->now)
            return;
    }
    if (!other)
        return;
    shaper_suspend(&l->shaper, other->shaper.suspended_until, q->now);
    l->reason = xstrdup(other->reason ? other->reason : "");
    l->suspended = answer_ref(other->suspended);
}

struct lane *dispatch_lane(struct qmgr *q, struct group *group, struct source *from)
{
    struct lane *l = dispatch_lane_known(q, group, from);
    if (l)
        return l;
    l = xcalloc(1, sizeof *l);
    l->group = group;
    l->from = from;
    if (from)
        set_source(l, from);
    group->refs++;
    l->used = q->now;
    list_init(&l->queues);
    list_init(&l->of_whole);
    for (int i = 0; i < 3; i++)
        list_init(&l->waiting[i]);
    shaper_init(&l->shaper, group_limits(q, group, lane_address(l)));
    share_suspension(q, l);
    list_push(&group->lanes, &l->of_group);
    list_push(&q->dispatch.lanes, &l->all);
    map_put(&q->dispatch.lanes_known, l);
    memory_recall(q, l);
    return l;
}

struct slice dispatch_sharer(const struct message *m, char buffer[static ACCOUNT_MAX + 1])
{
    struct slice account = message_account(m), sender = message_sender(m);
    if (account.len)
        return account;
    size_t at = slice_rchr(sender, '@'), n = 0;
    buffer[n++] = '@'; /* no account's name begins so */
    for (size_t i = at + 1; i < sender.len && n < ACCOUNT_MAX; i++) {
        char c = sender.ptr[i];
        buffer[n++] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    return slice_make(buffer, n);
}

static struct queue *queue_get(struct qmgr *q, struct lane *l, const struct message *m)
{
    char name[ACCOUNT_MAX + 1];
    struct account *a = account_get(q, dispatch_sharer(m, name));
    uint8_t class = m->env->mail_class;
    if (l->recent && l->recent->account == a && l->recent->mail_class == class)
        return l->recent;
    struct queue probe = {.account = a, .lane = l, .mail_class = class},
                 *k = map_get(&q->dispatch.queues, queue_key(&probe));
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
    }
    l->recent = k;
    return k;
}

static void make_ready(struct qmgr *q, struct queue *k)
{
    struct account *a = k->account;
    list_remove(&k->link);
    list_push(&a->ready[k->mail_class], &k->link);
    k->place = PLACE_READY;
    if (a->ready_count++ == 0)
        list_push(&q->dispatch.active, &a->active);
}

/* Out of the ready ones, or out of the lane's waiting ones. */
static void make_idle(struct queue *k)
{
    struct account *a = k->account;
    list_remove(&k->link);
    if (k->place == PLACE_READY && --a->ready_count == 0) {
        list_remove(&a->active);
        a->deficit = 0;
    }
    k->place = PLACE_IDLE;
}

static bool lane_has_waiting(const struct lane *l)
{
    return !list_empty(&l->waiting[0]) || !list_empty(&l->waiting[1]) ||
           !list_empty(&l->waiting[2]);
}

/* Whether the account has as many deliveries under way there as one may have while others
 * wait: all of its classes count. */
static bool has_its_share(const struct qmgr *q, const struct queue *k)
{
    uint32_t most = k->lane->shaper.limits->account_connections, under_way = 0;
    for (uint8_t class = 0; most && class < 3; class ++) {
        struct queue probe = {.account = k->account, .lane = k->lane, .mail_class = class};
        const struct queue *of = map_get(&q->dispatch.queues, queue_key(&probe));
        under_way += of ? of->in_flight : 0;
    }
    return most && under_way >= most;
}

/* The first that waits in a class, but those that are to blame for the last refusal, and
 * those that have their share, leave their turn to others. */
static struct queue *next_waiting(const struct qmgr *q, struct list *waiting)
{
    enum { PASSED_MAX = 32 };
    struct queue *first = container_of(waiting->next, struct queue, link), *k = first;
    bool alone = waiting->next == waiting->prev;
    for (int i = 0; i < PASSED_MAX && !alone && (k->debt > 0 || has_its_share(q, k)); i++) {
        if (k->debt > 0)
            k->debt--;
        list_remove(&k->link);
        list_push(waiting, &k->link);
        k = container_of(waiting->next, struct queue, link);
        if (k == first)
            break;
    }
    return k;
}

/* Something was refused: whose deliveries were more than an even share of those since the
 * refusal before? */
static void blame(const struct lane *l)
{
    enum { UNEVEN = 3 /* half more than an even share */, DEBT_MAX = 8 };
    uint64_t all = 0, some = 0;
    list_each(&l->queues, n)
    {
        const struct queue *k = container_of(n, struct queue, of_lane);
        all += k->window;
        some += k->window > 0;
    }
    list_each(&l->queues, n)
    {
        struct queue *k = container_of(n, struct queue, of_lane);
        uint64_t halves = all ? some * 2 * k->window / all : 0; /* of an even share */
        k->debt = (uint8_t)(halves < UNEVEN ? 0 : halves < DEBT_MAX ? halves : DEBT_MAX);
        k->window = 0;
    }
}

/* One waiting queue becomes ready, if the lane has room. */
static bool wake_one(struct qmgr *q, struct lane *l)
{
    int64_t when;
    if (!lane_has_waiting(l))
        return false;
    enum shaper_room room = whole_room(q, l, true, &when);
    if (room == SHAPER_LATER || room == SHAPER_SUSPENDED)
        heap_set(&q->dispatch.wakes, &l->wake, when);
    if (room != SHAPER_GO)
        return false;
    uint8_t class = class_in_turn(q->s->config, l->waiting, &l->turns);
    make_ready(q, next_waiting(q, &l->waiting[class]));
    return true;
}

/* ---- jobs ----------------------------------------------------------------------------------- */

struct job *job_new(struct message *m, uint32_t room)
{
    struct job *j = xmalloc(sizeof *j + room * sizeof j->rcpts[0]);
    *j = (struct job){.m = m, .room = room, .state = JOB_ROUTING};
    list_init(&j->link);
    list_push(&m->env->jobs, &j->of_message);
    return j;
}

/* None of those that wait in a brake's line. */
static bool has_jobs(const struct queue *k)
{
    return !list_empty(&k->again) || !list_empty(&k->jobs);
}

/* Takes a queued job out of its queue, or out of the line of a brake. */
static void unqueue(struct qmgr *q, struct job *j)
{
    struct queue *k = j->queue;
    if (j->brake)
        brakes_leave(q, j);
    list_remove(&j->link);
    k->lane->queued--;
    q->dispatch.queued--;
    if (--k->count == 0)
        q->dispatch.busy_queues--;
    if (!has_jobs(k))
        make_idle(k);
    park_release(q, k);
}

/* Recipients in line or under way count as used of what the source may send. */
static void hold_room(struct lane *l, uint32_t recipients)
{
    if (l->record)
        l->record->waiting += recipients;
}

static void give_room(struct lane *l, uint32_t recipients)
{
    if (l->record)
        l->record->waiting -= recipients;
}

void job_free(struct qmgr *q, struct job *j)
{
    if (j->queue)
        give_room(j->queue->lane, j->count);
    if (j->state == JOB_QUEUED) {
        struct lane *l = j->queue->lane;
        unqueue(q, j);
        if (!wake_one(q, l)) /* the room may have been given to the queue that it leaves */
            whole_wake(q, l);
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

/* Of a queue that has jobs. */
static struct job *first_job(const struct queue *k)
{
    const struct list *jobs = list_empty(&k->again) ? &k->jobs : &k->again;
    return container_of(jobs->next, struct job, link);
}

static void defer_all(struct qmgr *q, struct lane *l)
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
        while (has_jobs(k)) {
            struct job *j = first_job(k);
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
    if (last->m != j->m || last->site != j->site || last->room - last->count < j->count ||
        last->bytes + j->bytes > JOB_RECIPIENT_BYTES || last->rcpts[last->count - 1] > j->rcpts[0])
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
    l->used = q->now;
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
    struct queue *k = queue_get(q, l, j->m);
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
    hold_room(l, j->count);
    if (k->count++ == 0)
        q->dispatch.busy_queues++;
    l->queued++;
    q->dispatch.queued++;
    if (k->place != PLACE_IDLE)
        return;
    if (room == SHAPER_GO && !lane_has_waiting(l)) {
        make_ready(q, k);
        return;
    }
    k->place = PLACE_WAITING;
    list_push(&l->waiting[k->mail_class], &k->link);
    wake_one(q, l);
}

static void take(struct qmgr *q, struct job *j, struct list *jobs)
{
    struct lane *l = j->queue->lane;
    unqueue(q, j);
    give_room(l, j->count);
    j->queue = NULL;
    j->state = JOB_ROUTING;
    list_push(jobs, &j->link);
}

void dispatch_take_all(struct qmgr *q, struct lane *l, struct list *jobs)
{
    struct list held, *n;
    list_init(&held);
    brakes_give_up(q, l, &held);
    while ((n = list_pop(&held)))
        take(q, container_of(n, struct job, link), jobs);
    list_each(&l->queues, of)
    {
        const struct queue *k = container_of(of, struct queue, of_lane);
        while (has_jobs(k))
            take(q, first_job(k), jobs);
    }
}

void dispatch_suspend(struct qmgr *q, struct lane *l)
{
    struct buf text = BUF_INIT(8 * ANSWER_TEXT_MAX);
    char status[ENHANCED_MAX + 1];
    buf_addstr(&text, "delivery temporarily suspended: ");
    if (l->shaper.by_hand)
        buf_printf(&text, "by the operator%s%s", l->reason && *l->reason ? ": " : "",
                   l->reason ? l->reason : "");
    else if (l->last)
        answer_describe(l->last, &text);
    answer_unref(l->suspended);
    l->suspended =
        answer_new(0, answer_status(l->last, '4', status), buf_slice(&text), SLICE(""), SLICE(""));
    l->suspended->local = true;
    l->suspended->source = l->from ? l->from->number : 0;
    buf_free(&text);
    log_info("site %s: suspended for %llds", log_esc(slice_str(l->group->name)),
             (long long)((l->shaper.suspended_until - q->now + CLOCK_SECOND - 1) / CLOCK_SECOND));
    if (l->blocked)
        sources_move(q, l); /* those that find no other source come back, and are deferred */
    else
        defer_all(q, l);
}

void dispatch_over(struct qmgr *q, struct job *j, const struct shaper_report *report,
                   struct answer *why)
{
    struct lane *l = j->queue->lane;
    l->in_flight--;
    j->queue->in_flight--;
    q->dispatch.in_flight--;
    l->used = q->now;
    if (j->probe)
        brakes_probed(q, j, report->recipients > 0);
    j->probe = false;
    if (why) {
        answer_unref(l->last);
        l->last = answer_ref(why);
    }
    if (report->signal >= SHAPER_TOO_FAST)
        blame(l);
    const struct shaper_report own = whole_finished(q, l, report);
    uint8_t events = l->shaper.events_next;
    bool suspended = shaper_finished(&l->shaper, &own, q->now);
    events_shaping(q, l, events);
    if (suspended)
        dispatch_suspend(q, l);
    else
        wake_one(q, l);
    whole_wake(q, l);
}

/* A queue that has a job that goes before others. */
static void wait_first(struct queue *k)
{
    if (k->place != PLACE_IDLE)
        return;
    k->place = PLACE_WAITING;
    list_push_front(&k->lane->waiting[k->mail_class], &k->link);
}

void dispatch_return(struct qmgr *q, struct job *j)
{
    struct queue *k = j->queue;
    struct lane *l = k->lane;
    l->in_flight--;
    k->in_flight--;
    q->dispatch.in_flight--;
    k->window -= j->count < k->window ? j->count : k->window;
    shaper_returned(&l->shaper, j->count, q->now);
    whole_returned(q, l, j->count);
    relays_release(q, j);
    list_remove(&j->link);
    j->state = JOB_QUEUED;
    list_push_front(verdict_goes_first(j) ? &k->again : &k->jobs, &j->link);
    l->queued++;
    q->dispatch.queued++;
    if (k->count++ == 0)
        q->dispatch.busy_queues++;
    wait_first(k);
    wake_one(q, l);
}

void dispatch_again(struct qmgr *q, struct job *j)
{
    struct queue *k = j->queue;
    brakes_leave(q, j);
    list_push(&k->again, &j->link);
    wait_first(k);
    wake_one(q, k->lane);
}

bool dispatch_wake(struct qmgr *q, struct lane *l)
{
    return wake_one(q, l);
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
static void block(struct queue *k)
{
    make_idle(k);
    k->place = PLACE_WAITING;
    list_push_front(&k->lane->waiting[k->mail_class], &k->link);
}

static void start(struct qmgr *q, struct queue *k, struct relay *r)
{
    struct lane *l = k->lane;
    struct job *j = first_job(k);
    k->account->deficit -= cost(j);
    k->window += j->count;
    unqueue(q, j);
    if (has_jobs(k)) { /* the next one of its class and lane comes first */
        make_idle(k);
        if (lane_has_waiting(l)) {
            k->place = PLACE_WAITING;
            list_push(&l->waiting[k->mail_class], &k->link);
        } else {
            make_ready(q, k);
        }
    }
    l->in_flight++;
    k->in_flight++;
    q->dispatch.in_flight++;
    shaper_started(&l->shaper, j->count, q->now);
    j->may_connect = whole_started(q, l, j->count, shaper_may_connect(&l->shaper, q->now));
    wake_one(q, l);
    whole_wake(q, l);
    j->state = JOB_READING; /* until it is sent */
    relays_send(q, r, j);
}

/* Its first job's sender goes slower here than the lane, or not at all. */
static bool held_by_brake(struct qmgr *q, struct queue *k)
{
    struct job *j = first_job(k);
    struct message *m = j->m;
    switch (brakes_hold(q, k->lane, j, true)) {
    case BRAKE_DEFERRED:
        message_settle(q, m);
        return true;
    case BRAKE_LINED:
        if (!has_jobs(k))
            make_idle(k);
        wake_one(q, k->lane); /* the room was given to this queue */
        return true;
    default:
        return false;
    }
}

void dispatch_turn(struct qmgr *q)
{
    struct dispatch *d = &q->dispatch;
    struct heap_node *n;
    struct account *a;
    struct queue *k;
    while ((n = heap_min(&d->wakes)) && n->key <= q->now) {
        heap_remove(&d->wakes, n);
        struct lane *l = container_of(n, struct lane, wake);
        list_remove(&l->of_whole);
        if (!wake_one(q, l))
            whole_wake(q, l); /* it was its turn there, and it has nothing */
    }
    for (int i = 0; i < STARTS_PER_TURN && !q->draining && (k = choose(q, &a)); i++) {
        struct lane *l = k->lane;
        int64_t when;
        struct relay *r = relays_pick(q, l);
        if (!r)
            return;
        switch (whole_room(q, l, true, &when)) {
        case SHAPER_GO:
            if (!held_by_brake(q, k))
                start(q, k, r);
            else
                whole_wake(q, l); /* its turn there is another's */
            break;
        case SHAPER_LATER:
            heap_set(&d->wakes, &l->wake, when);
            block(k);
            break;
        case SHAPER_FULL:
            block(k);
            break;
        case SHAPER_SUSPENDED:
            defer_all(q, l);
            break;
        }
    }
}

int64_t dispatch_next_due(const struct qmgr *q)
{
    const struct heap_node *n = heap_min(&q->dispatch.wakes);
    if (!list_empty(&q->dispatch.active) && !q->draining && relays_ready(q))
        return q->now;
    return n ? n->key : INT64_MAX;
}

/* ---- now and then ------------------------------------------------------------------------------
 */

void dispatch_reload(struct qmgr *q)
{
    list_each(&q->dispatch.lanes, n) wake_one(q, container_of(n, struct lane, all));
}

void dispatch_unsuspend_all(struct qmgr *q)
{
    list_each(&q->dispatch.lanes, n) shaper_unsuspend(&container_of(n, struct lane, all)->shaper);
}

static void free_queues(struct qmgr *q, struct lane *l)
{
    l->recent = NULL;
    list_each_safe(&l->queues, n)
    {
        struct queue *k = container_of(n, struct queue, of_lane);
        struct account *a = k->account;
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
    list_each_safe(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (l->queued || l->in_flight)
            continue;
        free_queues(q, l);
        if (q->now - l->used < LANE_IDLE_SECONDS * CLOCK_SECOND)
            continue;
        memory_keep(q, l);
        heap_remove(&q->dispatch.wakes, &l->wake);
        list_remove(&l->all);
        list_remove(&l->of_whole);
        list_remove(&l->of_group);
        map_remove(&q->dispatch.lanes_known, lane_key(l));
        if (l->from)
            l->from->lanes--;
        answer_unref(l->last);
        answer_unref(l->suspended);
        free(l->reason);
        limits_unref(q, l->shaper.limits);
        group_unref(q, l->group);
        free(l);
    }
}

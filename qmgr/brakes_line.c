/* What brakes do to jobs: suspended senders' mail is deferred, that of slowed ones waits in
 * the brake's line for its token. */
#include "core/log.h"
#include "qmgr/brakes.h"
#include "qmgr/classes.h"
#include "qmgr/sources.h"

enum { RELEASED_PER_TURN = 256, LOOKED_AFTER_MAX = 64, PASSED_MAX = 1000 };

/* ---- the rate -------------------------------------------------------------------------- */

/* Faster again where nothing is refused, a step a `growth`. */
static void grow(const struct qmgr *q, struct brake *b)
{
    if (brake_rate_grow(b, q->now))
        log_info("shaping %s: %s %s is not slowed any more", log_esc(slice_str(b->name)),
                 brake_kind_name(b->kind), log_esc(slice_str(b->who)));
}

/* A job of several goes as one, and is paid back: the next waits for longer. */
static bool take_token(const struct qmgr *q, struct brake *b, struct job *j)
{
    if (!brake_rate_has_token(b, q->now))
        return false;
    b->tokens -= j->count;
    j->paid = true;
    return true;
}

static void probe_with(struct qmgr *q, struct brake *b, struct job *j)
{
    b->probe = j;
    b->filled = q->now;
    j->paid = j->probe = true;
    q->brakes->probes++;
}

/* ---- the line -------------------------------------------------------------------------- */

/* When the first in line may go. */
static void plan(struct qmgr *q, struct brake *b)
{
    int64_t when = q->now;
    if (b->held == 0 || (b->probing && b->probe && !brake_suspends(q, b))) {
        heap_remove(&q->brakes->wakes, &b->wake);
        return;
    }
    if (!b->probing && b->rate > 0 && !brake_suspends(q, b)) {
        when = b->filled + (int64_t)((1 - b->tokens) / b->rate * 1e6);
        /* it will be faster then */
        when = when < b->grown + b->times.growth ? when : b->grown + b->times.growth;
    }
    heap_set(&q->brakes->wakes, &b->wake, when);
}

void brake_changed(struct qmgr *q, struct brake *b)
{
    plan(q, b);
}

/* Oldest first: what had to leave the line for a while has its place again. */
static struct list *place_of(const struct list *line, const struct job *j)
{
    struct list *at = line->prev;
    if (at == line || container_of(at, struct job, link)->m->born <= j->m->born)
        return at;
    at = line->next;
    for (int i = 0; i < PASSED_MAX && container_of(at, struct job, link)->m->born <= j->m->born;
         i++)
        at = at->next;
    return at->prev;
}

static void line_up(struct qmgr *q, struct brake *b, struct job *j)
{
    struct list *line = &b->line[j->queue->mail_class];
    list_remove(&j->link);
    list_insert_after(place_of(line, j), &j->link);
    j->brake = b;
    b->held++;
    q->brakes->held++;
    plan(q, b);
}

void brakes_leave(struct qmgr *q, struct job *j)
{
    struct brake *b = j->brake;
    list_remove(&j->link);
    j->brake = NULL;
    b->held--;
    q->brakes->held--;
    if (b->held == 0)
        heap_remove(&q->brakes->wakes, &b->wake);
}

void brakes_give_up(struct qmgr *q, const struct lane *l, struct list *jobs)
{
    if (q->brakes->held == 0)
        return;
    list_each(&q->brakes->all, n)
    {
        struct brake *b = container_of(n, struct brake, link);
        for (int class = 0; b->held && class < 3; class ++)
            list_each_safe(&b->line[class], at)
            {
                struct job *j = container_of(at, struct job, link);
                if (j->queue->lane != l)
                    continue;
                brakes_leave(q, j);
                list_push(jobs, &j->link);
            }
    }
}

void brakes_probed(struct qmgr *q, const struct job *j, bool taken)
{
    q->brakes->probes--;
    list_each(&q->brakes->all, n)
    {
        struct brake *b = container_of(n, struct brake, link);
        if (b->probe != j)
            continue;
        b->probe = NULL;
        if (taken && b->probing && !brake_suspends(q, b)) {
            b->probing = false;
            b->tokens = 0;
            b->filled = b->grown = q->now;
            log_info("shaping %s: the suspension of %s %s is over: a message was taken; now %.3f/s",
                     log_esc(slice_str(b->name)), brake_kind_name(b->kind),
                     log_esc(slice_str(b->who)), b->rate);
        }
        plan(q, b);
        return;
    }
}

/* ---- holding ------------------------------------------------------------------------- */

/* Not longer than any attempt waits, so that its age is looked at, and that mail comes back
 * soon after the operator's resume. */
static void defer(struct qmgr *q, const struct lane *l, struct job *j, const struct brake *b)
{
    struct attempt t = {.site = j->site, .sent = q->now};
    struct buf text = BUF_INIT(2048);
    int64_t left = brake_suspends(q, b) ? b->until - q->now : 0;
    int64_t most = q->s->config->maximal_backoff_time * CLOCK_SECOND;
    left = left < most ? left : most;
    buf_printf(&text, "delivery temporarily %s for %s %s: %s%s",
               brake_suspends(q, b) ? "suspended" : "slowed down", brake_kind_name(b->kind), b->who,
               b->by_hand ? "by the operator: " : "", b->reason);
    struct answer *a = answer_new(0, SLICE("4.7.0"), buf_slice(&text), SLICE(""), SLICE(""));
    a->local = a->suspended = true;
    a->source = l->from ? l->from->number : 0;
    int64_t until = q->now + left + retry_jitter(left / 10 + CLOCK_SECOND);
    outcome_deferred(q, j->m, j->rcpts, j->count, a, &t, until, false);
    answer_unref(a);
    buf_free(&text);
    job_free(q, j);
}

void brakes_take_effect(struct qmgr *q, const struct brake *b)
{
    struct list jobs, *n;
    list_init(&jobs);
    list_each(&q->brakes->all, of)
    {
        struct brake *other = container_of(of, struct brake, link);
        for (int class = 0; other->held && class < 3; class ++)
            list_each_safe(&other->line[class], at)
            {
                struct job *j = container_of(at, struct job, link);
                if (brakes_of(q, j->queue->lane->group, j->m).suspends != b)
                    continue;
                brakes_leave(q, j);
                list_push(&jobs, &j->link);
            }
        plan(q, other);
    }
    while ((n = list_pop(&jobs))) {
        struct job *j = container_of(n, struct job, link);
        struct message *m = j->m;
        defer(q, j->queue->lane, j, b);
        message_settle(q, m);
    }
}

enum brake_holds brakes_hold(struct qmgr *q, struct lane *l, struct job *j, bool starts)
{
    struct brake_pair p = brakes_of(q, l->group, j->m);
    if (p.suspends) {
        defer(q, l, j, p.suspends);
        return BRAKE_DEFERRED;
    }
    struct brake *b = p.slows;
    if (!starts || !b || j->paid)
        return BRAKE_LETS_GO;
    grow(q, b);
    if (b->rate <= 0) {
        plan(q, b);
        return BRAKE_LETS_GO;
    }
    if (b->held == 0 && !b->probing && take_token(q, b, j))
        return BRAKE_LETS_GO;
    if (b->held == 0 && b->probing && !b->probe) {
        probe_with(q, b, j);
        return BRAKE_LETS_GO;
    }
    line_up(q, b, j);
    return BRAKE_LINED;
}

/* ---- letting go ------------------------------------------------------------------------ */

static struct job *first_in_line(const struct qmgr *q, struct brake *b)
{
    uint8_t class = class_in_turn(q->s->config, b->line, &b->turns);
    return container_of(b->line[class].next, struct job, link);
}

/* The first in line; false: it is not its time yet. */
static bool release_one(struct qmgr *q, struct brake *b)
{
    grow(q, b);
    if (!b->probing && b->rate > 0 && !brake_rate_has_token(b, q->now))
        return false;
    struct job *j = first_in_line(q, b);
    if (b->probing && b->rate > 0)
        probe_with(q, b, j);
    else if (b->rate > 0)
        (void)take_token(q, b, j);
    dispatch_again(q, j);
    return !b->probing || b->rate <= 0;
}

/* The brake stays for as long as this lasts: the sweep alone drops those that were on. */
static void release(struct qmgr *q, struct brake *b)
{
    for (int i = 0; i < RELEASED_PER_TURN && b->held; i++) {
        if (brake_suspends(q, b)) {
            struct job *j = first_in_line(q, b);
            struct message *m = j->m;
            defer(q, j->queue->lane, j, b);
            message_settle(q, m);
        } else if (!release_one(q, b)) {
            break;
        }
    }
    plan(q, b);
}

void brakes_turn(struct qmgr *q)
{
    struct heap_node *n;
    for (int i = 0; i < RELEASED_PER_TURN && !q->draining; i++) {
        if (!(n = heap_min(&q->brakes->wakes)) || n->key > q->now)
            break;
        release(q, container_of(n, struct brake, wake));
    }
}

int64_t brakes_next_due(struct qmgr *q)
{
    const struct heap_node *n = q->draining ? NULL : heap_min(&q->brakes->wakes);
    return n ? n->key : INT64_MAX;
}

/* ---- now and then ------------------------------------------------------------------------ */

static bool is_old(const struct qmgr *q, const struct message *m)
{
    return retry_expired(q, m) ||
           (!m->env->delay_sent && !m->env->delay_due && retry_is_late(q, m));
}

static struct job *find_old(const struct qmgr *q, const struct brake *b)
{
    for (int class = 0; class < 3; class ++)
        list_each(&b->line[class], n)
        {
            struct job *j = container_of(n, struct job, link);
            if (is_old(q, j->m))
                return j;
        }
    return NULL;
}

void brake_expire(struct qmgr *q, struct brake *b)
{
    struct job *j;
    for (int i = 0; i < LOOKED_AFTER_MAX && b->held && (j = find_old(q, b)); i++) {
        struct message *m = j->m;
        defer(q, j->queue->lane, j, b); /* it expires, or its sender is warned */
        message_settle(q, m);
    }
}

/* Jobs get their source addresses, and look for others when those may not send any more. */
#include "core/mem.h"
#include "qmgr/sources_inside.h"

static void defer(struct qmgr *q, struct site *site, struct job *j, const struct choice *c)
{
    const struct source *last = source_of_last(q, j);
    struct attempt t = {.site = site, .sent = q->now};
    struct buf text = BUF_INIT(ANSWER_TEXT_MAX);
    int64_t wait = c->until > q->now ? c->until - q->now : 0, most = SOURCE_LOOK_AGAIN;
    if (wait > most)
        wait = most;
    if (c->who)
        (void)buf_printf(&text, "no source address may send this now: source %s: %s", c->who->name,
                         c->why ? c->why : "");
    else if (c->day_over)
        (void)buf_printf(&text, "this cannot be sent there today: %s", c->why);
    else
        (void)buf_addstr(&text, "no source address may send this now: its pool has none");
    struct answer *a = answer_new(0, SLICE("4.3.2"), buf_slice(&text), SLICE(""), SLICE(""));
    a->local = a->no_source = a->suspended = true;
    a->day_over = c->day_over;
    a->source = last ? last->number : 0;
    q->from->waits = true;
    outcome_deferred(q, j->m, j->rcpts, j->count, a, &t,
                     q->now + wait + retry_jitter(wait / 10 + CLOCK_SECOND), false);
    answer_unref(a);
    buf_free(&text);
    job_free(q, j);
}

/* What is more than the source may still send there today becomes a job of its own. */
static struct job *split(const struct qmgr *q, const struct lane *l, struct job *j)
{
    uint64_t room = lane_room(q, l);
    if (room == 0 || room >= j->count)
        return NULL;
    uint32_t kept = (uint32_t)room, count = j->count - kept;
    struct job *rest = job_new(j->m, count);
    rest->tls = tls_rules_ref(j->tls);
    rest->count = count;
    memcpy(rest->rcpts, j->rcpts + kept, count * sizeof rest->rcpts[0]);
    for (uint32_t i = 0; i < count; i++)
        rest->bytes += recipient_job_bytes(&j->m->env->recipients[rest->rcpts[i]]);
    j->count = kept;
    j->bytes -= rest->bytes;
    return rest;
}

void sources_submit(struct qmgr *q, struct site *site, struct job *j)
{
    struct choice c;
    for (struct job *rest; j; j = rest) {
        struct lane *l = source_choose(q, site, j, &c);
        rest = l ? split(q, l, j) : NULL;
        if (l)
            dispatch_add(q, l, site, j);
        else
            defer(q, site, j, &c);
    }
}

void sources_recheck(struct qmgr *q)
{
    sources_wake(q);
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (l->queued && lane_is_overdrawn(q, l))
            sources_move(q, l);
    }
}

/* ---- away from a source -------------------------------------------------------------------- */

void sources_move(struct qmgr *q, struct lane *l)
{
    struct list jobs;
    list_init(&jobs);
    dispatch_take_all(q, l, &jobs);
    for (struct list *n; (n = list_pop(&jobs));) {
        struct job *j = container_of(n, struct job, link);
        struct message *m = j->m;
        struct site *site = j->site;
        j->site = NULL; /* its reference is ours now */
        sources_submit(q, site, j);
        site_unref(q, site);
        message_settle(q, m);
    }
}

void sources_forgive(struct qmgr *q, struct source *s)
{
    s->forgiven = s->listed;
    free(s->forgiven_zones);
    s->forgiven_zones = xstrdup(s->listed_zones);
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (l->from != s || !l->blocked)
            continue;
        l->blocked = false;
        shaper_unsuspend(&l->shaper);
        dispatch_wake(q, l);
    }
}

/* Its recipients that no source might send are due. */
static bool make_due(struct message *m)
{
    bool any = false;
    for (uint32_t i = 0; i < m->recipient_count; i++) {
        const struct recipient *r = &m->env->recipients[i];
        if (r->state != RCPT_WAITING || !r->answer || !r->answer->no_source)
            continue;
        any = true;
        recipient_waits(m, i, 0);
    }
    return any;
}

void sources_wake(struct qmgr *q)
{
    if (!q->from->waits)
        return;
    q->from->waits = false;
    list_each(&q->all, at)
    {
        struct message *m = container_of(at, struct message, all);
        bool in_memory = m->phase == PHASE_LOADED && !m->env->peeked;
        if (m->flags & (MESSAGE_HELD | MESSAGE_DELETED))
            continue;
        if (in_memory && make_due(m))
            heap_set(&q->due, &m->due, q->now);
        else if (!in_memory)
            message_wake_suspended(q, m); /* for what is not known of it */
    }
}

void sources_leave(struct qmgr *q, struct source *s)
{
    list_each_safe(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (l->from == s && l->queued)
            sources_move(q, l);
    }
}

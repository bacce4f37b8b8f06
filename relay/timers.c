#include "relay/timers.h"

#include "core/list.h"
#include "core/mem.h"

static void arm(struct timers *t, int64_t at, int64_t now)
{
    int64_t wait = at - now > TIMERS_TICK ? at - now : TIMERS_TICK;
    struct timeval tv = {wait / CLOCK_SECOND, wait % CLOCK_SECOND};
    if (t->armed <= now + wait)
        return;
    t->armed = now + wait;
    event_add(t->tick, &tv);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct timers *t = arg;
    struct heap_node *n;
    int64_t now = clock_mono();
    (void)fd;
    (void)what;
    t->armed = INT64_MAX;
    while ((n = heap_min(&t->heap)) && n->key <= now) {
        struct deadline *d = container_of(n, struct deadline, node);
        if (d->at > now) {
            heap_set(&t->heap, n, d->at);
            continue;
        }
        heap_remove(&t->heap, n);
        t->expired(d);
    }
    if (n)
        arm(t, n->key, now);
}

void timers_init(struct timers *t, struct event_base *base, void (*expired)(struct deadline *d))
{
    *t = (struct timers){.armed = INT64_MAX, .expired = expired};
    t->tick = evtimer_new(base, on_tick, t);
    if (!t->tick)
        panic("cannot make a timer");
}

void timers_free(struct timers *t)
{
    event_free(t->tick);
    heap_free(&t->heap);
}

void deadline_set(struct timers *t, struct deadline *d, int64_t at)
{
    d->at = at;
    if (heap_has(&d->node) && d->node.key <= at)
        return;
    heap_set(&t->heap, &d->node, at);
    if (at < t->armed)
        arm(t, at, clock_mono());
}

void deadline_clear(struct timers *t, struct deadline *d)
{
    heap_remove(&t->heap, &d->node);
}

#include "smtpd/timeouts.h"

#include "core/clock.h"
#include "core/mem.h"

static void expire(struct timeouts *ts, enum timeout_kind kind, int64_t now)
{
    struct list *waits = &ts->waits[kind];
    while (!list_empty(waits)) {
        struct timeout *t = container_of(waits->next, struct timeout, link);
        if (now < t->since + ts->lasts[kind])
            break;
        timeout_stop(t);
        ts->expired(t, kind);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct timeouts *ts = arg;
    int64_t now = clock_mono();
    (void)fd;
    (void)what;
    for (int kind = 0; kind < TIMEOUT_KINDS; kind++)
        expire(ts, (enum timeout_kind)kind, now);
    ts->every_second(ts->arg, now);
}

void timeouts_init(struct timeouts *ts, struct event_base *base,
                   void (*expired)(struct timeout *t, enum timeout_kind kind),
                   void (*every_second)(void *arg, int64_t now), void *arg)
{
    *ts = (struct timeouts){.expired = expired, .every_second = every_second, .arg = arg};
    for (int kind = 0; kind < TIMEOUT_KINDS; kind++)
        list_init(&ts->waits[kind]);
    ts->tick = event_new(base, -1, EV_PERSIST, on_tick, ts);
    if (!ts->tick || event_add(ts->tick, &(struct timeval){1, 0}) < 0)
        panic("cannot start the timer");
}

void timeouts_free(struct timeouts *ts)
{
    if (ts->tick)
        event_free(ts->tick);
    ts->tick = NULL;
}

/*
 * Deadlines of thousands of sessions on one libevent timer. A deadline that
 * moves away costs nothing: its place in the heap is corrected when it comes
 * up. Expiry is rounded up to TIMERS_TICK.
 */
#ifndef POSTERN_RELAY_TIMERS_H
#define POSTERN_RELAY_TIMERS_H

#include <event2/event.h>

#include "core/clock.h"
#include "core/heap.h"

#define TIMERS_TICK (CLOCK_SECOND / 10)

struct deadline {
    struct heap_node node;
    int64_t at; /* clock_mono; may be later than the heap's key */
};

struct timers {
    struct heap heap;
    struct event *tick;
    int64_t armed; /* when the tick is due; INT64_MAX: it is not armed */
    void (*expired)(struct deadline *d);
};

/* `expired` is called for each deadline that has passed; it is then unset. */
void timers_init(struct timers *t, struct event_base *base, void (*expired)(struct deadline *d));
void timers_free(struct timers *t);
void deadline_set(struct timers *t, struct deadline *d, int64_t at);
void deadline_clear(struct timers *t, struct deadline *d);

#endif

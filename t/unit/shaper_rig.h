/* A shaper with limits that leave it free, what it is told, and what it lets start. */
#ifndef POSTERN_T_SHAPER_RIG_H
#define POSTERN_T_SHAPER_RIG_H

#include "core/clock.h"
#include "qmgr/shaper.h"
#include "unit.h"

#define SECOND CLOCK_SECOND

static inline struct shaper_limits limits_of(double start_rate)
{
    struct shaper_limits l = {.concurrency = 4,
                              .initial = 2,
                              .cohorts = 1,
                              .suspend = 60 * SECOND,
                              .suspend_max = 200 * SECOND,
                              .unreachable_max = 200 * SECOND,
                              .start_rate = start_rate};
    shaper_times_init(&l.times, 60);
    return l;
}

static inline bool tell(struct shaper *s, enum shaper_signal signal, int64_t started, int64_t now)
{
    struct shaper_report r = {.signal = signal,
                              .started = started,
                              .recipients = signal == SHAPER_OK,
                              .use_count = 1,
                              .time = 3 * SECOND};
    return shaper_finished(s, &r, now);
}

/* How many deliveries may start at once, each at the earliest time that is allowed, up to
 * `until`. */
static inline unsigned start_all(struct shaper *s, int64_t now, int64_t until)
{
    int64_t when;
    unsigned n = 0;
    for (;;) {
        switch (shaper_room(s, now, &when)) {
        case SHAPER_GO:
            shaper_started(s, 1, now);
            n++;
            break;
        case SHAPER_LATER:
            if (when > until)
                return n;
            now = when;
            break;
        default:
            return n;
        }
    }
}

#endif

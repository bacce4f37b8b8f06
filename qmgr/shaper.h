/*
 * How much work a lane (a site from one source address) gets: the interface of
 * the shaper. This implementation has fixed limits; the adaptive one replaces
 * shaper.c and the struct's inside, not the calls.
 *
 * Concurrency starts at initial_destination_concurrency, grows by one with each
 * success up to default_destination_concurrency_limit, and falls by one with
 * each failure of the site. When failures make up
 * default_destination_concurrency_failed_cohort_limit whole rounds of the
 * concurrency, the lane is suspended for destination_suspend_time, which doubles
 * each time up to maximal_backoff_time; then one job probes.
 *
 * Times are microseconds of the monotonic clock. No I/O, no allocation.
 */
#ifndef POSTERN_QMGR_SHAPER_H
#define POSTERN_QMGR_SHAPER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"

struct shaper_limits {
    uint32_t concurrency, initial, cohorts;
    int64_t rate_delay, suspend, suspend_max;
};

struct shaper {
    const struct shaper_limits *limits; /* shared, outlives it; may change */
    uint32_t window, in_flight;
    double failed_cohorts;
    int64_t next_start;      /* rate_delay: not before */
    int64_t suspended_until; /* 0: not suspended */
    int64_t suspend_time;    /* length of the last suspension */
    bool probing;            /* after a suspension, until a job succeeds */
};

enum shaper_room {
    SHAPER_GO,
    SHAPER_FULL,     /* until a job is over */
    SHAPER_LATER,    /* not before *when */
    SHAPER_SUSPENDED /* the site is left alone until *when; defer its jobs */
};
enum shaper_result {
    SHAPER_OK,      /* the site worked */
    SHAPER_NEUTRAL, /* says nothing about the site */
    SHAPER_FAILED   /* the site failed: no connection, bad greeting, lost */
};

void shaper_init(struct shaper *s, const struct shaper_limits *limits);
/* May a job start now? */
enum shaper_room shaper_room(const struct shaper *s, int64_t now, int64_t *when);
void shaper_started(struct shaper *s, int64_t now);
/* Ends what shaper_started began. True if the lane has just been suspended. */
bool shaper_finished(struct shaper *s, enum shaper_result result, int64_t now);
/* Ends a suspension: the next job is a probe. */
void shaper_unsuspend(struct shaper *s);
/* Limits and state as members of a JSON object, for `postern site show`. */
void shaper_explain(const struct shaper *s, int64_t now, struct buf *json);

#endif

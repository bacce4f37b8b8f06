/* Periods of plans, and windows of rates: from when to when. */
#ifndef POSTERN_PLAN_PERIOD_H
#define POSTERN_PLAN_PERIOD_H

#include "core/buf.h"
#include "plan/plan.h"

struct period {
    int64_t start, end; /* seconds since 1970; end is not in it. INT64_MAX: never ends */
};

/* The period that `time` lies in. `began` is when the account's plan began, which
 * the anniversary is of. */
struct period plan_period_at(const struct plan *p, int64_t began, int64_t time);
/* The window of a rate that `time` lies in: minutes and hours by the clock, days
 * and months by the calendar of the plan's zone. */
struct period plan_rate_window(const struct plan *p, uint8_t unit, int64_t time);
/* The end of the calendar's day, month or year (enum plan_period) in the zone. */
int64_t plan_calendar_end(const struct plan *p, uint8_t period, int64_t time);
/* Appends "2026-12-01 00:00 Europe/Berlin". */
void plan_print_time(struct buf *out, const struct plan *p, int64_t time);

#endif

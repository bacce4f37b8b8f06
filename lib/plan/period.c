#include "plan/period.h"

enum { MINUTE = 60, HOUR = 3600 };

/* The first moment of a day of some month, which may lie outside 1 to 12; a day
 * that the month does not have is its last. */
static int64_t moment(const struct zone *z, int64_t year, int64_t month, int day)
{
    year += (month - 1) / 12;
    month = (month - 1) % 12 + 1;
    if (month < 1) {
        month += 12;
        year--;
    }
    int days = civil_month_days(year, (int)month);
    struct civil c = {.year = year, .month = (int)month, .day = day < days ? day : days};
    return zone_time(z, &c);
}

static int64_t day_start(const struct zone *z, const struct civil *c, int days_later)
{
    struct civil d = {.year = c->year, .month = c->month, .day = c->day + days_later};
    return zone_time(z, &d);
}

static struct period months(const struct plan *p, int64_t year, int64_t month, int day, int step,
                            int64_t time)
{
    struct period r = {moment(&p->zone, year, month, day),
                       moment(&p->zone, year, month + step, day)};
    /* the day of the month is still to come */
    while (time < r.start) {
        month -= step;
        r = (struct period){moment(&p->zone, year, month, day), r.start};
    }
    return r;
}

struct period plan_period_at(const struct plan *p, int64_t began, int64_t time)
{
    struct civil now = zone_civil(&p->zone, time), first = zone_civil(&p->zone, began);
    bool own = p->anchor == ANCHOR_ANNIVERSARY;
    int back;
    switch (p->period) {
    case PERIOD_DAY:
        return (struct period){day_start(&p->zone, &now, 0), day_start(&p->zone, &now, 1)};
    case PERIOD_WEEK: /* from Monday on (ISO 8601), or from the weekday it began on */
        back = (now.weekday - (own ? first.weekday : 1) + 7) % 7;
        return (struct period){day_start(&p->zone, &now, -back),
                               day_start(&p->zone, &now, 7 - back)};
    case PERIOD_MONTH:
        return months(p, now.year, now.month, own ? first.day : 1, 1, time);
    case PERIOD_YEAR:
        return months(p, now.year, own ? first.month : 1, own ? first.day : 1, 12, time);
    default:
        return (struct period){0, INT64_MAX};
    }
}

int64_t plan_calendar_end(const struct plan *p, uint8_t period, int64_t time)
{
    struct plan calendar = {.zone = p->zone, .period = period, .anchor = ANCHOR_CALENDAR};
    return plan_period_at(&calendar, 0, time).end;
}

struct period plan_rate_window(const struct plan *p, uint8_t unit, int64_t time)
{
    struct plan calendar = {.zone = p->zone,
                            .period = unit == RATE_DAY ? PERIOD_DAY : PERIOD_MONTH};
    int64_t span = unit == RATE_MINUTE ? MINUTE : HOUR;
    if (unit == RATE_DAY || unit == RATE_MONTH)
        return plan_period_at(&calendar, 0, time);
    return (struct period){time - time % span, time - time % span + span};
}

void plan_print_time(struct buf *out, const struct plan *p, int64_t time)
{
    struct civil c = zone_civil(&p->zone, time);
    (void)buf_printf(out, "%04lld-%02d-%02d %02d:%02d %s", (long long)c.year, c.month, c.day,
                     c.hour, c.minute, p->zone_name);
}

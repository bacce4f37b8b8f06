/*
 * Time zones by their POSIX rules (IEEE 1003.1, TZ), such as
 * "CET-1CEST,M3.5.0,M10.5.0/3": what the last line of a tzfile says about all
 * times from now on. So no file has to be read where there are none.
 *
 * A country whose changes follow no such rule (Morocco's follow the moon) has them behind the rule,
 * each as the minute since 1970, '=' and the minutes east of Greenwich from then on:
 * "<+01>-1 29505720=0 29548920=60". Behind the last of them the rule holds, as before the first.
 */
#ifndef POSTERN_PLAN_ZONE_H
#define POSTERN_PLAN_ZONE_H

#include <stdint.h>

#include "core/slice.h"

/* When in a year summer time begins or ends. */
struct zone_change {
    uint8_t kind; /* 'M': month.week.weekday; 'J': day 1-365 without 29 February; 'N': day 0-365 */
    uint8_t month, week, weekday;
    uint16_t day;
    int32_t at; /* seconds after midnight, local time */
};

enum {
    ZONE_STEPS_MAX = 320, /* four a year until 2087 (Gaza), and some more */
    ZONE_TEXT_MAX = 8192  /* of a rule with its changes */
};

struct zone {
    int32_t offset, summer_offset; /* seconds east of Greenwich */
    bool summer;                   /* there is summer time */
    struct zone_change begins, ends;
    unsigned step_count;
    uint32_t step_at[ZONE_STEPS_MAX];    /* minutes since 1970, ascending */
    int16_t step_offset[ZONE_STEPS_MAX]; /* minutes east of Greenwich from then on */
};

/* A civil date and time. month and day from 1; weekday from 0, Sunday. */
struct civil {
    int64_t year;
    int month, day, hour, minute, second, weekday;
};

/* 0, or -1 if it is no rule. */
int zone_parse(struct slice rule, struct zone *out);
/* Seconds east of Greenwich at this time (seconds since 1970, UTC). */
int32_t zone_offset(const struct zone *z, int64_t time);
struct civil zone_civil(const struct zone *z, int64_t time);
/* The time of a civil date; of two the earlier one, and one that is left out by
 * the beginning of summer time is as far after it as it says. Days beyond the
 * month's end flow over. */
int64_t zone_time(const struct zone *z, const struct civil *c);

/* Days since 1970-01-01 of a date of the Gregorian calendar, and back. */
int64_t civil_days(int64_t year, int month, int day);
void civil_date(int64_t days, struct civil *out);
int civil_month_days(int64_t year, int month);

#endif

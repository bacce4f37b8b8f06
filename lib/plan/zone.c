#include "plan/zone.h"

enum { DAY = 86400, HOUR_MAX = 167, NAME_MIN = 3, NAME_MAX = 10 };

/* ---- the calendar ----------------------------------------------------------- */

static bool is_leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

int civil_month_days(int64_t year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && is_leap(year));
}

/* Years are counted from March, so that a leap day is a year's last; 400 years
 * have 146,097 days, and 719,468 of them lie before 1970. */
int64_t civil_days(int64_t year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400, in_era = y - era * 400;
    int64_t in_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + in_era * 365 + in_era / 4 - in_era / 100 + in_year - 719468;
}

void civil_date(int64_t days, struct civil *out)
{
    out->weekday = (int)(((days % 7) + 11) % 7); /* 1970 began on a Thursday */
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097, in_era = days - era * 146097;
    int64_t year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int64_t in_year = in_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * in_year + 2) / 153;
    out->day = (int)(in_year - (153 * month + 2) / 5 + 1);
    out->month = (int)(month < 10 ? month + 3 : month - 9);
    out->year = year + era * 400 + (out->month <= 2);
}

/* ---- rules ------------------------------------------------------------------ */

static bool take(struct slice *s, char c)
{
    if (s->len == 0 || s->ptr[0] != c)
        return false;
    *s = slice_from(*s, 1);
    return true;
}

/* A number of up to three digits; -1 if there is none or it is above max. */
static int take_number(struct slice *s, int max)
{
    int n = 0, digits = 0;
    while (s->len && s->ptr[0] >= '0' && s->ptr[0] <= '9' && digits < 3) {
        n = n * 10 + (s->ptr[0] - '0');
        *s = slice_from(*s, 1);
        digits++;
    }
    return digits && n <= max ? n : -1;
}

/* "CET" or "<+0530>" */
static int take_name(struct slice *s)
{
    bool quoted = take(s, '<');
    size_t n = 0;
    while (n < s->len) {
        char c = s->ptr[n], low = (char)(c | 0x20);
        bool good = (low >= 'a' && low <= 'z') ||
                    (quoted && ((c >= '0' && c <= '9') || c == '+' || c == '-'));
        if (!good)
            break;
        n++;
    }
    if (n < NAME_MIN || n > NAME_MAX)
        return -1;
    *s = slice_from(*s, n);
    return quoted && !take(s, '>') ? -1 : 0;
}

/* [+-]hh[:mm[:ss]] in seconds */
static int take_time(struct slice *s, int32_t *out)
{
    bool negative = take(s, '-');
    if (!negative)
        (void)take(s, '+');
    int hours = take_number(s, HOUR_MAX), minutes = 0, seconds = 0;
    if (hours >= 0 && take(s, ':')) {
        minutes = take_number(s, 59);
        if (minutes >= 0 && take(s, ':'))
            seconds = take_number(s, 59);
    }
    if (hours < 0 || minutes < 0 || seconds < 0)
        return -1;
    *out = (hours * 3600 + minutes * 60 + seconds) * (negative ? -1 : 1);
    return 0;
}

static int take_day(struct slice *s, struct zone_change *c)
{
    if (take(s, 'M')) {
        int month = take_number(s, 12), week, weekday;
        if (month < 1 || !take(s, '.') || (week = take_number(s, 5)) < 1 || !take(s, '.') ||
            (weekday = take_number(s, 6)) < 0)
            return -1;
        *c = (struct zone_change){'M', (uint8_t)month, (uint8_t)week, (uint8_t)weekday, 0, 0};
        return 0;
    }
    bool julian = take(s, 'J');
    int day = take_number(s, 365);
    if (day < 0 || (julian && day == 0))
        return -1;
    *c = (struct zone_change){.kind = julian ? 'J' : 'N', .day = (uint16_t)day};
    return 0;
}

static int take_change(struct slice *s, struct zone_change *c)
{
    if (!take(s, ',') || take_day(s, c) < 0)
        return -1;
    c->at = 2 * 3600;
    return take(s, '/') ? take_time(s, &c->at) : 0;
}

/* "29505720=-60" */
static int take_step(struct slice text, struct zone *z)
{
    uint64_t at, minutes;
    struct slice offset = text, time = slice_cut(&offset, '=');
    bool west = take(&offset, '-');
    unsigned n = z->step_count;
    if (n == ZONE_STEPS_MAX || slice_u64(time, &at) < 0 || at > UINT32_MAX ||
        slice_u64(offset, &minutes) < 0 || minutes > HOUR_MAX * 60 ||
        (n && at <= z->step_at[n - 1]))
        return -1;
    z->step_at[n] = (uint32_t)at;
    z->step_offset[n] = (int16_t)(west ? -(int)minutes : (int)minutes);
    z->step_count++;
    return 0;
}

int zone_parse(struct slice text, struct zone *out)
{
    struct zone z = {.summer = false};
    struct slice steps = text, rule = slice_cut(&steps, ' ');
    int32_t west;
    if (take_name(&rule) < 0 || take_time(&rule, &west) < 0)
        return -1;
    z.offset = -west;
    if (rule.len) {
        z.summer = true;
        z.summer_offset = z.offset + 3600;
        if (take_name(&rule) < 0)
            return -1;
        if (rule.len && rule.ptr[0] != ',') {
            if (take_time(&rule, &west) < 0)
                return -1;
            z.summer_offset = -west;
        }
        if (take_change(&rule, &z.begins) < 0 || take_change(&rule, &z.ends) < 0 || rule.len)
            return -1;
    }
    if (rule.len < text.len && steps.len == 0 && text.ptr[text.len - 1] == ' ')
        return -1;
    while (steps.len)
        if (take_step(slice_cut(&steps, ' '), &z) < 0)
            return -1;
    *out = z;
    return 0;
}

/* ---- times ------------------------------------------------------------------ */

/* Seconds since 1970 as a clock on the wall counts them. */
static int64_t change_in(const struct zone_change *c, int64_t year)
{
    int64_t first = civil_days(year, 1, 1);
    if (c->kind == 'N')
        return (first + c->day) * DAY + c->at;
    if (c->kind == 'J')
        return (first + c->day - 1 + (is_leap(year) && c->day >= 60)) * DAY + c->at;
    struct civil day;
    int64_t month = civil_days(year, c->month, 1);
    civil_date(month, &day);
    int in_month = (c->weekday - day.weekday + 7) % 7 + (c->week - 1) * 7;
    if (in_month >= civil_month_days(year, c->month))
        in_month -= 7;
    return (month + in_month) * DAY + c->at;
}

static int64_t floor_days(int64_t time)
{
    return time >= 0 ? time / DAY : -((DAY - 1 - time) / DAY);
}

/* How many of the steps are over. */
static unsigned steps_until(const struct zone *z, int64_t time)
{
    unsigned low = 0, high = z->step_count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if ((int64_t)z->step_at[middle] * 60 <= time)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int32_t zone_offset(const struct zone *z, int64_t time)
{
    unsigned steps = steps_until(z, time);
    if (steps && steps < z->step_count)
        return z->step_offset[steps - 1] * 60;
    if (!z->summer)
        return z->offset;
    struct civil day;
    civil_date(floor_days(time + z->offset), &day);
    int64_t begins = change_in(&z->begins, day.year) - z->offset;
    int64_t ends = change_in(&z->ends, day.year) - z->summer_offset;
    bool summer = begins < ends ? time >= begins && time < ends : time >= begins || time < ends;
    return summer ? z->summer_offset : z->offset;
}

struct civil zone_civil(const struct zone *z, int64_t time)
{
    struct civil c;
    int64_t local = time + zone_offset(z, time), days = floor_days(local);
    int64_t rest = local - days * DAY;
    civil_date(days, &c);
    c.hour = (int)(rest / 3600);
    c.minute = (int)(rest / 60 % 60);
    c.second = (int)(rest % 60);
    return c;
}

int64_t zone_time(const struct zone *z, const struct civil *c)
{
    int64_t local = civil_days(c->year, c->month, 1) * DAY + (int64_t)(c->day - 1) * DAY +
                    c->hour * 3600 + c->minute * 60 + c->second;
    int32_t most = z->offset, least = z->offset;
    if (z->summer && z->summer_offset > most)
        most = z->summer_offset;
    if (z->summer && z->summer_offset < least)
        least = z->summer_offset;
    if (z->step_count) { /* those around it: no two changes are within two days */
        const int32_t before = zone_offset(z, local - DAY), after = zone_offset(z, local + DAY);
        most = before > after ? before : after;
        least = before > after ? after : before;
    }
    if (zone_offset(z, local - most) == most)
        return local - most;
    return local - least;
}

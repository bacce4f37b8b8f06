#include "mail/date.h"

#include <stdio.h>
#include <time.h>

#include "core/clock.h"

/* strftime would take the names from the locale. */
static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

/* A zone's abbreviation goes into a comment: letters only. */
static bool zone_is_plain(const char *zone)
{
    struct slice s = slice_str(zone);
    for (size_t i = 0; i < s.len; i++)
        if (!((s.ptr[i] | 32) >= 'a' && (s.ptr[i] | 32) <= 'z'))
            return false;
    return s.len > 0 && s.len < 8;
}

struct slice mail_date(int64_t wall)
{
    /* many messages share a second */
    static _Thread_local char text[80];
    static _Thread_local size_t len;
    static _Thread_local time_t made_for;
    time_t now = (time_t)(wall / CLOCK_SECOND);
    if (len && now == made_for)
        return slice_make(text, len);
    struct tm t;
    if (!localtime_r(&now, &t))
        t = (struct tm){.tm_mday = 1, .tm_year = 70, .tm_wday = 4, .tm_zone = "UTC"};
    long minutes = t.tm_gmtoff / 60;
    long away = minutes < 0 ? -minutes : minutes;
    bool plain = zone_is_plain(t.tm_zone);
    int n = snprintf(text, sizeof text, "%s, %02d %s %04d %02d:%02d:%02d %c%02ld%02ld%s%s%s",
                     days[t.tm_wday], t.tm_mday, months[t.tm_mon], 1900 + t.tm_year, t.tm_hour,
                     t.tm_min, t.tm_sec, minutes < 0 ? '-' : '+', away / 60, away % 60,
                     plain ? " (" : "", plain ? t.tm_zone : "", plain ? ")" : "");
    len = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    made_for = now;
    return slice_make(text, len);
}

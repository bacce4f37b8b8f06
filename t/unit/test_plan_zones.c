/* libraries: postern_core postern_plan */
/* Time zones, and the periods of plans in them. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "plan/tzfile.h"
#include "plan_world.h"

static void test_zone_rules(void **state)
{
    static const char *const bad[] = {"",
                                      "C",
                                      "CET",
                                      "CET-",
                                      "CET-1CEST",
                                      "CET-168",
                                      "CET-1CEST,M13.1.0,M1.1.0",
                                      "CET-1CEST,M3.5.0",
                                      "CET-1CEST,M3.5.0,M10.5.0/",
                                      "<CET-1",
                                      "UTC0x",
                                      "CET-1CEST,J0,J5",
                                      "CET-1:60"};
    struct zone z;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (zone_parse(slice_str(bad[i]), &z) == 0)
            fail_msg("\"%s\" was taken", bad[i]);
}

/* The C library knows the same rules. */
static void test_zones_agree_with_the_c_library(void **state)
{
    static const char *const rules[] = {"CET-1CEST,M3.5.0,M10.5.0/3",
                                        "EST5EDT,M3.2.0,M11.1.0",
                                        "AEST-10AEDT,M10.1.0,M4.1.0/3",
                                        "IST-5:30",
                                        "<-02>2<-01>,M3.5.0/-1,M10.5.0/0",
                                        "XXX3YYY,J60,J300/1",
                                        "XXX3YYY,59,299/-2:30"};
    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        struct zone z;
        assert_int_equal(zone_parse(slice_str(rules[i]), &z), 0);
        setenv("TZ", rules[i], 1);
        tzset();
        for (int64_t t = 1700000000; t < 1700000000 + 5 * 366 * 86400LL; t += 1741) {
            time_t when = (time_t)t;
            struct tm tm;
            localtime_r(&when, &tm);
            struct civil c = zone_civil(&z, t);
            if (tm.tm_gmtoff != zone_offset(&z, t) || tm.tm_mday != c.day || tm.tm_hour != c.hour ||
                tm.tm_mon + 1 != c.month || tm.tm_year + 1900 != c.year || tm.tm_wday != c.weekday)
                fail_msg("%s at %lld: %ld and %d", rules[i], (long long)t, (long)tm.tm_gmtoff,
                         zone_offset(&z, t));
        }
    }
    unsetenv("TZ");
    tzset();
}

/* ...and the same files. Morocco changes in Ramadan, by no rule; Ireland's winter time is the one
 * that is another; Nuuk has changed its mind; Troll is two hours apart. */
static void test_zones_of_files_agree_with_the_c_library(void **state)
{
    static const char *const names[] = {"Africa/Casablanca",  "Africa/El_Aaiun", "Europe/Berlin",
                                        "Europe/Dublin",      "America/Nuuk",    "Asia/Kolkata",
                                        "Antarctica/Troll",   "Africa/Cairo",    "Asia/Gaza",
                                        "Australia/Lord_Howe"};
    const int64_t from = 1767225600, until = 2524608000; /* 2026 to 2050 */
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct zone z;
        char text[ZONE_TEXT_MAX];
        assert_int_equal(tzfile_lookup(names[i], text, sizeof text, NULL), 0);
        assert_int_equal(zone_parse(slice_str(text), &z), 0);
        setenv("TZ", names[i], 1);
        tzset();
        for (int64_t t = from; t < until; t += 1800) {
            time_t when = (time_t)t;
            struct tm tm;
            localtime_r(&when, &tm);
            struct civil c = zone_civil(&z, t);
            if (tm.tm_gmtoff != zone_offset(&z, t) || tm.tm_hour != c.hour)
                fail_msg("%s at %lld: %ld and %d", names[i], (long long)t, (long)tm.tm_gmtoff,
                         zone_offset(&z, t));
            int64_t back = zone_time(&z, &c); /* of two the earlier */
            if (back != t && (back > t || zone_civil(&z, back).hour != c.hour))
                fail_msg("%s at %lld: it comes back as %lld", names[i], (long long)t,
                         (long long)back);
        }
    }
    unsetenv("TZ");
    tzset();
}

static void test_steps_and_files_that_are_none(void **state)
{
    static const char *const bad[] = {
        "UTC0 ",        "UTC0 1",       "UTC0 1=",      "UTC0 =1",
        "UTC0 2=0 1=0", "UTC0 1=0 1=0", "UTC0 1=99999", "UTC0 1=0  2=0"};
    struct zone z;
    char file[TZFILE_MAX], text[ZONE_TEXT_MAX];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (zone_parse(slice_str(bad[i]), &z) == 0)
            fail_msg("\"%s\" was taken", bad[i]);
    assert_int_equal(zone_parse(slice_str("UTC0 100=-60 200=0"), &z), 0);
    assert_int_equal(zone_offset(&z, 5999), 0);
    assert_int_equal(zone_offset(&z, 6000), -3600);
    assert_int_equal(zone_offset(&z, 12000), 0);
    /* every beginning of a file is refused, and is not read beyond its end */
    FILE *f = fopen("/usr/share/zoneinfo/Africa/Casablanca", "rb");
    assert_non_null(f);
    size_t len = fread(file, 1, sizeof file, f);
    fclose(f);
    assert_int_equal(tzfile_rule(slice_make(file, len), text, sizeof text), 0);
    assert_non_null(strchr(text, '='));
    for (size_t n = 0; n + 9 < len; n++) {
        char *part = memcpy(malloc(n + 1), file, n);
        assert_int_equal(tzfile_rule(slice_make(part, n), text, sizeof text), -1);
        free(part);
    }
}

/* 2026-03-29 has 23 hours in Berlin, 2026-10-25 has 25. */
static void test_days_of_23_and_25_hours(void **state)
{
    struct plan p = parsed("period = day\nzone = \"Europe/Berlin\"");
    (void)state;
    struct period spring = plan_period_at(&p, 0, 1774782000); /* 2026-03-29 13:00 CEST */
    assert_int_equal(spring.end - spring.start, 23 * 3600);
    struct period autumn = plan_period_at(&p, 0, 1792926000); /* 2026-10-25 */
    assert_int_equal(autumn.end - autumn.start, 25 * 3600);
}

static void test_anniversary_of_the_31st(void **state)
{
    struct plan p = parsed("period = month\nanchor = anniversary\nzone = UTC");
    char text[64];
    (void)state;
    int64_t began = 1769817600;                              /* 2026-01-31 */
    struct period r = plan_period_at(&p, began, 1771000000); /* 2026-02-13 */
    print(text, &p, r.start);
    assert_string_equal(text, "2026-01-31 00:00 UTC");
    print(text, &p, r.end);
    assert_string_equal(text, "2026-02-28 00:00 UTC");
    r = plan_period_at(&p, began, r.end);
    print(text, &p, r.end);
    assert_string_equal(text, "2026-03-31 00:00 UTC");
}

/* Periods follow each other without gap or overlap, whatever the zone. */
static void test_periods_are_a_partition(void **state)
{
    static const char *const zone_names[] = {
        "UTC",          "Europe/Berlin", "America/New_York", "Australia/Sydney",
        "Asia/Kolkata", "America/Nuuk"};
    static const char *const kinds[] = {"day", "week", "month", "year"};
    (void)state;
    srandom(7);
    for (int round = 0; round < 2000; round++) {
        char options[200];
        snprintf(options, sizeof options, "period = %s\nanchor = %s\nzone = \"%s\"",
                 kinds[random() % 4], random() % 2 ? "calendar" : "anniversary",
                 zone_names[random() % 6]);
        struct plan p = parsed(options);
        int64_t began = random() % 2000000000, t = random() % 4000000000LL;
        struct period r = plan_period_at(&p, began, t);
        if (!(r.start <= t && t < r.end))
            fail_msg("%s: %lld is not in %lld..%lld", options, (long long)t, (long long)r.start,
                     (long long)r.end);
        struct period next = plan_period_at(&p, began, r.end);
        struct period same = plan_period_at(&p, began, r.end - 1);
        assert_int_equal(next.start, r.end);
        assert_int_equal(same.start, r.start);
        assert_int_equal(same.end, r.end);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zone_rules),
        cmocka_unit_test(test_zones_agree_with_the_c_library),
        cmocka_unit_test(test_zones_of_files_agree_with_the_c_library),
        cmocka_unit_test(test_steps_and_files_that_are_none),
        cmocka_unit_test(test_days_of_23_and_25_hours),
        cmocka_unit_test(test_anniversary_of_the_31st),
        cmocka_unit_test(test_periods_are_a_partition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: postern_core postern_plan */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/mem.h"
#include "plan/charge.h"
#include "unit.h"

static int zones(const char *name, char *out, size_t size, void *arg)
{
    static const struct {
        const char *name, *rule;
    } known[] = {{"UTC", "UTC0"},
                 {"Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"},
                 {"America/New_York", "EST5EDT,M3.2.0,M11.1.0"},
                 {"Australia/Sydney", "AEST-10AEDT,M10.1.0,M4.1.0/3"},
                 {"Asia/Kolkata", "IST-5:30"},
                 {"America/Nuuk", "<-02>2<-01>,M3.5.0/-1,M10.5.0/0"}};
    (void)arg;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, name) == 0) {
            snprintf(out, size, "%s", known[i].rule);
            return 0;
        }
    return -1;
}

static struct plan parsed(const char *options)
{
    struct plans all;
    struct err e = {0, ""};
    char *text = xasprintf("plan p {\n%s\n}\n", options);
    if (plans_parse(slice_str(text), "plans.conf", zones, NULL, &all, &e) < 0)
        fail_msg("%s", e.text);
    free(text);
    assert_int_equal(all.count, 1);
    struct plan p = all.list[0];
    plans_free(&all);
    return p;
}

/* ---- zones and periods --------------------------------------------------------- */

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
            time_t now = (time_t)t;
            struct tm tm;
            localtime_r(&now, &tm);
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

static void print(char out[64], const struct plan *p, int64_t t)
{
    struct buf b = BUF_INIT(64);
    plan_print_time(&b, p, t);
    snprintf(out, 64, "%.*s", SLICE_ARG(buf_slice(&b)));
    buf_free(&b);
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

/* ---- the rows of what relay services offer ------------------------------------------ */

static const int64_t now = 1774782000;

static struct plan_usage fresh(const struct plan *p)
{
    return (struct plan_usage){.period = plan_period_at(p, 0, now)};
}

static void test_delivered_ones_only_and_blocks_of_1000(void **state)
{
    struct plan p = parsed("messages = 5000\nat_limit = surcharge\noverage = block:1000");
    struct plan_usage u = fresh(&p);
    struct volume one = plan_cost(&p, 4000, 1);
    (void)state;
    for (int i = 0; i < 5100; i++)
        plan_charge(&p, &u, NULL, 0, one, now);
    assert_int_equal(plan_overage_blocks(&u.terms, &u), 1);
    assert_int_equal(plan_check(&p, &u, NULL, 0, (struct volume){0, 0}, one, now), PLAN_OVERAGE);
    for (int i = 0; i < 100; i++) /* bounced: not counted after all */
        plan_refund(&p, &u, NULL, 0, one);
    assert_int_equal(plan_overage_blocks(&u.terms, &u), 0);
    assert_int_equal(u.charged.messages, 5000);
    plan_charge(&p, &u, NULL, 0, plan_cost(&p, 1, 1001), now);
    assert_int_equal(plan_overage_blocks(&u.terms, &u), 2);
}

static void test_megabytes_with_a_minimum(void **state)
{
    static const struct {
        uint64_t size, messages;
    } rows[] = {{1000, 50000}, {10000, 50000}, {20000, 25000}, {50000, 10000}, {250000, 2000}};
    struct plan p = parsed("bytes = 500MB\nbyte_minimum = 10KB\nat_limit = block");
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct plan_usage u = fresh(&p);
        struct volume one = plan_cost(&p, rows[i].size, 1);
        assert_int_equal(plan_fit(&p, &u, NULL, 0, (struct volume){0, 0}, one, UINT32_MAX, now),
                         rows[i].messages);
        uint64_t sent = 0;
        while (plan_check(&p, &u, NULL, 0, (struct volume){0, 0}, one, now) == PLAN_ROOM) {
            plan_charge(&p, &u, NULL, 0, one, now);
            sent++;
        }
        assert_int_equal(sent, rows[i].messages);
    }
}

static void test_count_with_a_hard_stop_and_the_next_month(void **state)
{
    struct plan p = parsed("messages = 9000\nat_limit = block\nzone = \"Europe/Berlin\"");
    struct plan_usage u = fresh(&p);
    struct volume one = plan_cost(&p, 50000000, 1);
    (void)state;
    plan_charge(&p, &u, NULL, 0, plan_cost(&p, 50000000, 8999), now);
    assert_int_equal(plan_check(&p, &u, NULL, 0, (struct volume){0, 0}, one, now), PLAN_ROOM);
    assert_int_equal(plan_check(&p, &u, NULL, 0, one, one, now), PLAN_FULL);
    plan_charge(&p, &u, NULL, 0, one, now);
    assert_int_equal(plan_check(&p, &u, NULL, 0, (struct volume){0, 0}, one, now), PLAN_FULL);
    assert_int_equal(plan_percent(&p, &u, NULL, 0, now), 100);
    assert_true(plan_period_at(&p, 0, u.period.end).start == u.period.end);
}

/* of 5 GB with 2.6 used 2 GB; of 2 with 1.6 none; of 1 GB none */
static void test_unused_volume_is_credited_in_units(void **state)
{
    static const struct {
        uint64_t bought, used, credited;
    } rows[] = {{5000, 2600, 2000}, {2000, 1600, 0}, {1000, 0, 0}, {1000, 400, 0}, {2000, 0, 2000}};
    struct plan p = parsed("credit_unit = 500MB\ncredit_minimum = 2GB\ncredit_until = year");
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct grant g = {.amount = rows[i].bought * 1000000,
                          .used = rows[i].used * 1000000,
                          .unit = GRANT_BYTES,
                          .bought = true};
        assert_int_equal(plan_credit(&p, &g), rows[i].credited * 1000000);
        g.bought = false; /* a credit is not credited again */
        assert_int_equal(plan_credit(&p, &g), 0);
    }
    char text[64];
    print(text, &p, plan_calendar_end(&p, p.credit_until, now));
    assert_string_equal(text, "2027-01-01 00:00 UTC");
}

static void test_packages_are_used_by_their_ends(void **state)
{
    struct plan p = parsed("messages = 100\nat_limit = block");
    struct plan_usage u = fresh(&p);
    struct grant g[] = {{.id = 1, .amount = 50, .until = now + 200},
                        {.id = 2, .amount = 50, .until = now + 100},
                        {.id = 3, .amount = 50, .until = now + 50, .from = now + 10}};
    struct volume v = {.messages = 130};
    (void)state;
    plan_sort_grants(g, 3);
    plan_charge(&p, &u, g, 3, v, now);
    assert_int_equal(g[1].id, 2);
    assert_int_equal(g[1].used, 30); /* the one that ends first of those that have begun */
    assert_int_equal(plan_check(&p, &u, g, 3, (struct volume){0, 0}, (struct volume){70, 0}, now),
                     PLAN_ROOM);
    assert_int_equal(plan_check(&p, &u, g, 3, (struct volume){0, 0}, (struct volume){71, 0}, now),
                     PLAN_FULL);
    plan_charge(&p, &u, g, 3, (struct volume){.messages = 40}, now);
    assert_int_equal(g[1].used, 50);
    assert_int_equal(g[2].used, 20);
    plan_refund(&p, &u, g, 3, (struct volume){.messages = 30});
    assert_int_equal(g[2].used, 0);
    assert_int_equal(g[1].used, 40);
}

/* Blocks are of what they are said to be, also where messages and bytes are limited. */
static void test_blocks_of_a_plan_with_both_limits(void **state)
{
    static const struct {
        const char *overage;
        uint64_t blocks;
    } rows[] = {{"block:50KB", 6}, {"block:4", 2}, {"none", 0}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char options[100];
        snprintf(options, sizeof options, "messages = 5\nbytes = 100KB\noverage = %s",
                 rows[i].overage);
        struct plan p = parsed(options);
        struct plan_usage u = fresh(&p);
        plan_charge(&p, &u, NULL, 0, (struct volume){11, 362000}, now);
        assert_int_equal(plan_overage_blocks(&u.terms, &u), rows[i].blocks);
    }
    struct plan p = parsed("bytes = 100KB\noverage = block:50000"); /* of what it limits */
    struct plan_usage u = fresh(&p);
    plan_charge(&p, &u, NULL, 0, (struct volume){11, 160000}, now);
    assert_int_equal(plan_overage_blocks(&u.terms, &u), 2);
}

/* January on a plan of 1,000, or of 3 with a package; a bounce of it comes in February, when
 * the account has another plan and has bought another package. */
static void test_a_late_refund_leaves_what_came_since_alone(void **state)
{
    struct plan big = parsed("messages = 1000"), small = parsed("messages = 3");
    struct plan_usage january = fresh(&big), both;
    int64_t february = january.period.end;
    struct grant g[] = {{.id = (uint64_t)now * 1000000, .amount = 50, .until = now + 9999999},
                        {.id = (uint64_t)(february + 9) * 1000000,
                         .amount = 100,
                         .used = 40,
                         .until = now + 9999999}};
    (void)state;
    plan_charge(&big, &january, NULL, 0, (struct volume){.messages = 11}, now);
    plan_refund(&small, &january, g, 2, (struct volume){.messages = 1});
    assert_int_equal(g[0].used, 0);
    assert_int_equal(g[1].used, 40);
    assert_int_equal(plan_overage(&january.terms, &january).messages, 0);

    both = fresh(&small);
    plan_charge(&small, &both, g, 1, (struct volume){.messages = 11}, now);
    assert_int_equal(g[0].used, 8);
    plan_refund(&big, &both, g, 2, (struct volume){.messages = 1});
    assert_int_equal(g[0].used, 7);
    assert_int_equal(g[1].used, 40);
    assert_int_equal(both.granted.messages, 7);

    /* it ended meanwhile: what comes back does not go into another one */
    plan_refund(&big, &both, g + 1, 1, (struct volume){.messages = 1});
    assert_int_equal(g[1].used, 40);
    assert_int_equal(both.granted.messages, 6);

    /* nor where the record is of a version that did not know of which grant it took */
    both.taken_count = 0;
    plan_refund(&big, &both, g, 2, (struct volume){.messages = 2});
    assert_int_equal(g[0].used, 5);
    assert_int_equal(g[1].used, 40);
}

/* ---- properties ----------------------------------------------------------------- */

static uint64_t used_of(const struct grant *g, size_t n, uint8_t unit)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        if (g[i].unit == unit)
            sum += g[i].used;
    return sum;
}

/* Up to five, in the order in which they are used; how many. */
static size_t random_grants(struct grant g[static 5])
{
    size_t n = (size_t)random() % 6;
    for (size_t i = 0; i < n; i++)
        g[i] = (struct grant){.id = i,
                              .amount = (uint64_t)random() % 200,
                              .unit = random() % 2 ? GRANT_MESSAGES : GRANT_BYTES,
                              .from = now - 5,
                              .until = now + random() % 100};
    plan_sort_grants(g, n);
    return n;
}

/* Random charges and refunds: nothing is lost, invented, or used twice. */
static void test_random_sequences_keep_the_books(void **state)
{
    (void)state;
    srandom(42);
    for (int round = 0; round < 300; round++) {
        struct plan p = parsed("at_limit = block\nbyte_minimum = 10KB\noverage = block:10");
        p.messages = (uint64_t)random() % 300;
        p.bytes = random() % 2 ? (uint64_t)random() % 5000000 : 0;
        p.at_limit = (uint8_t)(random() % 3);
        struct plan_usage u = fresh(&p);
        struct grant g[5];
        struct volume open[400], sum = {0, 0};
        size_t n = random_grants(g), opened = 0;
        int64_t t = now;
        for (int step = 0; step < 400; step++, t += random() % 2) {
            if (opened && random() % 3 == 0) {
                size_t k = (size_t)random() % opened;
                sum.messages -= open[k].messages;
                sum.bytes -= open[k].bytes;
                plan_refund(&p, &u, g, n, open[k]);
                open[k] = open[--opened];
            } else {
                struct volume v =
                    plan_cost(&p, (uint64_t)random() % 40000, 1 + (uint64_t)random() % 4);
                enum plan_verdict verdict = plan_check(&p, &u, g, n, (struct volume){0, 0}, v, t);
                uint64_t fit = plan_fit(&p, &u, g, n, (struct volume){0, 0},
                                        plan_cost(&p, v.bytes / v.messages, 1), 100, t);
                if (p.at_limit == AT_LIMIT_BLOCK)
                    assert_int_equal(fit >= v.messages, verdict == PLAN_ROOM);
                if (verdict == PLAN_FULL)
                    continue;
                struct volume before = plan_overage(&u.terms, &u);
                plan_charge(&p, &u, g, n, v, t);
                struct volume after = plan_overage(&u.terms, &u);
                if (verdict == PLAN_ROOM &&
                    (after.messages > before.messages || after.bytes > before.bytes))
                    fail_msg("room was promised");
                sum.messages += v.messages;
                sum.bytes += v.bytes;
                open[opened++] = v;
            }
            assert_int_equal(u.charged.messages, sum.messages);
            assert_int_equal(u.charged.bytes, sum.bytes);
            assert_int_equal(u.granted.messages, used_of(g, n, GRANT_MESSAGES));
            assert_int_equal(u.granted.bytes, used_of(g, n, GRANT_BYTES));
            for (size_t i = 0; i < n; i++)
                assert_true(g[i].used <= g[i].amount);
            uint64_t over = p.messages && sum.messages > p.messages ? sum.messages - p.messages : 0;
            assert_int_equal(plan_overage(&u.terms, &u).messages + u.granted.messages, over);
            if (p.at_limit == AT_LIMIT_BLOCK)
                assert_true(opened == 0 || plan_percent(&p, &u, g, n, t) <= 100 || t > now);
        }
        while (opened) /* all given back: as if nothing had been */
            plan_refund(&p, &u, g, n, open[--opened]);
        assert_int_equal(u.charged.messages, 0);
        assert_int_equal(used_of(g, n, GRANT_MESSAGES) + used_of(g, n, GRANT_BYTES), 0);
    }
}

/* ---- the plan changes between a charge and its refund ---------------------------------- */

struct life {
    struct plan plans[3];
    struct plan_usage periods[3];
    struct grant grants[8];
    size_t grant_count;
    struct {
        struct volume cost;
        unsigned period;
    } open[300];
    size_t opened;
};

static void life_charge(struct life *l, unsigned period, int64_t t)
{
    const struct plan *p = &l->plans[random() % 3];
    struct volume v = {1 + (uint64_t)random() % 4, 0};
    v.bytes = v.messages * ((uint64_t)random() % 5000);
    plan_charge(p, &l->periods[period], l->grants, l->grant_count, v, t);
    l->open[l->opened].cost = v;
    l->open[l->opened++].period = period;
}

/* A refund, under whatever plan the account has by now. */
static void life_refund(struct life *l, unsigned running)
{
    size_t k = (size_t)random() % l->opened;
    unsigned period = l->open[k].period;
    struct volume cost = l->open[k].cost;
    struct plan_usage *u = &l->periods[period], before = *u;
    struct grant grants[8];
    uint64_t back[2] = {0, 0};
    memcpy(grants, l->grants, sizeof grants);
    plan_refund(&l->plans[random() % 3], u, l->grants, l->grant_count, cost);
    for (size_t i = 0; i < l->grant_count; i++) {
        const struct grant *g = &l->grants[i];
        assert_true(g->used <= grants[i].used); /* a refund never takes */
        back[g->unit] += grants[i].used - g->used;
        if (g->from >= u->period.end) /* bought since: as it was */
            assert_int_equal(g->used, grants[i].used);
    }
    assert_true(back[GRANT_MESSAGES] <= cost.messages && back[GRANT_BYTES] <= cost.bytes);
    assert_int_equal(before.granted.messages - u->granted.messages, back[GRANT_MESSAGES]);
    assert_int_equal(before.granted.bytes - u->granted.bytes, back[GRANT_BYTES]);
    assert_string_equal(before.terms.plan, u->terms.plan); /* billed as it was */
    assert_int_equal(before.terms.messages, u->terms.messages);
    if (period < running) {
        struct volume was = plan_overage(&before.terms, &before), is = plan_overage(&u->terms, u);
        assert_true(is.messages <= was.messages && is.bytes <= was.bytes);
    }
    l->open[k] = l->open[--l->opened];
}

static void life_check(const struct life *l)
{
    uint64_t messages = 0, bytes = 0;
    for (unsigned i = 0; i < 3; i++) {
        messages += l->periods[i].granted.messages;
        bytes += l->periods[i].granted.bytes;
        assert_true(l->periods[i].granted.messages <= l->periods[i].charged.messages);
    }
    assert_int_equal(messages, used_of(l->grants, l->grant_count, GRANT_MESSAGES));
    assert_int_equal(bytes, used_of(l->grants, l->grant_count, GRANT_BYTES));
    for (size_t i = 0; i < l->grant_count; i++)
        assert_true(l->grants[i].used <= l->grants[i].amount);
}

static void test_random_plan_changes_between_charge_and_refund(void **state)
{
    (void)state;
    srandom(4711);
    for (int round = 0; round < 300; round++) {
        struct life l = {.grant_count = 0};
        int64_t t = now;
        for (int i = 0; i < 3; i++) {
            l.plans[i] = parsed("at_limit = surcharge");
            l.plans[i].messages = random() % 3 ? (uint64_t)random() % 100 : 0;
            l.plans[i].bytes = random() % 2 ? (uint64_t)random() % 200000 : 0;
            l.plans[i].name[0] = (char)('a' + i);
        }
        for (unsigned running = 0; running < 3; running++, t = l.periods[running - 1].period.end) {
            l.periods[running].period = plan_period_at(&l.plans[0], 0, t);
            for (int step = 0; step < 80; step++) {
                if (random() % 20 == 0 && l.grant_count < 8) {
                    l.grants[l.grant_count++] =
                        (struct grant){.id = (uint64_t)t * 1000000 + l.grant_count,
                                       .amount = (uint64_t)random() % 50000,
                                       .unit = random() % 2 ? GRANT_MESSAGES : GRANT_BYTES,
                                       .from = t,
                                       .until = t + random() % 9999999};
                    plan_sort_grants(l.grants, l.grant_count);
                }
                if (l.opened && random() % 3 == 0)
                    life_refund(&l, running);
                else
                    life_charge(&l, running, t);
                life_check(&l);
            }
        }
        while (l.opened)
            life_refund(&l, 3);
        life_check(&l); /* all given back: as if nothing had been */
        assert_int_equal(used_of(l.grants, l.grant_count, GRANT_MESSAGES), 0);
        assert_int_equal(used_of(l.grants, l.grant_count, GRANT_BYTES), 0);
    }
}

static void test_numbers_never_wrap(void **state)
{
    struct plan p = parsed("messages = 10\nat_limit = block");
    struct plan_usage u = fresh(&p);
    (void)state;
    struct volume huge = plan_cost(&p, UINT64_MAX, UINT32_MAX);
    assert_true(huge.bytes == UINT64_MAX);
    plan_charge(&p, &u, NULL, 0, huge, now);
    plan_charge(&p, &u, NULL, 0, huge, now);
    assert_true(u.charged.bytes == UINT64_MAX);
    assert_int_equal(plan_check(&p, &u, NULL, 0, huge, huge, now), PLAN_FULL);
    plan_refund(&p, &u, NULL, 0, huge);
    plan_refund(&p, &u, NULL, 0, huge);
    plan_refund(&p, &u, NULL, 0, huge);
    assert_true(u.charged.bytes == 0 && u.charged.messages == 0);
}

/* ---- plans.conf ------------------------------------------------------------------- */

static void test_B84_B88_mistakes_name_file_and_line(void **state)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"plan a {\n messages = 10O\n}\n", "plans.conf:2: messages = 10O: give a number"},
        {"plan a {\n bytes = 5XB\n}\n", "plans.conf:2: bytes = 5XB"},
        {"plan a {\n colour = red\n}\n", "plans.conf:2: no such option"},
        {"plan a {\n messages = 1\n messages = 2\n}\n", "plans.conf:3: messages is given twice"},
        {"plan a {\n alerts = {80}\n alerts = {90}\n}\n", "plans.conf:3: alerts is given twice"},
        {"plan a {\n alerts = {90, 80}\n}\n", "plans.conf:2: alerts = 80"},
        {"plan a {\n alerts = {80}\n alerts = {80}\n}\n", "plans.conf:3: alerts is given twice"},
        {"plan a {\n}\nplan a {\n}\n", "plans.conf:"},
        {"plan a {\n zone = \"Mars/Olympus\"\n}\n", "plans.conf:2: zone = Mars/Olympus"},
        {"plan a {\n at_limit = stop\n}\n", "give allow, surcharge or block"},
        {"plan a {\n user_rate = {1/day, 2/day, 3/day, 4/day, 5/day}\n}\n",
         "plans.conf:2: user_rate"},
        {"plan a {\n messages = -1\n}\n", "plans.conf:2: messages = -1"},
        {"plan a {\n messages = 99999999999999999999\n}\n", "plans.conf:2: messages"},
        {"plan a {\n messages = 5\n overage = block:50KB\n}\n",
         "plan a: overage: blocks of bytes need a limit in bytes"},
        {"plan \"\" {\n}\n", "a name has"},
        {"plan a {\n messages = 1\n", "plans.conf"},
        {"include(\"x\")\n", "plans.conf:1"},
        {"plan a {\n source = \"${HOME}\"\n}\n", "plans.conf:2: '$'"},
        {"period = day\n", "plans.conf:1: no such option"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct plans all;
        struct err e = {0, ""};
        if (plans_parse(slice_str(cases[i].text), "plans.conf", zones, NULL, &all, &e) == 0)
            fail_msg("taken: %s", cases[i].text);
        if (!strstr(e.text, cases[i].error))
            fail_msg("\"%s\" has not \"%s\"", e.text, cases[i].error);
        assert_int_equal(all.count, 0);
    }
}

static void test_shipped_plans(void **state)
{
    static char text[65536];
    struct plans all;
    struct err e = {0, ""};
    (void)state;
    FILE *f = fopen("etc/plans.conf", "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    if (plans_parse(slice_make(text, n), "plans.conf", zones, NULL, &all, &e) < 0)
        fail_msg("%s", e.text);
    const struct plan *p = plans_find(&all, SLICE("mailbox"));
    assert_int_equal(p->user_rates[0].count, 50);
    assert_int_equal(p->user_rates[0].unit, RATE_DAY);
    assert_int_equal(p->user_rates[1].count, 200);
    assert_int_equal(p->user_rates[1].unit, RATE_MONTH);
    assert_int_equal(p->recipient_limit, 50);
    assert_int_equal(p->size_limit, 50000000);
    p = plans_find(&all, SLICE("small-shop"));
    assert_int_equal(p->recipient_limit, 1);
    assert_int_equal(p->rate_action, RATE_QUEUE);
    assert_int_equal(p->account_rates[0].count, 50);
    p = plans_find(&all, SLICE("dedicated"));
    assert_string_equal(p->source, "dedicated-1");
    assert_int_equal(p->end_warnings[0], 30);
    assert_int_equal(p->end_warnings[2], 1);
    assert_int_equal(p->spike_action, SPIKE_HOLD);
    p = plans_find(&all, SLICE("business"));
    assert_int_equal(p->at_limit, AT_LIMIT_SURCHARGE);
    assert_int_equal(p->report_percent, 10);
    assert_int_equal(p->alert_percents[0], 80);
    assert_null(plans_find(&all, SLICE("none")));
    plans_free(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zone_rules),
        cmocka_unit_test(test_zones_agree_with_the_c_library),
        cmocka_unit_test(test_days_of_23_and_25_hours),
        cmocka_unit_test(test_anniversary_of_the_31st),
        cmocka_unit_test(test_periods_are_a_partition),
        cmocka_unit_test(test_delivered_ones_only_and_blocks_of_1000),
        cmocka_unit_test(test_megabytes_with_a_minimum),
        cmocka_unit_test(test_count_with_a_hard_stop_and_the_next_month),
        cmocka_unit_test(test_unused_volume_is_credited_in_units),
        cmocka_unit_test(test_packages_are_used_by_their_ends),
        cmocka_unit_test(test_random_sequences_keep_the_books),
        cmocka_unit_test(test_random_plan_changes_between_charge_and_refund),
        cmocka_unit_test(test_blocks_of_a_plan_with_both_limits),
        cmocka_unit_test(test_a_late_refund_leaves_what_came_since_alone),
        cmocka_unit_test(test_numbers_never_wrap),
        cmocka_unit_test(test_B84_B88_mistakes_name_file_and_line),
        cmocka_unit_test(test_shipped_plans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

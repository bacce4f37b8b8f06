/* libraries: postern_core postern_plan */
/* The rows of what relay services offer. */
#include "plan_world.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delivered_ones_only_and_blocks_of_1000),
        cmocka_unit_test(test_megabytes_with_a_minimum),
        cmocka_unit_test(test_count_with_a_hard_stop_and_the_next_month),
        cmocka_unit_test(test_unused_volume_is_credited_in_units),
        cmocka_unit_test(test_packages_are_used_by_their_ends),
        cmocka_unit_test(test_blocks_of_a_plan_with_both_limits),
        cmocka_unit_test(test_a_late_refund_leaves_what_came_since_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: qmgr_parts */
#include "core/clock.h"
#include "qmgr/shaper.h"
#include "unit.h"

static const struct shaper_limits limits = {.concurrency = 4,
                                            .initial = 2,
                                            .cohorts = 1,
                                            .suspend = 60 * CLOCK_SECOND,
                                            .suspend_max = 200 * CLOCK_SECOND};

/* How many jobs may start at once. */
static unsigned start_all(struct shaper *s, int64_t now)
{
    int64_t when;
    unsigned n = 0;
    while (shaper_room(s, now, &when) == SHAPER_GO) {
        shaper_started(s, now);
        n++;
    }
    return n;
}

static void test_grows_with_success_up_to_the_limit(void **state)
{
    struct shaper s;
    int64_t when;
    (void)state;
    shaper_init(&s, &limits);
    assert_int_equal(start_all(&s, 0), 2);
    assert_false(shaper_finished(&s, SHAPER_OK, 0));
    assert_int_equal(start_all(&s, 0), 2); /* the one that ended, and one more */
    for (int i = 0; i < 10; i++)
        shaper_finished(&s, SHAPER_OK, 0), start_all(&s, 0);
    assert_int_equal(s.in_flight, 4);
    assert_int_equal(shaper_room(&s, 0, &when), SHAPER_FULL);
}

static void test_a_round_of_failures_suspends(void **state)
{
    struct shaper s;
    int64_t when = 0;
    (void)state;
    shaper_init(&s, &limits);
    start_all(&s, 0);
    assert_false(shaper_finished(&s, SHAPER_FAILED, 10));
    assert_true(shaper_finished(&s, SHAPER_FAILED, 10));
    assert_int_equal(shaper_room(&s, 11, &when), SHAPER_SUSPENDED);
    assert_int_equal(when, 10 + limits.suspend);
}

static void test_probe_alone_after_a_suspension(void **state)
{
    struct shaper s;
    int64_t now = 0, when;
    (void)state;
    shaper_init(&s, &limits);
    start_all(&s, now);
    shaper_finished(&s, SHAPER_FAILED, now);
    shaper_finished(&s, SHAPER_FAILED, now);
    now += limits.suspend;
    assert_int_equal(start_all(&s, now), 1);
    assert_false(shaper_finished(&s, SHAPER_OK, now));
    assert_int_equal(start_all(&s, now), 3); /* initial, and one for the success */
    assert_int_equal(shaper_room(&s, now, &when), SHAPER_FULL);
}

static void test_suspensions_double_up_to_the_longest(void **state)
{
    static const int64_t expected[] = {60, 120, 200, 200};
    struct shaper s;
    int64_t now = 0;
    (void)state;
    shaper_init(&s, &limits);
    start_all(&s, now);
    shaper_finished(&s, SHAPER_FAILED, now);
    for (size_t i = 0; i < 4; i++) {
        if (i)
            start_all(&s, now);
        assert_true(shaper_finished(&s, SHAPER_FAILED, now));
        assert_int_equal(s.suspended_until - now, expected[i] * CLOCK_SECOND);
        now = s.suspended_until;
    }
}

static void test_stragglers_do_not_prolong_a_suspension(void **state)
{
    struct shaper s;
    (void)state;
    shaper_init(&s, &limits);
    s.window = 4;
    start_all(&s, 0);
    for (int i = 0; i < 4 && !shaper_finished(&s, SHAPER_FAILED, 0); i++)
        continue;
    int64_t until = s.suspended_until;
    while (s.in_flight)
        assert_false(shaper_finished(&s, SHAPER_FAILED, 5));
    assert_int_equal(s.suspended_until, until);
}

static void test_single_failures_among_successes_do_not_suspend(void **state)
{
    struct shaper s;
    (void)state;
    shaper_init(&s, &limits);
    for (int i = 0; i < 20; i++) {
        start_all(&s, 0);
        assert_false(shaper_finished(&s, SHAPER_OK, 0));
        start_all(&s, 0);
        assert_false(s.window > 1 && shaper_finished(&s, SHAPER_FAILED, 0));
    }
}

static void test_neutral_changes_nothing(void **state)
{
    struct shaper s;
    (void)state;
    shaper_init(&s, &limits);
    for (int i = 0; i < 50; i++) {
        start_all(&s, 0);
        assert_false(shaper_finished(&s, SHAPER_NEUTRAL, 0));
    }
    assert_int_equal(s.window, 2);
}

static void test_rate_delay(void **state)
{
    struct shaper_limits slow = limits;
    struct shaper s;
    int64_t when;
    (void)state;
    slow.rate_delay = 5 * CLOCK_SECOND;
    shaper_init(&s, &slow);
    assert_int_equal(start_all(&s, 0), 1);
    assert_int_equal(shaper_room(&s, 1, &when), SHAPER_LATER);
    assert_int_equal(when, 5 * CLOCK_SECOND);
    assert_int_equal(start_all(&s, 5 * CLOCK_SECOND), 1);
}

static void test_flush_ends_a_suspension(void **state)
{
    struct shaper s;
    (void)state;
    shaper_init(&s, &limits);
    start_all(&s, 0);
    shaper_finished(&s, SHAPER_FAILED, 0);
    shaper_finished(&s, SHAPER_FAILED, 0);
    shaper_unsuspend(&s);
    assert_int_equal(start_all(&s, 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grows_with_success_up_to_the_limit),
        cmocka_unit_test(test_a_round_of_failures_suspends),
        cmocka_unit_test(test_probe_alone_after_a_suspension),
        cmocka_unit_test(test_suspensions_double_up_to_the_longest),
        cmocka_unit_test(test_stragglers_do_not_prolong_a_suspension),
        cmocka_unit_test(test_single_failures_among_successes_do_not_suspend),
        cmocka_unit_test(test_neutral_changes_nothing),
        cmocka_unit_test(test_rate_delay),
        cmocka_unit_test(test_flush_ends_a_suspension),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

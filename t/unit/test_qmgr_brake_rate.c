/* libraries: qmgr_parts */
#include <math.h>

#include "core/clock.h"
#include "qmgr/brakes.h"
#include "unit.h"

#define SECOND CLOCK_SECOND

static struct brake brake_of(void)
{
    struct brake b = {0};
    shaper_times_init(&b.times, 1);
    return b;
}

/* The earliest time from `now` on at which one may go; it goes. */
static int64_t next_one(struct brake *b, int64_t now)
{
    while (!brake_rate_has_token(b, now))
        now += SECOND / 100;
    b->tokens -= 1;
    return now;
}

static void test_half_is_left_where_nothing_is_known(void **state)
{
    (void)state;
    struct brake b = brake_of();
    brake_rate_cut(&b, 100, 0, 0, SECOND);
    assert_true(fabs(b.rate - 50) < 0.01 && fabs(b.failed - 100) < 0.01);
}

/* What is refused because the other side has nothing in store yet says nothing of the rate. */
static void test_nothing_goes_just_after_a_cut(void **state)
{
    (void)state;
    struct brake b = brake_of();
    brake_rate_cut(&b, 100, 0, 0, SECOND);
    assert_false(brake_rate_has_token(&b, SECOND + b.pause - 1));
    int64_t when = next_one(&b, SECOND);
    assert_true(when >= SECOND + b.pause && when < SECOND + b.pause + SECOND);
}

static void test_refused_before_one_was_taken_it_waits_and_is_not_cut(void **state)
{
    (void)state;
    struct brake b = brake_of();
    int64_t now = SECOND;
    brake_rate_cut(&b, 100, 0, 0, now);
    double rate = b.rate;
    int64_t pause = b.pause;
    for (int i = 0; i < 20; i++) {
        now = next_one(&b, now);
        brake_rate_cut(&b, b.rate, 0, 0, now);
        assert_true(b.pause > pause || b.pause == b.times.knock_max);
        pause = b.pause;
    }
    assert_true(fabs(b.rate - rate) < 0.01);
    assert_int_equal(b.pause, b.times.knock_max);
}

/* A rule that names the rate is obeyed all the same. */
static void test_a_rate_that_is_given_holds_at_once(void **state)
{
    (void)state;
    struct brake b = brake_of();
    brake_rate_cut(&b, 100, 0, 0, SECOND);
    brake_rate_cut(&b, b.rate, 3, 0, 2 * SECOND);
    assert_true(fabs(b.rate - 3) < 0.01);
    brake_rate_taken(&b, 1);
    brake_rate_cut(&b, b.rate, 0, 0.1, 3 * SECOND);
    assert_true(fabs(b.rate - 0.3) < 0.01);
}

static void test_a_cut_is_by_what_was_taken(void **state)
{
    (void)state;
    struct brake b = brake_of();
    int64_t now = SECOND;
    brake_rate_cut(&b, 16, 0, 0, now);
    for (int i = 0; i < 600; i++) { /* 8 a second: every other one is taken */
        now = next_one(&b, now);
        brake_rate_taken(&b, i % 8 < 5);
    }
    brake_rate_cut(&b, b.rate, 0, 0, now);
    assert_true(b.rate > 4.3 && b.rate < 5 && b.failed < 5.1);
}

static void test_one_limit_is_left_alone_longer_each_time(void **state)
{
    (void)state;
    struct brake b = brake_of();
    int64_t now = SECOND, hold = 0;
    brake_rate_cut(&b, 16, 0, 0, now);
    for (int i = 0; i < 10; i++) {
        brake_rate_taken(&b, 1);
        brake_rate_cut(&b, 8, 0, 0.5, now += 600 * SECOND);
        assert_true(b.hold >= hold);
        hold = b.hold;
    }
    assert_int_equal(hold, 16 * b.times.hold);
    brake_rate_taken(&b, 1);
    brake_rate_cut(&b, 2, 0, 0.5, now += 600 * SECOND); /* another limit */
    assert_int_equal(b.hold, b.times.hold);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_is_left_where_nothing_is_known),
        cmocka_unit_test(test_nothing_goes_just_after_a_cut),
        cmocka_unit_test(test_refused_before_one_was_taken_it_waits_and_is_not_cut),
        cmocka_unit_test(test_a_rate_that_is_given_holds_at_once),
        cmocka_unit_test(test_a_cut_is_by_what_was_taken),
        cmocka_unit_test(test_one_limit_is_left_alone_longer_each_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

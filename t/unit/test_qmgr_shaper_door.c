/* libraries: qmgr_parts */
/* The shaper: doors that are shut, suspensions and probes. */
#include <stdlib.h>

#include "shaper_rig.h"

/* ---- doors ------------------------------------------------------------------------------ */

static void test_a_shut_door_is_knocked_at_alone_and_ever_more_rarely(void **state)
{
    struct shaper_limits l = limits_of(100);
    struct shaper s;
    int64_t now = SECOND, when, last = 0;
    (void)state;
    shaper_init(&s, &l);
    shaper_started(&s, 1, now);
    tell(&s, SHAPER_TOO_FAST, now, now);
    for (int i = 0; i < 12; i++) {
        while (shaper_room(&s, now, &when) != SHAPER_GO)
            now = when;
        shaper_started(&s, 1, now);
        if (i > 0)
            assert_int_not_equal(shaper_room(&s, now + SECOND, &when), SHAPER_GO); /* alone */
        tell(&s, SHAPER_TOO_FAST, now, now);
        assert_true(i == 0 || s.suspend_time >= last);
        last = s.suspend_time;
    }
    assert_int_equal(last, l.times.knock_max);
    now = s.suspended_until;
    shaper_started(&s, 1, now);
    tell(&s, SHAPER_OK, now, now);
    assert_false(s.probing);
    assert_true(shaper_window(&s) >= 2);
}

/* A volume for each period: so many are taken, then nothing until the next one begins. */
static void play_volume(struct shaper *s, unsigned volume, int64_t period, int periods,
                        unsigned *taken, unsigned *refused)
{
    int64_t now = SECOND, when, end = now + periods * period;
    int64_t began = now;
    unsigned used = 0;
    *taken = *refused = 0;
    while (now < end) {
        if (shaper_room(s, now, &when) != SHAPER_GO) {
            now = when;
            continue;
        }
        while (now >= began + period) {
            began += period;
            used = 0;
        }
        bool ok = used < volume;
        used += ok;
        *taken += ok;
        *refused += !ok;
        shaper_started(s, 1, now);
        tell(s, ok ? SHAPER_OK : SHAPER_TOO_MUCH, now, now + 3000);
        now += 3000;
    }
}

static void test_a_volume_a_day_is_used_and_the_door_left_alone(void **state)
{
    struct shaper_limits l = limits_of(100);
    struct shaper s;
    unsigned taken, refused;
    (void)state;
    shaper_init(&s, &l);
    double rate = s.rate;
    play_volume(&s, 200, 30 * SECOND, 10, &taken, &refused);
    assert_true(taken > 9 * 200); /* each period's, or all but one */
    assert_true(refused < 40);    /* a knock or two a period, not one a second */
    assert_true(s.rate >= rate);  /* it says nothing about the rate */
    assert_true(s.periodic && llabs(s.period - 30 * SECOND) < 5 * SECOND);
}

/* Told to go when it is tried again at the first time that is allowed. */
static bool told_to_go(struct shaper *s, uint16_t rule, int64_t *now)
{
    struct shaper_report r = {.signal = SHAPER_GO_AWAY, .time = 3 * SECOND, .rule = rule};
    int64_t when;
    while (shaper_room(s, *now, &when) != SHAPER_GO)
        *now = when;
    r.started = *now;
    shaper_started(s, 1, *now);
    return shaper_finished(s, &r, *now);
}

static void test_told_to_stay_away(void **state)
{
    struct shaper_limits l = limits_of(100);
    struct shaper s;
    int64_t now = SECOND, when;
    (void)state;
    shaper_init(&s, &l);
    assert_false(told_to_go(&s, 1, &now)); /* short: messages stay in line */
    assert_int_equal(shaper_room(&s, now + 1, &when), SHAPER_LATER);
    assert_int_equal(when, 4 * SECOND);
    assert_false(told_to_go(&s, 1, &now));
    assert_int_equal(shaper_room(&s, now + 1, &when), SHAPER_LATER);
    assert_true(told_to_go(&s, 1, &now)); /* four times as long: they wait outside */
    assert_int_equal(shaper_room(&s, now + 1, &when), SHAPER_SUSPENDED);
}

static void test_told_to_stay_away_in_unknown_words(void **state)
{
    struct shaper_limits l = limits_of(100);
    struct shaper s;
    int64_t now = SECOND;
    (void)state;
    shaper_init(&s, &l);
    for (int i = 0; i < 10; i++)
        assert_false(told_to_go(&s, 0, &now)); /* it may be a restart: one knocks */
    assert_int_equal(s.suspend_time, l.times.knock_max);
}

static void test_a_round_of_failures_suspends(void **state)
{
    struct shaper_limits l = limits_of(1000);
    struct shaper s;
    int64_t when = 0;
    (void)state;
    shaper_init(&s, &l);
    start_all(&s, 1, SECOND);
    assert_false(tell(&s, SHAPER_UNREACHABLE, 1, 10));
    assert_true(tell(&s, SHAPER_UNREACHABLE, 1, 10));
    assert_int_equal(shaper_room(&s, 11, &when), SHAPER_SUSPENDED);
    assert_int_equal(when, 10 + l.suspend);
}

static void test_probe_alone_after_a_suspension(void **state)
{
    struct shaper_limits l = limits_of(1000);
    struct shaper s;
    int64_t now = 1;
    (void)state;
    shaper_init(&s, &l);
    start_all(&s, now, SECOND);
    tell(&s, SHAPER_UNREACHABLE, now, now);
    tell(&s, SHAPER_UNREACHABLE, now, now);
    now += l.suspend;
    assert_int_equal(start_all(&s, now, now + SECOND), 1);
    assert_false(tell(&s, SHAPER_OK, now, now));
    assert_true(start_all(&s, now, now + SECOND) >= 2);
}

static void test_suspensions_double_up_to_the_longest(void **state)
{
    static const int64_t expected[] = {60, 120, 200, 200};
    struct shaper_limits l = limits_of(1000);
    struct shaper s;
    int64_t now = 1;
    (void)state;
    shaper_init(&s, &l);
    start_all(&s, now, SECOND);
    tell(&s, SHAPER_UNREACHABLE, now, now);
    for (size_t i = 0; i < 4; i++) {
        if (i)
            start_all(&s, now, now);
        assert_true(tell(&s, SHAPER_UNREACHABLE, now, now));
        assert_int_equal(s.suspended_until - now, expected[i] * SECOND);
        now = s.suspended_until;
    }
}

static void test_stragglers_do_not_prolong_a_suspension(void **state)
{
    struct shaper_limits l = limits_of(1000);
    struct shaper s;
    (void)state;
    l.initial = 4;
    shaper_init(&s, &l);
    start_all(&s, 1, SECOND);
    tell(&s, SHAPER_GO_AWAY, 1, 2);
    int64_t until = s.suspended_until;
    assert_true(until > 2 && s.in_flight == 3);
    while (s.in_flight)
        assert_false(tell(&s, SHAPER_UNREACHABLE, 1, 5));
    assert_int_equal(s.suspended_until, until);
}

/* A server that lets in three and drops whoever else comes, without a word, is met for the first
 * time by ten: those that it serves are waited for. */
static void test_a_few_that_are_let_in_keep_the_lane_open(void **state)
{
    struct shaper_limits l = limits_of(1000);
    struct shaper s;
    int64_t when;
    (void)state;
    l.initial = l.concurrency = 10;
    shaper_init(&s, &l);
    assert_int_equal(start_all(&s, 1, SECOND), 10);
    for (int i = 0; i < 7; i++) {
        assert_false(tell(&s, SHAPER_UNREACHABLE, 1, 2 + i));
        assert_int_not_equal(shaper_room(&s, SECOND, &when), SHAPER_GO);
    }
    assert_false(tell(&s, SHAPER_OK, 1, SECOND));
    assert_int_equal(shaper_window(&s), 3);
    assert_int_equal(start_all(&s, SECOND, SECOND + l.times.hold / 2), 1);
    for (int i = 0; i < 3; i++)
        assert_false(tell(&s, SHAPER_OK, SECOND, 2 * SECOND));
    assert_int_equal(start_all(&s, 2 * SECOND, 2 * SECOND + l.times.hold / 2), 3);
    int64_t late = 3 * SECOND + l.times.hold;
    for (int i = 0; i < 3; i++)
        tell(&s, SHAPER_OK, late, late);
    assert_true(start_all(&s, late, late + l.times.hold) > 3); /* more are tried again */
}

static void test_nobody_let_in_suspends_when_the_last_one_has_failed(void **state)
{
    struct shaper_limits l = limits_of(1000);
    struct shaper s;
    (void)state;
    l.initial = l.concurrency = 10;
    shaper_init(&s, &l);
    assert_int_equal(start_all(&s, 1, SECOND), 10);
    for (int i = 0; i < 9; i++)
        assert_false(tell(&s, SHAPER_UNREACHABLE, 1, 2 + i));
    assert_int_equal(start_all(&s, SECOND, SECOND), 0); /* none is tried meanwhile */
    assert_true(tell(&s, SHAPER_UNREACHABLE, 1, SECOND));
    assert_int_equal(s.suspended_until, SECOND + l.suspend);
}

static void test_neutral_changes_nothing(void **state)
{
    struct shaper_limits l = limits_of(1000);
    struct shaper s;
    (void)state;
    shaper_init(&s, &l);
    for (int i = 1; i < 50; i++) {
        start_all(&s, i * SECOND, i * SECOND);
        assert_false(tell(&s, SHAPER_NEUTRAL, i * SECOND, i * SECOND));
    }
    assert_int_equal((int)s.window, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_shut_door_is_knocked_at_alone_and_ever_more_rarely),
        cmocka_unit_test(test_a_volume_a_day_is_used_and_the_door_left_alone),
        cmocka_unit_test(test_told_to_stay_away),
        cmocka_unit_test(test_told_to_stay_away_in_unknown_words),
        cmocka_unit_test(test_a_round_of_failures_suspends),
        cmocka_unit_test(test_probe_alone_after_a_suspension),
        cmocka_unit_test(test_suspensions_double_up_to_the_longest),
        cmocka_unit_test(test_stragglers_do_not_prolong_a_suspension),
        cmocka_unit_test(test_a_few_that_are_let_in_keep_the_lane_open),
        cmocka_unit_test(test_nobody_let_in_suspends_when_the_last_one_has_failed),
        cmocka_unit_test(test_neutral_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

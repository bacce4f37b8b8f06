/* libraries: qmgr_parts */
#include <math.h>

#include "shaper_rig.h"

/* ---- cuts on trial -------------------------------------------------------------------- */

static void try_cut(struct shaper *s, enum shaper_trial trial, int64_t now)
{
    struct shaper_report r = {.signal = SHAPER_TOO_FAST, .started = now - 1, .trial = trial};
    shaper_finished(s, &r, now);
}

static void fail_trial(struct shaper *s, int64_t now)
{
    struct shaper_report r = {.signal = SHAPER_NEUTRAL, .trial = SHAPER_TRIAL_FAILED};
    shaper_finished(s, &r, now);
}

static void test_a_cut_in_vain_is_undone(void **state)
{
    struct shaper_limits l = limits_of(100);
    struct shaper s;
    (void)state;
    shaper_init(&s, &l);
    try_cut(&s, SHAPER_TRIAL_UNPROVEN, SECOND);
    assert_true(shaper_on_trial(&s) && s.rate < 50);
    fail_trial(&s, 2 * SECOND);
    assert_true(fabs(s.rate - 100) < 0.01 && s.failed_rate <= 0 && !shaper_on_trial(&s));
}

/* What came meanwhile has a reason of its own, and stays. */
static void test_only_the_trial_is_undone(void **state)
{
    struct shaper_limits l = limits_of(100);
    struct shaper s;
    (void)state;
    shaper_init(&s, &l); /* a rule's cut */
    try_cut(&s, SHAPER_TRIAL_UNPROVEN, SECOND);
    s.taken = 5;
    tell(&s, SHAPER_TOO_FAST, 2 * SECOND, 2 * SECOND);
    double cut = s.rate;
    fail_trial(&s, 3 * SECOND);
    assert_true(fabs(s.rate - cut) < 0.01 && s.failed_rate > 0);

    shaper_init(&s, &l); /* the operator's word */
    try_cut(&s, SHAPER_TRIAL_UNPROVEN, SECOND);
    shaper_set(&s, 5, 0, 0, 2 * SECOND);
    fail_trial(&s, 3 * SECOND);
    assert_true(fabs(s.rate - 5) < 0.01);

    shaper_init(&s, &l); /* told to stay away */
    try_cut(&s, SHAPER_TRIAL_UNPROVEN, SECOND);
    tell(&s, SHAPER_GO_AWAY, 2 * SECOND, 2 * SECOND);
    cut = s.rate;
    fail_trial(&s, 3 * SECOND);
    assert_true(fabs(s.rate - cut) < 0.01);

    shaper_init(&s, &l); /* other limits: a reload */
    try_cut(&s, SHAPER_TRIAL_UNPROVEN, SECOND);
    cut = s.rate;
    shaper_end_trial(&s);
    fail_trial(&s, 3 * SECOND);
    assert_true(fabs(s.rate - cut) < 0.01);
}

/* Refusals that nobody understands may be chance: two in a row shut no door. */
static void test_an_unproven_trial_shuts_no_door(void **state)
{
    struct shaper_limits l = limits_of(100);
    struct shaper s;
    int64_t when;
    (void)state;
    shaper_init(&s, &l);
    try_cut(&s, SHAPER_TRIAL_UNPROVEN, SECOND);
    try_cut(&s, SHAPER_TRIAL_UNPROVEN, 2 * SECOND);
    assert_int_equal(shaper_room(&s, 3 * SECOND, &when), SHAPER_GO);
    try_cut(&s, SHAPER_TRIAL_PROVEN, 4 * SECOND);
    assert_int_equal(shaper_room(&s, 4 * SECOND, &when), SHAPER_LATER);
    assert_true(s.probing);
}

/* A refusal of before the cut does not begin a trial. */
static void test_no_cut_no_trial(void **state)
{
    struct shaper_limits l = limits_of(100);
    struct shaper s;
    (void)state;
    shaper_init(&s, &l);
    tell(&s, SHAPER_TOO_FAST, SECOND, SECOND);
    struct shaper_report r = {
        .signal = SHAPER_TOO_FAST, .started = SECOND / 2, .trial = SHAPER_TRIAL_UNPROVEN};
    shaper_finished(&s, &r, SECOND + 1);
    assert_false(shaper_on_trial(&s));
}

/* ---- messages on a connection --------------------------------------------------------------- */

static void test_messages_per_connection_are_learned(void **state)
{
    struct shaper_limits l = limits_of(100);
    struct shaper s;
    struct shaper_report r = {.signal = SHAPER_TOO_LONG, .use_count = 21};
    (void)state;
    l.messages = 100;
    shaper_init(&s, &l);
    assert_int_equal(shaper_messages(&s), 100);
    double rate = s.rate;
    shaper_finished(&s, &r, SECOND);
    assert_int_equal(shaper_messages(&s), 20);
    assert_true(fabs(s.rate - rate) < 0.001 && shaper_window(&s) == 2);
    r.use_count = 20; /* of which one had not been taken: it counts only those that were */
    r.taken_count = 18;
    shaper_finished(&s, &r, SECOND);
    assert_int_equal(shaper_messages(&s), 18);
    r.taken_count = 0;
    r.use_count = 25; /* one that was under way with the old limit */
    shaper_finished(&s, &r, SECOND);
    assert_int_equal(shaper_messages(&s), 18);
}

/* So many connections of a server that takes `limit` messages on each, until one is refused. */
static unsigned connections_until_refused(struct shaper *s, uint32_t limit)
{
    for (unsigned n = 1; n < 100000; n++) {
        uint32_t use = shaper_messages(s) <= limit ? shaper_messages(s) : limit + 1;
        struct shaper_report r = {
            .signal = use > limit ? SHAPER_TOO_LONG : SHAPER_OK, .recipients = 1, .use_count = use};
        shaper_finished(s, &r, SECOND);
        if (r.signal == SHAPER_TOO_LONG)
            return n;
    }
    return 0;
}

static void test_more_messages_are_tried_ever_more_rarely(void **state)
{
    struct shaper_limits l = limits_of(100);
    struct shaper s;
    (void)state;
    l.messages = 100;
    shaper_init(&s, &l);
    assert_int_equal(connections_until_refused(&s, 20), 1);
    unsigned first = connections_until_refused(&s, 20), second = connections_until_refused(&s, 20),
             third = connections_until_refused(&s, 20);
    assert_true(first * 20 > 2000); /* one refusal in so many messages */
    assert_true(second > 3 * first / 2 && third > 3 * second / 2);
    assert_int_equal(shaper_messages(&s), 20);
}

static void test_silent_closes_count_when_they_repeat(void **state)
{
    struct shaper_limits l = limits_of(100);
    struct shaper s;
    struct shaper_report r = {.signal = SHAPER_OK, .use_count = 1, .recipients = 1};
    (void)state;
    shaper_init(&s, &l);
    r.closed_after = 7;
    shaper_finished(&s, &r, SECOND);
    r.closed_after = 20;
    shaper_finished(&s, &r, SECOND);
    assert_int_equal(shaper_messages(&s), 0);
    shaper_finished(&s, &r, SECOND);
    assert_int_equal(shaper_messages(&s), 20);
}

/* ---- bounds, by hand ----------------------------------------------------------------------------
 */

static void test_rate_delay(void **state)
{
    struct shaper_limits l = limits_of(1000);
    struct shaper s;
    int64_t when;
    (void)state;
    l.rate_delay = 5 * SECOND;
    shaper_init(&s, &l);
    assert_int_equal(start_all(&s, 1, 1), 1);
    assert_int_equal(shaper_room(&s, 2, &when), SHAPER_LATER);
    assert_int_equal(when, 1 + 5 * SECOND);
}

static void test_by_hand(void **state)
{
    struct shaper_limits l = limits_of(100);
    struct shaper s;
    int64_t when;
    (void)state;
    shaper_init(&s, &l);
    shaper_keep_away(&s, 100 * SECOND, SECOND);
    assert_int_equal(shaper_room(&s, 2 * SECOND, &when), SHAPER_SUSPENDED);
    assert_int_equal(when, 100 * SECOND);
    shaper_unsuspend(&s);
    assert_int_equal(start_all(&s, 3 * SECOND, 3 * SECOND), 1);
    shaper_set(&s, 5, 3, 9, 4 * SECOND);
    assert_true(fabs(s.rate - 5) < 0.001);
    assert_int_equal(shaper_messages(&s), 9);
}

static void test_memory_survives_within_the_bounds(void **state)
{
    struct shaper_limits l = limits_of(10), narrow = limits_of(10);
    struct shaper s, t;
    struct shaper_memory m;
    (void)state;
    shaper_init(&s, &l);
    shaper_set(&s, 50, 4, 9, SECOND);
    shaper_remember(&s, &m);
    narrow.rate = 20;
    narrow.concurrency = 3;
    shaper_init(&t, &narrow);
    shaper_recall(&t, &m);
    assert_true(fabs(t.rate - 20) < 0.001);
    assert_int_equal(shaper_window(&t), 3);
    assert_int_equal(shaper_messages(&t), 9);
}

/* What came back for want of a connection gives back its own time, no more. */
static void test_a_returned_delivery_does_not_reset_the_pace(void **state)
{
    (void)state;
    struct shaper_limits l = limits_of(10);
    struct shaper s;
    int64_t now = 1000 * CLOCK_SECOND, when = 0;
    shaper_init(&s, &l);
    assert_int_equal(shaper_room(&s, now, &when), SHAPER_GO);
    shaper_started(&s, 5, now); /* half a second's worth */
    assert_int_equal(s.next_start, now + CLOCK_SECOND / 2);
    shaper_started(&s, 1, now); /* without asking: one more in line of the pace */
    shaper_returned(&s, 1, now, now + 1000);
    assert_int_equal(shaper_room(&s, now + 1000, &when), SHAPER_LATER);
    assert_int_equal(when, now + CLOCK_SECOND / 2);
    /* the pace of a cut is not shortened by what was started before it */
    shaper_started(&s, 5, now + CLOCK_SECOND);
    shaper_started(&s, 1, now + CLOCK_SECOND);
    tell(&s, SHAPER_TOO_FAST, now + CLOCK_SECOND, now + 2 * CLOCK_SECOND);
    int64_t after_cut = s.next_start;
    shaper_returned(&s, 5, now + CLOCK_SECOND, now + 2 * CLOCK_SECOND);
    assert_int_equal(s.next_start, after_cut);
}

/* 50 recipients a second for two minutes without any limit, then a refusal. */
static void test_the_first_cut_of_a_free_rate_is_measured(void **state)
{
    (void)state;
    struct shaper_limits l = limits_of(0);
    struct shaper s;
    int64_t now = 1000 * CLOCK_SECOND;
    l.rate = 0;
    shaper_init(&s, &l);
    for (int i = 0; i < 6000; i++, now += CLOCK_SECOND / 50) {
        shaper_started(&s, 1, now);
        tell(&s, SHAPER_OK, now, now);
    }
    shaper_started(&s, 1, now);
    tell(&s, SHAPER_TOO_FAST, now, now);
    assert_true(s.failed_rate > 45 && s.failed_rate < 55);
    assert_true(s.rate > 25 && s.rate < s.failed_rate);
}

static void test_too_little_to_measure_a_free_rate(void **state)
{
    (void)state;
    struct shaper_limits l = limits_of(0);
    struct shaper s;
    int64_t now = 1000 * CLOCK_SECOND;
    shaper_times_init(&l.times, 1);
    shaper_init(&s, &l);
    shaper_started(&s, 1, now);
    tell(&s, SHAPER_OK, now, now);
    shaper_started(&s, 1, now);
    tell(&s, SHAPER_TOO_FAST, now, now);
    assert_true(s.rate > 5 && s.rate < 7);
}

/* An idle lane is forgotten after an hour: not what was used of a day's cap, nor the pace of
 * one message in two hours. */
static void test_what_only_a_lane_knows_is_not_forgotten(void **state)
{
    (void)state;
    struct shaper_limits l = limits_of(1.0 / 7200);
    struct shaper s;
    int64_t now = 1000 * CLOCK_SECOND;
    shaper_times_init(&l.times, 1);
    shaper_init(&s, &l);
    assert_false(shaper_remembers(&s, now));
    shaper_started(&s, 1, now);
    assert_true(shaper_remembers(&s, now + 3700 * CLOCK_SECOND));
    assert_false(shaper_remembers(&s, now + 7300 * CLOCK_SECOND));
}

/* However long nothing was sent, and however short the period: reckoned, not counted through. */
static void test_a_door_left_alone_for_years_is_reckoned_at_once(void **state)
{
    (void)state;
    static const int64_t YEAR = INT64_C(365) * 86400 * CLOCK_SECOND;
    struct shaper_limits l = limits_of(10);
    struct shaper s;
    int64_t when = 0;
    for (int64_t period = 1; period <= 86400 * CLOCK_SECOND; period *= 60) {
        const int64_t opened = 1000 * CLOCK_SECOND, now = opened + 100 * YEAR;
        shaper_init(&s, &l);
        s.periodic = true;
        s.period = s.period_least = period;
        s.opened = s.opened_after = opened;
        shaper_started(&s, 1, now);
        (void)tell(&s, SHAPER_TOO_MUCH, now, now + 1);
        assert_int_not_equal(shaper_room(&s, now + 2, &when), SHAPER_GO);
        assert_true(when > now && when <= now + 2 * period + 4 * l.times.knock);
    }
    /* an hour's door is opened at the next full hour from the one that was seen */
    const int64_t hour = 3600 * CLOCK_SECOND, now = 1000 * hour + hour / 2;
    shaper_init(&s, &l);
    s.periodic = true;
    s.period = s.period_least = hour;
    s.opened = s.opened_after = hour;
    shaper_started(&s, 1, now);
    (void)tell(&s, SHAPER_TOO_MUCH, now, now);
    (void)shaper_room(&s, now + 1, &when);
    assert_int_equal(when, 1001 * hour);
}

/* A volume a day is used up, and it is known when the door opens: what waits goes back to
 * wait outside, as for any long suspension. */
static void test_a_door_shut_for_hours_is_a_suspension(void **state)
{
    (void)state;
    struct shaper_limits l = limits_of(10);
    struct shaper s;
    int64_t now = 100000 * CLOCK_SECOND, when = 0;
    shaper_init(&s, &l);
    s.periodic = true;
    s.period = s.period_least = INT64_C(86400) * CLOCK_SECOND;
    s.opened = s.opened_after = now;
    shaper_started(&s, 1, now);
    assert_true(tell(&s, SHAPER_TOO_MUCH, now, now + 1));
    assert_int_equal(shaper_room(&s, now + 2, &when), SHAPER_SUSPENDED);
    assert_true(when - now > 20 * 3600 * CLOCK_SECOND);
    shaper_init(&s, &l);
    shaper_started(&s, 1, now);
    assert_false(tell(&s, SHAPER_TOO_MUCH, now, now + 1)); /* a minute: its mail stays in line */
    assert_int_equal(shaper_room(&s, now + 2, &when), SHAPER_LATER);
}

static void test_a_lane_is_small(void **state)
{
    (void)state;
    assert_true(sizeof(struct shaper) < 600);
}

/* A rule's action = "set" is an answer to a refusal. */
static void test_a_value_never_raises_the_rate(void **state)
{
    struct shaper_limits l = limits_of(5);
    struct shaper s;
    (void)state;
    l.rate = 5;
    shaper_init(&s, &l);
    struct shaper_report r = {.signal = SHAPER_TOO_FAST, .started = SECOND, .value = 200};
    s.taken = 5;
    shaper_finished(&s, &r, SECOND); /* above the bound */
    assert_true(s.rate <= 5.001 && s.rate > 4.999 && s.failed_rate <= 5.001);
    r = (struct shaper_report){.signal = SHAPER_TOO_FAST, .started = 2 * SECOND, .value = 2};
    s.taken = 5;
    shaper_finished(&s, &r, 2 * SECOND);
    assert_true(fabs(s.rate - 2) < 0.001);
    r = (struct shaper_report){.signal = SHAPER_TOO_FAST, .started = 3 * SECOND, .value = 4};
    s.taken = 5;
    shaper_finished(&s, &r, 3 * SECOND); /* below it, but above what was refused */
    assert_true(fabs(s.rate - 2) < 0.001);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_value_never_raises_the_rate),
        cmocka_unit_test(test_a_cut_in_vain_is_undone),
        cmocka_unit_test(test_only_the_trial_is_undone),
        cmocka_unit_test(test_an_unproven_trial_shuts_no_door),
        cmocka_unit_test(test_no_cut_no_trial),
        cmocka_unit_test(test_messages_per_connection_are_learned),
        cmocka_unit_test(test_more_messages_are_tried_ever_more_rarely),
        cmocka_unit_test(test_silent_closes_count_when_they_repeat),
        cmocka_unit_test(test_rate_delay),
        cmocka_unit_test(test_a_door_left_alone_for_years_is_reckoned_at_once),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_memory_survives_within_the_bounds),
        cmocka_unit_test(test_a_returned_delivery_does_not_reset_the_pace),
        cmocka_unit_test(test_the_first_cut_of_a_free_rate_is_measured),
        cmocka_unit_test(test_too_little_to_measure_a_free_rate),
        cmocka_unit_test(test_what_only_a_lane_knows_is_not_forgotten),
        cmocka_unit_test(test_a_door_shut_for_hours_is_a_suspension),
        cmocka_unit_test(test_a_lane_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

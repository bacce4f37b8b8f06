/* libraries: qmgr_parts */
#include <math.h>
#include <stdlib.h>

#include "core/clock.h"
#include "qmgr/shaper.h"
#include "unit.h"

#define SECOND CLOCK_SECOND

static struct shaper_limits limits_of(double start_rate)
{
    struct shaper_limits l = {.concurrency = 4,
                              .initial = 2,
                              .cohorts = 1,
                              .suspend = 60 * SECOND,
                              .suspend_max = 200 * SECOND,
                              .unreachable_max = 200 * SECOND,
                              .start_rate = start_rate};
    shaper_times_init(&l.times, 60);
    return l;
}

static bool tell(struct shaper *s, enum shaper_signal signal, int64_t started, int64_t now)
{
    struct shaper_report r = {.signal = signal,
                              .started = started,
                              .recipients = signal == SHAPER_OK,
                              .use_count = 1,
                              .time = 3 * SECOND};
    return shaper_finished(s, &r, now);
}

/* How many deliveries may start at once, each at the earliest time that is allowed, up to
 * `until`. */
static unsigned start_all(struct shaper *s, int64_t now, int64_t until)
{
    int64_t when;
    unsigned n = 0;
    for (;;) {
        switch (shaper_room(s, now, &when)) {
        case SHAPER_GO:
            shaper_started(s, 1, now);
            n++;
            break;
        case SHAPER_LATER:
            if (when > until)
                return n;
            now = when;
            break;
        default:
            return n;
        }
    }
}

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

/* ---- concurrency ------------------------------------------------------------------- */

static void test_concurrency_grows_while_it_is_the_limit(void **state)
{
    struct shaper_limits l = limits_of(1000);
    struct shaper s;
    int64_t now = SECOND, when;
    (void)state;
    shaper_init(&s, &l);
    assert_int_equal(start_all(&s, now, now + SECOND), 2);
    for (int i = 0; i < 10; i++) {
        now += SECOND;
        tell(&s, SHAPER_OK, now - SECOND, now);
        start_all(&s, now, now + SECOND / 2);
    }
    assert_int_equal(s.in_flight, 4); /* not beyond what is configured */
    assert_int_equal(shaper_room(&s, now + SECOND, &when), SHAPER_FULL);
}

static void test_concurrency_does_not_grow_unused(void **state)
{
    struct shaper_limits l = limits_of(1000);
    struct shaper s;
    (void)state;
    shaper_init(&s, &l);
    for (int64_t now = SECOND; now < 60 * SECOND; now += SECOND) {
        shaper_started(&s, 1, now);
        tell(&s, SHAPER_OK, now, now + 1000);
    }
    assert_int_equal(shaper_window(&s), 2);
}

static void test_too_many_connections_cuts_concurrency_alone(void **state)
{
    struct shaper_limits l = limits_of(1000);
    struct shaper s;
    int64_t now = SECOND;
    (void)state;
    l.concurrency = l.initial = 10;
    shaper_init(&s, &l);
    start_all(&s, now, now + SECOND);
    assert_int_equal(s.in_flight, 10);
    double rate = s.rate;
    for (int i = 0; i < 3; i++) /* three of the ten were refused */
        tell(&s, SHAPER_TOO_MANY, now, now + SECOND);
    assert_int_equal(shaper_window(&s), 7);
    assert_true(s.rate >= rate);
    for (int i = 0; i < 7; i++)
        tell(&s, SHAPER_OK, now, now + 2 * SECOND);
    assert_int_equal(shaper_window(&s), 7); /* at once it is not tried again */
    for (now += 3 * SECOND; now < 10 * SECOND; now += SECOND) {
        start_all(&s, now, now + SECOND / 2);
        while (s.in_flight)
            tell(&s, SHAPER_OK, now, now + SECOND);
    }
    assert_int_equal(shaper_window(&s), 8); /* but later, one more */
}

/* Seconds in which a server with so many places has all of them busy; each
 * delivery takes one second, refusals come at once. */
static unsigned play_places(struct shaper *s, uint32_t places, unsigned from, unsigned until,
                            unsigned *refused)
{
    unsigned busy = 0;
    *refused = 0;
    for (int64_t now = from * SECOND; now < until * SECOND; now += SECOND) {
        uint32_t open = 0;
        int64_t when = now, at = now;
        while (at < now + SECOND) {
            if (shaper_room(s, at, &when) != SHAPER_GO) {
                if (when <= at || when >= now + SECOND)
                    break;
                at = when;
                continue;
            }
            shaper_started(s, 1, at);
            if (open++ < places)
                continue;
            open--;
            (*refused)++;
            tell(s, SHAPER_TOO_MANY, at, at + 1);
        }
        busy += open >= places;
        while (s->in_flight) {
            struct shaper_report r = {.signal = SHAPER_OK,
                                      .started = at,
                                      .recipients = 1,
                                      .use_count = 1,
                                      .latency = (uint64_t)SECOND};
            shaper_finished(s, &r, now + SECOND);
        }
    }
    return busy;
}

static void test_a_slow_server_gets_its_connections_soon(void **state)
{
    struct shaper_limits l = limits_of(1000);
    struct shaper s;
    unsigned refused;
    (void)state;
    l.concurrency = 100;
    l.initial = 5;
    shaper_init(&s, &l);
    /* twice as many each second: not one more with all that come back together */
    assert_true(play_places(&s, 20, 1, 11, &refused) >= 6);
    assert_int_equal(refused, 1);
}

static void test_a_limit_of_connections_is_tried_ever_more_rarely(void **state)
{
    struct shaper_limits l = limits_of(1000);
    struct shaper s;
    unsigned first, later;
    (void)state;
    l.concurrency = 100;
    shaper_init(&s, &l);
    (void)play_places(&s, 10, 1, 61, &first);
    assert_true(first <= 5);
    assert_int_equal(s.window_hold, 4 * l.times.hold);
    (void)play_places(&s, 10, 61, 121, &later);
    assert_true(later <= 3);
    (void)play_places(&s, 16, 121, 181, &later); /* a raised one is found all the same */
    assert_true(shaper_window(&s) >= 15);
}

/* ---- rate ---------------------------------------------------------------------------- */

static void test_deliveries_are_paced(void **state)
{
    struct shaper_limits l = limits_of(10);
    struct shaper s;
    int64_t when;
    (void)state;
    l.rate = 10; /* and never more */
    shaper_init(&s, &l);
    shaper_started(&s, 1, SECOND);
    assert_int_equal(shaper_room(&s, SECOND + 1, &when), SHAPER_LATER);
    assert_int_equal(when, SECOND + SECOND / 10);
    shaper_started(&s, 5, when); /* recipients count, not messages */
    tell(&s, SHAPER_OK, SECOND, when);
    assert_int_equal(shaper_room(&s, when + 1, &when), SHAPER_LATER);
    assert_int_equal(when, SECOND + 6 * SECOND / 10);
}

static void test_the_rate_grows_only_while_it_binds(void **state)
{
    struct shaper_limits l = limits_of(10);
    struct shaper idle, busy;
    (void)state;
    shaper_init(&idle, &l);
    shaper_init(&busy, &l);
    for (int64_t now = SECOND; now < 11 * SECOND; now += 2 * SECOND) {
        shaper_started(&idle, 1, now);
        tell(&idle, SHAPER_OK, now, now);
    }
    assert_true(idle.rate < 10.5);
    int64_t now = SECOND, when;
    while (now < 3 * SECOND) {
        if (shaper_room(&busy, now, &when) == SHAPER_LATER)
            now = when;
        shaper_started(&busy, 1, now);
        tell(&busy, SHAPER_OK, now, now);
    }
    assert_true(busy.rate > 30 && busy.rate < 50); /* doubled in a second, twice */
}

static void test_one_cut_for_what_was_under_way_together(void **state)
{
    struct shaper_limits l = limits_of(100);
    struct shaper s;
    (void)state;
    shaper_init(&s, &l);
    start_all(&s, SECOND, 2 * SECOND);
    assert_int_equal(s.in_flight, 2);
    tell(&s, SHAPER_TOO_FAST, SECOND, 2 * SECOND);
    double rate = s.rate;
    assert_true(rate < 70);
    tell(&s, SHAPER_TOO_FAST, SECOND, 2 * SECOND + 1);
    assert_true(fabs(s.rate - rate) < 0.001);
}

/* Against a token bucket: `used` of what it gave in the time, and refusals. */
static void play_bucket(struct shaper *s, double limit, double burst, double seconds, double *used,
                        unsigned *refused)
{
    double tokens = burst, taken = 0;
    int64_t now = SECOND, filled = now, end = now + (int64_t)(seconds * 1e6), when;
    *refused = 0;
    while (now < end) {
        if (shaper_room(s, now, &when) != SHAPER_GO) {
            now = when;
            continue;
        }
        tokens = fmin(burst, tokens + (double)(now - filled) / 1e6 * limit);
        filled = now;
        bool ok = tokens >= 1;
        tokens -= ok;
        taken += ok;
        *refused += !ok;
        shaper_started(s, 1, now);
        tell(s, ok ? SHAPER_OK : SHAPER_TOO_FAST, now, now + 3000);
        now += 3000;
    }
    *used = taken / (limit * seconds);
}

static void test_a_rate_limit_is_found_and_kept(void **state)
{
    static const double buckets[][2] = {{80, 80}, {40, 20}, {20, 20}, {12, 6}};
    (void)state;
    for (size_t i = 0; i < sizeof buckets / sizeof buckets[0]; i++) {
        struct shaper_limits l = limits_of(10);
        struct shaper s;
        double used;
        unsigned refused;
        shaper_init(&s, &l);
        play_bucket(&s, buckets[i][0], buckets[i][1], 120, &used, &refused);
        assert_true(used > 0.90);
        assert_true(refused < 25);
    }
}

static void test_a_raised_limit_is_found_within_fifteen_minutes(void **state)
{
    struct shaper_limits l = limits_of(10);
    struct shaper s;
    double used;
    unsigned refused;
    (void)state;
    shaper_init(&s, &l);
    play_bucket(&s, 20, 20, 60, &used, &refused);
    struct shaper again = s;
    for (int i = 0; i < SHAPER_EVENTS; i++)
        again.events[i].when = 0;
    /* the clock of play_bucket begins anew */
    again.next_start = again.started_last = SECOND;
    again.rate_cut = 0;
    play_bucket(&again, 80, 80, 15, &used, &refused);
    assert_true(again.rate > 60);
}

/* ---- greylisting --------------------------------------------------------------------- */

/* Ten seconds in which one of `of` recipients is taken and the others are told to come
 * later; how many were taken, and how many tried. */
static void play_greylisting(struct shaper *s, unsigned of, unsigned *taken, unsigned *tried)
{
    int64_t now = SECOND, end = now + 10 * SECOND, when;
    *taken = *tried = 0;
    while (now < end) {
        if (shaper_room(s, now, &when) != SHAPER_GO) {
            now = when;
            continue;
        }
        bool take = (*tried)++ % of == 0;
        struct shaper_report r = {.signal = SHAPER_OK,
                                  .started = now,
                                  .recipients = take,
                                  .put_off = !take,
                                  .use_count = 1};
        shaper_started(s, 1, now);
        assert_false(shaper_finished(s, &r, now));
        *taken += take;
    }
}

static void test_what_is_put_off_takes_little_of_the_pace(void **state)
{
    struct shaper_limits l = limits_of(10);
    struct shaper s;
    unsigned taken, tried;
    (void)state;
    shaper_init(&s, &l);
    play_greylisting(&s, 5, &taken, &tried);
    assert_true(tried > 200 && tried < 300); /* 100 without that; 400 if it cost nothing else */
    assert_true(taken > 40 && taken < 60);
    assert_true(s.rate < 11); /* to be asked is not to be let in */
}

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
        cmocka_unit_test(test_concurrency_grows_while_it_is_the_limit),
        cmocka_unit_test(test_concurrency_does_not_grow_unused),
        cmocka_unit_test(test_too_many_connections_cuts_concurrency_alone),
        cmocka_unit_test(test_a_slow_server_gets_its_connections_soon),
        cmocka_unit_test(test_a_limit_of_connections_is_tried_ever_more_rarely),
        cmocka_unit_test(test_deliveries_are_paced),
        cmocka_unit_test(test_the_rate_grows_only_while_it_binds),
        cmocka_unit_test(test_one_cut_for_what_was_under_way_together),
        cmocka_unit_test(test_a_rate_limit_is_found_and_kept),
        cmocka_unit_test(test_a_raised_limit_is_found_within_fifteen_minutes),
        cmocka_unit_test(test_what_is_put_off_takes_little_of_the_pace),
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

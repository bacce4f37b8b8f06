/* libraries: qmgr_parts */
/* The shaper: how many recipients a second, and what is put off. */
#include <math.h>

#include "shaper_rig.h"

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
    assert_true(tried > 200 && tried < 350); /* 100 without that; 500 if it cost nothing else */
    assert_true(taken > 40 && taken < 70);
    assert_true(s.rate < 13); /* to be asked is not to be let in */
}

/* Everybody is put off once, and taken five seconds later, before new ones: until it has grown
 * more are put off than taken. */
static void test_the_rate_grows_where_everybody_is_put_off_once(void **state)
{
    enum { SECONDS = 30 };
    struct shaper_limits l = limits_of(10);
    struct shaper s;
    unsigned due[SECONDS + 6] = {0}, taken = 0;
    int64_t now = SECOND, end = SECONDS * SECOND, when;
    (void)state;
    shaper_init(&s, &l);
    while (now < end) {
        if (shaper_room(&s, now, &when) != SHAPER_GO) {
            now = when;
            continue;
        }
        int64_t at = now / SECOND, first = 0;
        while (first < at && due[first] == 0)
            first++;
        bool take = first < at;
        struct shaper_report r = {.signal = SHAPER_OK,
                                  .started = now,
                                  .recipients = take,
                                  .put_off = !take,
                                  .use_count = 1};
        shaper_started(&s, 1, now);
        assert_false(shaper_finished(&s, &r, now));
        due[first] -= take;
        due[at + 5] += !take;
        taken += take;
    }
    assert_true(s.rate > 60); /* 10 without that */
    assert_true(taken > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deliveries_are_paced),
        cmocka_unit_test(test_the_rate_grows_only_while_it_binds),
        cmocka_unit_test(test_one_cut_for_what_was_under_way_together),
        cmocka_unit_test(test_a_rate_limit_is_found_and_kept),
        cmocka_unit_test(test_a_raised_limit_is_found_within_fifteen_minutes),
        cmocka_unit_test(test_what_is_put_off_takes_little_of_the_pace),
        cmocka_unit_test(test_the_rate_grows_where_everybody_is_put_off_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

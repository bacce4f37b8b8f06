/* libraries: qmgr_parts */
/* The shaper: how many connections at a time. */
#include "shaper_rig.h"

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
    assert_true(play_places(&s, 20, 1, 10, &refused) >= 5);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_concurrency_grows_while_it_is_the_limit),
        cmocka_unit_test(test_concurrency_does_not_grow_unused),
        cmocka_unit_test(test_too_many_connections_cuts_concurrency_alone),
        cmocka_unit_test(test_a_slow_server_gets_its_connections_soon),
        cmocka_unit_test(test_a_limit_of_connections_is_tried_ever_more_rarely),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

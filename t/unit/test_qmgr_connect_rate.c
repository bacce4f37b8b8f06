/* libraries: qmgr_parts */
#include <math.h>

#include "core/clock.h"
#include "qmgr/connect_rate.h"
#include "unit.h"

#define SECOND CLOCK_SECOND
#define MINUTE (60 * SECOND)

static struct connect_bounds bounds(double rate)
{
    return (struct connect_bounds){.rate = rate, .growth = MINUTE, .hold = 6 * MINUTE};
}

/* Connections that are opened until `until`, if each delivery needs one and as many want
 * to start as may. */
static unsigned open_all(struct connect_rate *c, const struct connect_bounds *b, int64_t from,
                         int64_t until)
{
    unsigned opened = 0;
    int64_t now = from, when = 0;
    while (now < until) {
        if (!connect_rate_room(c, b, now, &when)) {
            assert_true(when > now);
            now = when;
            continue;
        }
        if (connect_rate_take(c, b, now)) {
            connect_rate_result(c, b, true, 1, now);
            opened++;
            now += SECOND / 100; /* as fast as it goes */
        } else {
            c->none_open = true; /* relay's answer */
        }
    }
    return opened;
}

static void test_no_limit_no_wait(void **state)
{
    struct connect_bounds b = bounds(0);
    struct connect_rate c = {0};
    int64_t when;
    (void)state;
    for (int64_t now = SECOND; now < 2 * SECOND; now += 1000) {
        assert_true(connect_rate_room(&c, &b, now, &when));
        assert_true(connect_rate_take(&c, &b, now));
        connect_rate_result(&c, &b, true, 1, now);
    }
}

static void test_no_more_than_configured(void **state)
{
    struct connect_bounds b = bounds(100.0 / 60);
    struct connect_rate c = {0};
    (void)state;
    unsigned first = open_all(&c, &b, SECOND, SECOND + MINUTE);
    assert_in_range(first, 100, 111); /* what may come at once is a tenth of a minute's */
    unsigned later = open_all(&c, &b, SECOND + MINUTE, SECOND + 3 * MINUTE);
    assert_in_range(later, 199, 202);
}

static void test_open_connections_cost_nothing(void **state)
{
    struct connect_bounds b = bounds(1);
    struct connect_rate c = {0};
    int64_t when;
    (void)state;
    for (int64_t now = SECOND; now < 5 * SECOND; now += 1000) {
        assert_true(connect_rate_room(&c, &b, now, &when));
        bool taken = connect_rate_take(&c, &b, now);
        connect_rate_result(&c, &b, taken, 0, now); /* relay had one that was open */
    }
    assert_true(c.tokens >= 1);
}

/* One delivery may need several: hosts that do not answer. */
static void test_more_than_one_for_a_delivery_is_made_up_for(void **state)
{
    struct connect_bounds b = bounds(1);
    struct connect_rate c = {0};
    int64_t now = SECOND, when;
    (void)state;
    assert_true(connect_rate_take(&c, &b, now));
    connect_rate_result(&c, &b, true, 10, now);
    c.none_open = true;
    assert_false(connect_rate_room(&c, &b, now, &when));
    assert_in_range(when - now, 4 * SECOND, 11 * SECOND);
}

/* What a delivery process says may be anything: the door opens again soon all the same. */
static void test_a_claim_of_billions_is_over_soon(void **state)
{
    static const double rates[] = {1.0 / 86400, 2.0 / 60, 1, 100};
    (void)state;
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        struct connect_bounds b = bounds(rates[i]);
        struct connect_rate c = {0};
        int64_t now = SECOND, when = 0;
        for (int k = 0; k < 1000; k++)
            connect_rate_result(&c, &b, connect_rate_take(&c, &b, now), UINT32_MAX, now);
        c.none_open = true;
        assert_false(connect_rate_room(&c, &b, now, &when));
        for (int k = 0; k < 3 && !connect_rate_room(&c, &b, when, &when); k++)
            continue;
        double longest = 61 > 3 / rates[i] ? 61 : 3 / rates[i]; /* a minute, or three tokens */
        assert_in_range(when - now, 1, (int64_t)(longest * 1.1 * (double)SECOND));
        assert_true(connect_rate_room(&c, &b, when, &when));
        assert_true(isfinite(c.recent));
    }
}

/* One a day: each small step of the clock adds to the token. */
static void test_small_steps_fill_a_token(void **state)
{
    struct connect_bounds b = bounds(1.0 / 86400);
    struct connect_rate c = {.none_open = true};
    int64_t when = 0, now = SECOND;
    (void)state;
    connect_rate_result(&c, &b, connect_rate_take(&c, &b, now), 1, now);
    for (int i = 0; i < 900000; i++) {
        c.none_open = true;
        (void)connect_rate_room(&c, &b, now += SECOND / 10, &when);
    }
    assert_true(connect_rate_room(&c, &b, now, &when));
}

static void test_a_refusal_is_learned_and_tried_beyond_later(void **state)
{
    struct connect_bounds b = bounds(0);
    struct connect_rate c = {0};
    int64_t now = SECOND;
    (void)state;
    for (int i = 0; i < 60; i++, now += SECOND)
        connect_rate_result(&c, &b, connect_rate_take(&c, &b, now), 1, now);
    assert_true(connect_rate_refused(&c, &b, now, 0, 0, now));
    double learned = connect_rate_limit(&c, &b);
    assert_true(learned > 0.2 && learned < 0.7); /* one a second was too often */
    assert_false(connect_rate_refused(&c, &b, now - 1, 0, 0, now + 1)); /* was under way */
    unsigned held = open_all(&c, &b, now, now + 5 * MINUTE);
    assert_in_range(held, 1, (unsigned)(learned * 300) + 4);
    open_all(&c, &b, now + 5 * MINUTE, now + 30 * MINUTE);
    double grown = connect_rate_limit(&c, &b);
    assert_true(grown == 0 || grown > 2 * learned);
}

static void test_a_rule_says_the_limit(void **state)
{
    struct connect_bounds b = bounds(2);
    struct connect_rate c = {0};
    (void)state;
    assert_true(connect_rate_refused(&c, &b, SECOND, 0.5, 0, SECOND));
    assert_true(fabs(connect_rate_limit(&c, &b) - 0.5) < 0.001);
    c.rate = 50; /* what is configured is never passed */
    assert_true(fabs(connect_rate_limit(&c, &b) - 2) < 0.001);
}

static void test_a_value_never_raises_it(void **state)
{
    struct connect_bounds b = bounds(1);
    struct connect_rate c = {0};
    (void)state;
    assert_true(connect_rate_refused(&c, &b, SECOND, 20, 0, SECOND));
    assert_true(connect_rate_limit(&c, &b) <= 1 && c.rate <= 1);
    assert_true(connect_rate_refused(&c, &b, 2 * SECOND, 0.5, 0, 2 * SECOND));
    assert_true(connect_rate_refused(&c, &b, 3 * SECOND, 0.75, 0, 3 * SECOND));
    assert_true(connect_rate_limit(&c, &b) < 0.51 && connect_rate_limit(&c, &b) > 0.49);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_value_never_raises_it),
        cmocka_unit_test(test_no_limit_no_wait),
        cmocka_unit_test(test_no_more_than_configured),
        cmocka_unit_test(test_open_connections_cost_nothing),
        cmocka_unit_test(test_more_than_one_for_a_delivery_is_made_up_for),
        cmocka_unit_test(test_a_claim_of_billions_is_over_soon),
        cmocka_unit_test(test_small_steps_fill_a_token),
        cmocka_unit_test(test_a_refusal_is_learned_and_tried_beyond_later),
        cmocka_unit_test(test_a_rule_says_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

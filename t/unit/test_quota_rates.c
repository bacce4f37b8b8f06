/* libraries: quota_parts */
/* Rates of a party: mail that waits for its turn and gets another one. */
#include "quota/rates.h"
#include "unit.h"

enum { MINUTE = 60, HOUR = 3600, DAY = 86400 };

static const int64_t monday = 1795392000; /* 2026-11-23, midnight */

static struct plan queueing(uint64_t a_minute, uint64_t an_hour)
{
    struct plan p = {.rate_action = RATE_QUEUE};
    unsigned n = 0;
    if (a_minute)
        p.account_rates[n++] = (struct plan_rate){.count = a_minute, .unit = RATE_MINUTE};
    if (an_hour)
        p.account_rates[n++] = (struct plan_rate){.count = an_hour, .unit = RATE_HOUR};
    return p;
}

/* So many at once; returns the turn of the last. */
static int64_t counted(struct tally *t, const struct plan *p, uint64_t messages, int64_t now)
{
    rates_roll(t, p, p->account_rates, now);
    int64_t turn = rates_turn(t, p, p->account_rates, 0, messages, now);
    rates_add(t, messages, now);
    return turn;
}

static void taken_back(struct tally *t, const struct plan *p, struct rates_held held, int64_t now)
{
    rates_take_back(t, p, p->account_rates, &held, now);
}

static void test_what_is_in_the_window_leaves_it(void **state)
{
    (void)state;
    struct plan p = queueing(0, 2);
    struct tally t = {0};
    assert_int_equal(counted(&t, &p, 2, monday + 10), monday + 10);
    assert_int_equal(counted(&t, &p, 1, monday + 20), monday + HOUR);
    taken_back(&t, &p, (struct rates_held){1, monday + 20, monday + HOUR}, monday + 30);
    assert_int_equal(t.window[RATE_HOUR].count, 2);
    assert_int_equal(t.window[RATE_DAY].count, 2);
}

static void test_what_is_carried_into_the_window_leaves_it(void **state)
{
    (void)state;
    struct plan p = queueing(0, 2);
    struct tally t = {0};
    assert_int_equal(counted(&t, &p, 6, monday + 10), monday + 2 * HOUR);
    /* in the second hour two go, and two wait for the third */
    const int64_t now = monday + HOUR + 10;
    taken_back(&t, &p, (struct rates_held){2, monday + 10, monday + 2 * HOUR}, now);
    assert_int_equal(t.window[RATE_HOUR].start, monday + HOUR);
    assert_int_equal(t.window[RATE_HOUR].count, 2);
}

/* It waits for its hour, and others have sent in this minute and this day since. */
static void test_what_others_have_sent_since_stays_counted(void **state)
{
    (void)state;
    struct plan p = queueing(3, 5);
    struct tally t = {0};
    const int64_t now = monday + DAY + 10;
    assert_int_equal(counted(&t, &p, 3, now), now);
    t.window[RATE_HOUR].count += 10; /* carried from the hour before */
    taken_back(&t, &p, (struct rates_held){10, monday + DAY - 30, monday + DAY + HOUR}, now);
    assert_int_equal(t.window[RATE_HOUR].count, 3);
    assert_int_equal(t.window[RATE_MINUTE].count, 3);
    assert_int_equal(t.window[RATE_DAY].count, 3);
    /* so the next one has to wait for the next minute */
    assert_int_equal(counted(&t, &p, 1, now), monday + DAY + MINUTE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_in_the_window_leaves_it),
        cmocka_unit_test(test_what_is_carried_into_the_window_leaves_it),
        cmocka_unit_test(test_what_others_have_sent_since_stays_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: quota_parts */
/* Rates and the spike guard over simulated weeks. */
#include "quota/rates.h"
#include "quota/spike.h"
#include "unit.h"

enum { HOUR = 3600, DAY = 86400, STEPS = 12 /* looks at the account in an hour */ };

static const int64_t monday = 1795392000; /* 2026-11-23, midnight */

static struct plan guarded(uint8_t action)
{
    return (struct plan){.spike_factor = 10, .spike_minimum = 50, .spike_action = action};
}

struct account {
    struct tally t;
    struct plan p;
    int64_t now;
    uint64_t free; /* messages that were neither held nor refused */
    unsigned told, hours_acted;
};

/* An hour in which so many messages are wanted, evenly: what hold lets go and what it keeps is
 * counted alike, as charges are. */
static void hour(struct account *a, uint64_t messages)
{
    bool acted = false;
    for (unsigned i = 0; i < STEPS; i++, a->now += HOUR / STEPS) {
        uint64_t n = messages / STEPS + (i < messages % STEPS);
        bool tell;
        rates_roll(&a->t, &a->p, a->p.account_rates, a->now);
        if (n == 0)
            continue;
        if (a->p.spike_action == SPIKE_SLOW) {
            uint64_t room = spike_room(&a->t, &a->p, 0);
            acted |= spike_acts(&a->t, &a->p, 0, n, a->now, &tell);
            n = n < room ? n : room;
            a->free += n;
        } else if (spike_acts(&a->t, &a->p, 0, n, a->now, &tell)) {
            acted = true;
        } else {
            a->free += n;
        }
        a->told += tell;
        rates_add(&a->t, n, a->now);
    }
    a->hours_acted += acted;
}

static void hours(struct account *a, unsigned count, uint64_t messages)
{
    while (count--)
        hour(a, messages);
}

/* Weeks with nights and weekends. */
static void weeks(struct account *a, unsigned count, uint64_t busy, uint64_t quiet)
{
    for (unsigned day = 0; day < 7 * count; day++) {
        bool weekend = day % 7 >= 5;
        hours(a, 8, quiet);
        hours(a, 10, weekend ? quiet : busy);
        hours(a, 6, quiet);
    }
}

static struct account account(uint8_t action)
{
    return (struct account){.p = guarded(action), .now = monday};
}

static void test_an_ordinary_account_is_let_alone(void **state)
{
    (void)state;
    struct account a = account(SPIKE_HOLD);
    spike_teach(&a.t, 40, a.now);
    weeks(&a, 8, 100, 3);
    assert_int_equal(a.hours_acted, 0);
    assert_in_range(a.t.usual, 20 * 1000, 100 * 1000);
    /* silence, then as before: nothing is forgotten by it */
    a.now += 60 * DAY;
    weeks(&a, 1, 100, 3);
    assert_int_equal(a.hours_acted, 0);
    assert_int_equal(a.told, 0);
}

static void test_one_who_grows_slowly_is_let_alone(void **state)
{
    (void)state;
    struct account a = account(SPIKE_HOLD);
    hours(&a, 48, 40);
    for (uint64_t busy = 40; busy < 4000; busy += busy / 4)
        weeks(&a, 1, busy, busy / 20);
    assert_int_equal(a.hours_acted, 0);
}

/* Quiet hours, then attempts without end: hardly anything gets out, nothing is learned, and
 * the owner hears of it daily. */
static void test_a_thief_without_end(void **state)
{
    (void)state;
    struct account a = account(SPIKE_HOLD);
    hours(&a, 24, 40);
    hours(&a, 24, 100);
    assert_int_equal(a.hours_acted, 0);
    uint64_t limit = spike_limit(&a.t, &a.p);
    assert_in_range(limit, 100, 1000);
    a.free = 0;
    hours(&a, 48, 100000);
    assert_in_range(a.free, 0, limit);
    assert_int_equal(a.hours_acted, 48);
    assert_int_equal(a.told, 2);
    assert_in_range(spike_limit(&a.t, &a.p), limit * 9 / 10, limit);
    /* the thief is gone: a day later mail goes again, by the same measure */
    hours(&a, 24, 20);
    a.hours_acted = 0;
    hours(&a, 24, 100);
    assert_int_equal(a.hours_acted, 0);
}

/* slow: so many an hour as the limit says, which stays. */
static void test_slowed_down_is_a_rate(void **state)
{
    (void)state;
    struct account a = account(SPIKE_SLOW);
    spike_teach(&a.t, 100, a.now);
    hours(&a, 24, 100);
    uint64_t limit = spike_limit(&a.t, &a.p);
    a.free = 0;
    hours(&a, 48, 100000);
    assert_in_range(a.free, 47 * limit, 48 * limit);
    assert_int_equal(a.told, 2);
    assert_int_equal(spike_limit(&a.t, &a.p), limit);
}

/* A thief who knows the limit and stays below it gets twice as much a day later, not more. */
static void test_a_patient_thief(void **state)
{
    (void)state;
    struct account a = account(SPIKE_HOLD);
    spike_teach(&a.t, 100, a.now);
    hours(&a, 24, 100);
    uint64_t before = spike_limit(&a.t, &a.p);
    for (unsigned day = 1; day <= 3; day++) {
        for (unsigned h = 0; h < 24; h++)
            hour(&a, spike_limit(&a.t, &a.p));
        assert_in_range(spike_limit(&a.t, &a.p), before, (before << day) + before);
    }
    assert_int_equal(a.hours_acted, 0);
}

static void test_a_new_account_starts_at_the_minimum(void **state)
{
    (void)state;
    struct account a = account(SPIKE_HOLD);
    hour(&a, 50);
    assert_int_equal(a.hours_acted, 0);
    for (unsigned h = 1; h < 24; h++)
        hour(&a, spike_limit(&a.t, &a.p));
    assert_in_range(spike_limit(&a.t, &a.p), 50, 100);
    hour(&a, 1000);
    assert_int_equal(a.hours_acted, 1);
}

static void test_an_operator_ends_it(void **state)
{
    (void)state;
    struct account a = account(SPIKE_HOLD);
    hours(&a, 24 * 10, 10);
    hour(&a, 1000);
    assert_int_equal(a.hours_acted, 1);
    assert_true(a.t.spike_since);
    spike_end(&a.t);
    a.hours_acted = 0;
    hour(&a, 10); /* as if nothing had been */
    assert_int_equal(a.hours_acted, 0);
    spike_teach(&a.t, 1000, a.now);
    hours(&a, 24, 2000);
    assert_int_equal(a.hours_acted, 0);
    hour(&a, 200000);
    assert_int_equal(a.hours_acted, 1);
}

static void test_without_a_guard(void **state)
{
    (void)state;
    struct account a = account(SPIKE_OFF);
    hours(&a, 100, 1000000);
    assert_int_equal(a.hours_acted, 0);
    assert_int_equal(spike_room(&a.t, &a.p, 5), UINT64_MAX);
    /* and with one from now on, what it sent is known */
    a.p = guarded(SPIKE_HOLD);
    hours(&a, 10, 1000000);
    assert_int_equal(a.hours_acted, 0);
}

static void test_numbers_without_end(void **state)
{
    (void)state;
    struct account a = account(SPIKE_HOLD);
    a.p.spike_factor = 10000;
    a.p.spike_minimum = UINT64_MAX;
    a.t.hour_count = UINT64_MAX;
    hours(&a, 3, UINT64_MAX / 2);
    spike_teach(&a.t, UINT64_MAX, a.now);
    hours(&a, 3, UINT64_MAX);
    assert_true(spike_limit(&a.t, &a.p) > 0);
}

/* F30: ten years ahead for one message, then right again. */
static void test_F30_a_clock_that_was_ahead(void **state)
{
    (void)state;
    struct account a = account(SPIKE_HOLD);
    const struct plan_rate *full = NULL;
    int64_t next, years = INT64_C(10) * 365 * DAY;
    a.p.account_rates[0] = (struct plan_rate){50, RATE_DAY};
    a.p.account_rates[1] = (struct plan_rate){50, RATE_MINUTE};
    hours(&a, 24 * 10, 20);
    uint64_t usual = a.t.usual;
    rates_roll(&a.t, &a.p, a.p.account_rates, a.now + years);
    rates_add(&a.t, 50, a.now + years);
    hour(&a, 0);
    assert_int_equal(rates_room(&a.t, &a.p, a.p.account_rates, 0, a.now, &full, &next), 50);
    hour(&a, 50);
    assert_int_equal(a.hours_acted, 0);
    assert_in_range(a.t.usual, usual * 8 / 10, usual * 2);
    hour(&a, 100000);
    assert_int_equal(a.hours_acted, 1);
    /* an hour back, as people set it: the window goes on */
    a = account(SPIKE_HOLD);
    a.p.account_rates[0] = (struct plan_rate){50, RATE_DAY};
    a.now += 12 * HOUR;
    rates_roll(&a.t, &a.p, a.p.account_rates, a.now);
    rates_add(&a.t, 50, a.now);
    rates_roll(&a.t, &a.p, a.p.account_rates, a.now - HOUR);
    assert_int_equal(rates_room(&a.t, &a.p, a.p.account_rates, 0, a.now - HOUR, &full, &next), 0);
}

/* And a guard that began then ends in time. */
static void test_F30_a_guard_from_the_future(void **state)
{
    (void)state;
    struct account a = account(SPIKE_HOLD);
    bool tell;
    int64_t years = INT64_C(10) * 365 * DAY;
    assert_true(spike_acts(&a.t, &a.p, 0, 1000, a.now + years, &tell));
    hours(&a, 25, 10);
    a.hours_acted = 0;
    hours(&a, 24, 10);
    assert_int_equal(a.hours_acted, 0);
}

static void test_the_record(void **state)
{
    (void)state;
    struct account a = account(SPIKE_HOLD);
    struct tally again;
    struct buf b = BUF_INIT(4096);
    hours(&a, 30, 40);
    hour(&a, 4000);
    tally_encode(&a.t, &b);
    assert_int_equal(tally_decode(buf_slice(&b), &again), 0);
    assert_memory_equal(&again, &a.t, sizeof again);
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(tally_decode(slice_make(b.data, n), &again), -1);
    /* the format before: its history counts */
    struct slice old = slice_make(b.data, 1 + 8 * (2 * TALLY_UNITS + 4));
    b.data[0] = 1;
    assert_int_equal(tally_decode(old, &again), 0);
    assert_int_equal(again.usual, a.t.usual);
    assert_int_equal(again.usual_before, a.t.usual);
    assert_int_equal(tally_decode(buf_slice(&b), &again), -1);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_ordinary_account_is_let_alone),
        cmocka_unit_test(test_one_who_grows_slowly_is_let_alone),
        cmocka_unit_test(test_a_thief_without_end),
        cmocka_unit_test(test_slowed_down_is_a_rate),
        cmocka_unit_test(test_a_patient_thief),
        cmocka_unit_test(test_a_new_account_starts_at_the_minimum),
        cmocka_unit_test(test_an_operator_ends_it),
        cmocka_unit_test(test_without_a_guard),
        cmocka_unit_test(test_numbers_without_end),
        cmocka_unit_test(test_F30_a_clock_that_was_ahead),
        cmocka_unit_test(test_F30_a_guard_from_the_future),
        cmocka_unit_test(test_the_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

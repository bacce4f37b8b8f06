/* libraries: qmgr_parts */
#include "core/clock.h"
#include "qmgr/odd.h"
#include "qmgr/strain.h"
#include "unit.h"

#define SECOND CLOCK_SECOND
#define MINUTE (60 * SECOND)

/* ---- refusals that nobody understands --------------------------------------------------- */

/* Attempts to a server that takes `limit` of those in a second and refuses the others, at
 * a pace that odd_says moves. Returns the share that was refused after `skip` seconds. */
static double run_limited(struct odd *o, double pace, double limit, int seconds, int skip)
{
    unsigned refused = 0, all = 0;
    for (int second = 0; second < seconds; second++) {
        for (int i = 0; i < (int)pace; i++) {
            int64_t now = (second + 1) * SECOND + i;
            enum odd_says says = i < limit ? odd_other(o, true, now)
                                           : odd_refused(o, ODD_FIRST, 0, 20 * MINUTE, now);
            refused += second >= skip && i >= limit;
            all += second >= skip;
            if (says == ODD_RATE)
                pace = pace > limit ? limit : pace;
            if (says == ODD_NOT_RATE)
                pace *= 2;
        }
        pace *= 1.05;
    }
    return all ? (double)refused / all : 0;
}

static void test_a_limit_in_unknown_words_is_found(void **state)
{
    struct odd o = {0};
    (void)state;
    double share = run_limited(&o, 40, 15, 60, 5);
    assert_true(o.of_rate > 0);
    assert_true(share < 0.1); /* each refusal is believed at once */
}

/* Chance: what is refused does not depend on the pace. */
static void test_random_failures_do_not_slow_for_long(void **state)
{
    struct odd o = {0};
    unsigned cuts = 0, undone = 0, seed = 1;
    (void)state;
    for (int i = 0; i < 5000; i++) {
        int64_t now = (int64_t)i * SECOND / 10; /* within ten minutes */
        seed = seed * 1103515245u + 12345u;
        bool fails = (seed >> 16) % 100 < 40;
        uint8_t running = o.tried;
        enum odd_says says =
            fails ? odd_refused(&o, ODD_FIRST, 0, 20 * MINUTE, now) : odd_other(&o, true, now);
        cuts += says == ODD_RATE && running == 0;
        undone += says == ODD_NOT_RATE;
    }
    assert_in_range(cuts, 1, 4);
    assert_true(undone >= 1 && o.of_rate <= 0);
}

/* Some in a hundred fail by chance, now and then many in a row. That they become fewer after a cut
 * is no proof: single ones are not believed then. */
static void test_chance_is_not_taken_for_a_proof(void **state)
{
    struct odd o = {0};
    unsigned cuts = 0, seed = 1;
    (void)state;
    for (int i = 0; i < 100000; i++) {
        int64_t now = (int64_t)i * SECOND / 100;
        seed = seed * 1103515245u + 12345u;
        bool fails = (seed >> 16) % 100 < 9;
        enum odd_says says =
            fails ? odd_refused(&o, ODD_FIRST, 0, 20 * MINUTE, now) : odd_other(&o, true, now);
        cuts += says == ODD_RATE;
    }
    assert_in_range(cuts, 0, 60);
}

static void test_few_failures_are_left_alone(void **state)
{
    struct odd o = {0};
    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_int_not_equal(
            i % 20 ? odd_other(&o, true, i) : odd_refused(&o, ODD_FIRST, 0, MINUTE, i), ODD_RATE);
}

static void test_what_closes_connections_is_told_apart_by_its_words(void **state)
{
    struct odd o = {0};
    uint32_t other, full = odd_hash(SLICE("4.7.0 that is all for 192.0.2.1")),
                    fast = odd_hash(SLICE("4.7.0 not so hasty, 192.0.2.1"));
    (void)state;
    assert_int_not_equal(full, fast);
    assert_int_equal(full, odd_hash(SLICE("4.7.9 that is all for 192.0.2.7 (AB12)")));
    assert_true(odd_closed(&o, full, 22, true, &other)); /* the first is guessed */
    for (uint32_t use = 3; use < 20; use += 4) {
        assert_false(odd_closed(&o, fast, use, true, &other));
        assert_int_equal(other, use > 3 ? use - 4 : 0);
        assert_true(odd_closed(&o, full, 22, true, &other));
        assert_int_equal(other, 0);
    }
}

static void test_one_way_to_say_both(void **state)
{
    struct odd o = {0};
    uint32_t other, words = odd_hash(SLICE("4.7.0 not now"));
    (void)state;
    assert_false(odd_closed(&o, words, 2, true, &other)); /* too few to be sure */
    assert_true(odd_closed(&o, words, 2, true, &other));
    assert_false(odd_closed(&o, words, 9, true, &other));
    assert_int_equal(other, 2);
    assert_false(odd_closed(&o, words, 2, true, &other));
    assert_int_equal(other, 9);
}

/* Some put what changes into each reply. */
static void test_words_that_differ_each_time(void **state)
{
    struct odd o = {0};
    uint32_t other;
    (void)state;
    assert_false(odd_closed(&o, odd_hash(SLICE("ends, a")), 12, false, &other));
    assert_true(odd_closed(&o, odd_hash(SLICE("ends, b")), 12, false, &other));
    assert_true(odd_closed(&o, odd_hash(SLICE("ends, c")), 12, false, &other));
}

static void test_the_same_place_of_a_connection(void **state)
{
    struct odd o = {0};
    (void)state;
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 12; k++)
            odd_other(&o, true, SECOND);
        assert_int_equal(odd_refused(&o, ODD_FIRST, 12, MINUTE, SECOND), ODD_NOTHING);
    }
    for (int k = 0; k < 12; k++)
        odd_other(&o, true, SECOND);
    assert_int_equal(odd_refused(&o, ODD_FIRST, 12, MINUTE, SECOND), ODD_CONNECTION);
    assert_int_equal(o.place, 12);
}

static void test_strangers_are_not_a_matter_of_rate(void **state)
{
    struct odd o = {.passed = 3};
    (void)state;
    for (int i = 0; i < 100; i++)
        assert_int_equal(odd_refused(&o, ODD_FIRST, 0, MINUTE, i), ODD_STRANGER);
    for (int i = 0; i < 16; i++) /* most new recipients are taken: it is something else */
        odd_other(&o, true, i);
    assert_int_not_equal(odd_refused(&o, ODD_FIRST, 0, MINUTE, 1), ODD_STRANGER);
}

/* One in twenty seconds is tried at once, and again 5, 15 and 35 minutes later while it is refused.
 * Half of them are taken at once, the others when `delay` has passed. Until then the time goes on
 * from *now; returns how many cuts were undone. */
static unsigned greet(struct odd *o, int64_t delay, int64_t *now, int64_t until)
{
    enum { STEP = 20 * SECOND };
    static const int64_t ages[] = {0, 5 * MINUTE, 15 * MINUTE, 35 * MINUTE};
    unsigned undone = 0;
    for (; *now < until; *now += STEP) {
        for (size_t i = 0; i < sizeof ages / sizeof ages[0]; i++) {
            int64_t since = *now - ages[i];
            bool known = since / STEP % 2, over = i > 0 && (known || ages[i - 1] >= delay);
            if (since < MINUTE || over)
                continue;
            bool taken = i == 0 ? known : ages[i] >= delay;
            if (i > 0)
                odd_again(o, ages[i], taken, true);
            enum odd_says says =
                taken ? odd_other(o, i == 0, *now)
                      : odd_refused(o, i ? ODD_AGAIN : ODD_FIRST, 0, 20 * MINUTE, *now);
            undone += says == ODD_NOT_RATE;
        }
    }
    return undone;
}

static void test_some_are_strangers(void **state)
{
    struct odd o = {0};
    int64_t now = MINUTE;
    (void)state;
    assert_int_equal(greet(&o, 34 * MINUTE, &now, 6 * MINUTE), 0);
    assert_true(odd_is_trying(&o)); /* it may be the rate */
    assert_int_equal(greet(&o, 34 * MINUTE, &now, 20 * MINUTE), 1);
    assert_false(odd_is_trying(&o));
    assert_int_equal(odd_refused(&o, ODD_FIRST, 0, 20 * MINUTE, now), ODD_STRANGER);
    assert_false(odd_is_greylisting(&o)); /* nobody knows when they are taken */
    assert_int_equal(greet(&o, 34 * MINUTE, &now, 40 * MINUTE), 0);
    assert_true(odd_is_greylisting(&o));
}

/* Whether one is taken that was refused before does not depend on its age. */
static void test_a_limit_asks_for_no_age(void **state)
{
    struct odd o = {0};
    unsigned seed = 1, strangers = 0;
    (void)state;
    for (int i = 0; i < 2000; i++) {
        seed = seed * 1103515245u + 12345u;
        bool taken = (seed >> 16) % 100 < 60;
        int64_t age = 5 * MINUTE + (int64_t)(seed >> 8) % MINUTE;
        if (i % 2)
            odd_again(&o, age, taken, true);
        if (taken)
            odd_other(&o, i % 2 == 0, i * SECOND);
        else
            strangers += odd_refused(&o, i % 2 ? ODD_AGAIN : ODD_FIRST, 0, 20 * MINUTE,
                                     i * SECOND) == ODD_STRANGER;
    }
    assert_in_range(strangers, 0, 10); /* of 800: chance alone is rare, and not believed for long */
}

/* Fifty recipients of one transaction are refused together: that shows no more than one does. */
static void test_recipients_of_one_transaction_are_one_toss(void **state)
{
    struct odd o = {0}, each = {0};
    (void)state;
    for (int i = 0; i < 40; i++) /* most are taken at once */
        (void)odd_other(&o, true, i * SECOND);
    each = o;
    for (int i = 0; i < 50; i++) {
        odd_again(&o, 10 * MINUTE, false, i == 0);
        odd_again(&each, 10 * MINUTE, false, true);
    }
    assert_int_not_equal(odd_refused(&o, ODD_AGAIN, 0, 20 * MINUTE, MINUTE), ODD_STRANGER);
    assert_true(o.by_age < each.by_age / 4);
}

/* Nobody was taken yet: what is refused is no matter of how many come. */
static void test_the_first_ever_is_no_matter_of_rate(void **state)
{
    struct odd o = {0};
    (void)state;
    for (int i = 0; i < 100; i++)
        assert_int_equal(odd_refused(&o, ODD_FIRST, 0, 20 * MINUTE, i), ODD_NOTHING);
}

/* ---- early signs -------------------------------------------------------------------------- */

static void test_strain_is_measured_against_the_usual(void **state)
{
    struct strain s = {0};
    (void)state;
    for (int i = 0; i < 100; i++)
        strain_note(&s, 20000, 50000);
    assert_false(strain_is(&s));
    assert_int_equal(strain_turn(&s, MINUTE, SECOND), STRAIN_SAME);
    for (int i = 0; i < 20; i++) /* a server that is slow by nature is not in trouble */
        strain_note(&s, 20000, 90000);
    assert_false(strain_is(&s));
    for (int i = 0; i < 20; i++)
        strain_note(&s, 1500000, 0);
    assert_true(strain_is(&s));
    assert_int_equal(strain_turn(&s, MINUTE, 2 * SECOND), STRAIN_BEGINS);
    assert_int_equal(strain_turn(&s, MINUTE, 3 * SECOND), STRAIN_SAME);
    for (int i = 0; i < 20; i++)
        strain_note(&s, 6000000, 0);
    assert_int_equal(strain_turn(&s, MINUTE, 4 * SECOND), STRAIN_SAME); /* too soon */
    assert_int_equal(strain_turn(&s, MINUTE, 2 * SECOND + MINUTE), STRAIN_WORSE);
    for (int i = 0; i < 60; i++)
        strain_note(&s, 20000, 0);
    assert_int_equal(strain_turn(&s, MINUTE, 3 * MINUTE), STRAIN_ENDS);
}

static void test_a_server_that_is_always_slow_is_not_strained(void **state)
{
    struct strain s = {0};
    (void)state;
    for (int i = 0; i < 1000; i++) {
        strain_note(&s, 10000000, 30000000);
        assert_int_equal(strain_turn(&s, MINUTE, i * SECOND), STRAIN_SAME);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_limit_in_unknown_words_is_found),
        cmocka_unit_test(test_random_failures_do_not_slow_for_long),
        cmocka_unit_test(test_chance_is_not_taken_for_a_proof),
        cmocka_unit_test(test_few_failures_are_left_alone),
        cmocka_unit_test(test_what_closes_connections_is_told_apart_by_its_words),
        cmocka_unit_test(test_one_way_to_say_both),
        cmocka_unit_test(test_words_that_differ_each_time),
        cmocka_unit_test(test_the_same_place_of_a_connection),
        cmocka_unit_test(test_strangers_are_not_a_matter_of_rate),
        cmocka_unit_test(test_some_are_strangers),
        cmocka_unit_test(test_a_limit_asks_for_no_age),
        cmocka_unit_test(test_recipients_of_one_transaction_are_one_toss),
        cmocka_unit_test(test_the_first_ever_is_no_matter_of_rate),
        cmocka_unit_test(test_strain_is_measured_against_the_usual),
        cmocka_unit_test(test_a_server_that_is_always_slow_is_not_strained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

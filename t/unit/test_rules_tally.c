/* libraries: postern_rules postern_core */
#include "core/clock.h"
#include "rules/tally.h"
#include "unit.h"

#define SECOND CLOCK_SECOND
#define MINUTE (60 * SECOND)

static const struct rule THIRD = {.after = 3, .period = MINUTE};
static const struct rule HALF = {.fraction = 0.5, .samples = 20};

static void test_a_rule_without_counts_acts_at_once(void **state)
{
    struct tallies *t = tallies_new();
    const struct rule rule = {.after = 0};
    (void)state;
    assert_true(tallies_reached(t, &rule, 0, 1, 1, SECOND));
    tallies_free(t);
}

static void test_from_the_third_time_in_a_minute_on(void **state)
{
    struct tallies *t = tallies_new();
    (void)state;
    assert_false(tallies_reached(t, &THIRD, 0, 1, 1, 1 * SECOND));
    assert_false(tallies_reached(t, &THIRD, 0, 1, 1, 20 * SECOND));
    assert_true(tallies_reached(t, &THIRD, 0, 1, 1, 40 * SECOND));
    assert_true(tallies_reached(t, &THIRD, 0, 1, 1, 50 * SECOND));
    assert_false(tallies_reached(t, &THIRD, 0, 1, 1, 5 * MINUTE)); /* long over */
    tallies_free(t);
}

/* The end of one minute and the beginning of the next are within a minute of each other. */
static void test_a_period_has_no_seam(void **state)
{
    struct tallies *t = tallies_new();
    const struct rule tenth = {.after = 10, .period = MINUTE};
    bool acted = false;
    (void)state;
    (void)tallies_reached(t, &tenth, 0, 1, 1, SECOND);
    for (int i = 0; i < 8; i++)
        assert_false(tallies_reached(t, &tenth, 0, 1, 1, 59 * SECOND));
    for (int i = 0; i < 8; i++)
        acted |= tallies_reached(t, &tenth, 0, 1, 1, 62 * SECOND);
    assert_true(acted);
    tallies_free(t);
}

static void test_slower_than_the_period_never_acts(void **state)
{
    struct tallies *t = tallies_new();
    (void)state;
    for (int64_t now = SECOND; now < 100 * MINUTE; now += 31 * SECOND)
        assert_false(tallies_reached(t, &THIRD, 0, 1, 1, now));
    tallies_free(t);
}

/* Nine refusals of one sender and one of another: the other is not to blame. */
static void test_each_place_and_rule_is_counted_for_itself(void **state)
{
    struct tallies *t = tallies_new();
    (void)state;
    for (int i = 0; i < 9; i++)
        (void)tallies_reached(t, &THIRD, 0, 1, 1, SECOND);
    assert_false(tallies_reached(t, &THIRD, 0, 2, 1, SECOND));
    assert_false(tallies_reached(t, &THIRD, 1, 1, 1, SECOND));
    assert_true(tallies_reached(t, &THIRD, 0, 1, 1, SECOND));
    tallies_free(t);
}

static void test_more_than_a_few_rules_count_side_by_side(void **state)
{
    struct tallies *t = tallies_new();
    (void)state;
    for (int round = 0; round < 3; round++)
        for (unsigned rule = 0; rule < 50; rule++)
            assert_int_equal(tallies_reached(t, &THIRD, rule, 1, 1, SECOND), round == 2);
    tallies_free(t);
}

/* Attempts, of which one in `every` is answered so; whether the rule acted at the end. */
static bool attempts(struct tallies *t, const struct rule *rule, unsigned count, unsigned every)
{
    bool acted = false;
    for (unsigned i = 0; i < count; i++) {
        tallies_attempt(t, 7, SECOND + i);
        if (i % every == 0)
            acted = tallies_reached(t, rule, 0, 7, 1, SECOND + i);
    }
    return acted;
}

static void test_a_fraction_needs_enough_samples(void **state)
{
    struct tallies *t = tallies_new();
    (void)state;
    assert_false(attempts(t, &HALF, 19, 1)); /* all of them, but too few */
    assert_true(attempts(t, &HALF, 2, 1));
    tallies_free(t);
}

static void test_a_fraction_that_is_not_reached(void **state)
{
    struct tallies *t = tallies_new();
    (void)state;
    assert_false(attempts(t, &HALF, 3000, 3));
    assert_true(attempts(t, &HALF, 200, 1)); /* what was long ago is forgotten */
    assert_false(attempts(t, &HALF, 200, 3));
    tallies_free(t);
}

/* One of a hundred in spite of bad luck at the end is no half. */
static void test_what_was_taken_before_the_first_refusal_counts(void **state)
{
    struct tallies *t = tallies_new();
    (void)state;
    for (unsigned i = 0; i < 100; i++)
        tallies_attempt(t, 7, SECOND);
    assert_false(attempts(t, &HALF, 21, 2));
    assert_true(attempts(t, &HALF, 40, 1));
    tallies_clear(t); /* without those before it is half of 21 */
    assert_true(attempts(t, &HALF, 21, 2));
    tallies_clear(t);
    for (unsigned i = 0; i < 100; i++) /* long ago */
        tallies_attempt(t, 7, SECOND - 2 * 60 * MINUTE);
    assert_true(attempts(t, &HALF, 21, 2));
    tallies_free(t);
}

/* What peers and rules drive is bounded. */
static void test_places_are_bounded(void **state)
{
    struct tallies *t = tallies_new();
    (void)state;
    (void)tallies_reached(t, &THIRD, 0, 0, 1, SECOND);
    (void)tallies_reached(t, &THIRD, 0, 0, 1, SECOND);
    for (uint64_t place = 1; place <= 3 * TALLIES_MAX; place++)
        assert_false(tallies_reached(t, &THIRD, 0, place, 1, SECOND));
    assert_false(tallies_reached(t, &THIRD, 0, 0, 1, SECOND)); /* forgotten */
    tallies_clear(t);
    assert_false(tallies_reached(t, &THIRD, 0, 3 * TALLIES_MAX, 1, SECOND));
    tallies_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_rule_without_counts_acts_at_once),
        cmocka_unit_test(test_from_the_third_time_in_a_minute_on),
        cmocka_unit_test(test_a_period_has_no_seam),
        cmocka_unit_test(test_slower_than_the_period_never_acts),
        cmocka_unit_test(test_each_place_and_rule_is_counted_for_itself),
        cmocka_unit_test(test_more_than_a_few_rules_count_side_by_side),
        cmocka_unit_test(test_a_fraction_needs_enough_samples),
        cmocka_unit_test(test_a_fraction_that_is_not_reached),
        cmocka_unit_test(test_what_was_taken_before_the_first_refusal_counts),
        cmocka_unit_test(test_places_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

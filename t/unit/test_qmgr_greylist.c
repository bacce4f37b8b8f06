/* libraries: qmgr_parts */
#include "core/clock.h"
#include "qmgr/greylist.h"
#include "unit.h"

#define MINUTE (60 * CLOCK_SECOND)

/* Ages at which a recipient is tried by a destination that takes it after `delay`. */
static unsigned tries(struct greylist *g, int64_t delay, int64_t *taken)
{
    unsigned n = 0;
    int64_t age = 0;
    greylist_refused(g, 0, 5 * MINUTE);
    while (n++ < 50) {
        int64_t next = greylist_next(g, age);
        assert_true(next > age);
        age = next;
        if (age >= delay) {
            greylist_passed(g, age);
            *taken = age;
            return n;
        }
        greylist_refused(g, age, 5 * MINUTE);
    }
    fail_msg("never taken");
    return 0;
}

static void test_customary_delays_are_met_soon(void **state)
{
    static const struct {
        int64_t delay;
        unsigned tries;
        int64_t taken;
    } rows[] = {{60 * CLOCK_SECOND, 1, 5 * MINUTE}, {5 * MINUTE, 1, 5 * MINUTE},
                {10 * MINUTE, 2, 10 * MINUTE},      {15 * MINUTE, 3, 15 * MINUTE},
                {20 * MINUTE, 4, 20 * MINUTE},      {30 * MINUTE, 5, 30 * MINUTE}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct greylist g = {0};
        int64_t taken;
        assert_int_equal(tries(&g, rows[i].delay, &taken), rows[i].tries);
        assert_int_equal(taken, rows[i].taken);
        /* the next recipient is not tried before it is likely to be taken */
        assert_int_equal(tries(&g, rows[i].delay, &taken), 1);
        assert_int_equal(taken, rows[i].taken);
    }
}

static void test_what_is_known_to_be_in_vain(void **state)
{
    struct greylist g = {0};
    (void)state;
    greylist_refused(&g, 0, 5 * MINUTE);
    assert_false(greylist_in_vain(&g, 1));
    greylist_refused(&g, 6 * MINUTE, 5 * MINUTE);
    assert_true(greylist_in_vain(&g, 5 * MINUTE));
    assert_false(greylist_in_vain(&g, 7 * MINUTE));
}

static void test_a_changed_delay_is_followed(void **state)
{
    struct greylist g = {0};
    int64_t taken;
    (void)state;
    tries(&g, 5 * MINUTE, &taken);
    for (int i = 0; i < 3; i++) { /* somebody who is never taken does not delay the others */
        greylist_refused(&g, (60 + i) * MINUTE, 5 * MINUTE);
        assert_int_equal(greylist_next(&g, 0), 5 * MINUTE);
    }
    tries(&g, 30 * MINUTE, &taken);
    assert_int_equal(taken, 30 * MINUTE);
    assert_int_equal(tries(&g, 30 * MINUTE, &taken), 1);
    /* shorter again: seen when somebody who was tried late for other reasons is taken */
    greylist_passed(&g, 6 * MINUTE);
    assert_false(greylist_in_vain(&g, 20 * MINUTE));
    assert_int_equal(tries(&g, 5 * MINUTE, &taken), 1);
    assert_int_equal(taken, 5 * MINUTE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_customary_delays_are_met_soon),
        cmocka_unit_test(test_what_is_known_to_be_in_vain),
        cmocka_unit_test(test_a_changed_delay_is_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: relay_parts */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "relay/timers.h"

static struct deadline *fired[8];
static unsigned fired_count;

static void on_expired(struct deadline *d)
{
    fired[fired_count++] = d;
}

static void test_deadlines_fire_in_order_and_moved_ones_later(void **state)
{
    (void)state;
    struct event_base *base = event_base_new();
    struct timers t;
    struct deadline a = {{0, 0}, 0}, b = a, c = a, d = a;
    int64_t now = clock_mono();
    timers_init(&t, base, on_expired);
    deadline_set(&t, &a, now + 250000);
    deadline_set(&t, &b, now + 10000);
    deadline_set(&t, &c, now + 10000);
    deadline_set(&t, &d, now + 60 * CLOCK_SECOND);
    deadline_set(&t, &b, now + 400000); /* later than it was */
    deadline_set(&t, &d, now + 20000);  /* earlier */
    deadline_clear(&t, &c);
    while (fired_count < 3)
        event_base_loop(base, EVLOOP_ONCE);
    assert_ptr_equal(fired[0], &d);
    assert_ptr_equal(fired[1], &a);
    assert_ptr_equal(fired[2], &b);
    assert_true(clock_mono() >= now + 400000);
    assert_int_equal(t.heap.count, 0);
    timers_free(&t);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deadlines_fire_in_order_and_moved_ones_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

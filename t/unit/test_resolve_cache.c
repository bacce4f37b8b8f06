/* libraries: resolve_parts */
/* What resolve remembers, and that it is bounded. */
#include "unit.h"

#include <stdio.h>

#include "core/clock.h"
#include "core/mem.h"
#include "resolve/cache.h"

static struct entry *remember(struct cache *c, int n, size_t size)
{
    char key[32];
    snprintf(key, sizeof key, "d%d.test", n);
    struct entry *e = cache_add(c, slice_str(key));
    assert_int_equal(buf_reserve(&e->result.targets, size), 0);
    entry_complete(e, clock_mono(), 100 * CLOCK_SECOND);
    entry_release(e);
    return e;
}

static bool is_known(struct cache *c, int n)
{
    char key[32];
    snprintf(key, sizeof key, "d%d.test", n);
    return cache_find(c, slice_str(key), clock_mono()) != NULL;
}

static void test_large_answers_push_old_ones_out(void **state)
{
    enum { SIZE = 64 * 1024, COUNT = 3 * CACHE_BYTES_MAX / SIZE };
    struct cache c = {0};
    (void)state;
    cache_init(&c);
    for (int i = 0; i < COUNT; i++) {
        remember(&c, i, SIZE);
        assert_true(c.bytes <= CACHE_BYTES_MAX);
        assert_true(is_known(&c, i));
    }
    assert_false(is_known(&c, 0));
    assert_in_range(c.entries.count, COUNT / 4, COUNT / 3 + 1);
    cache_clear(&c);
    assert_int_equal(c.bytes, 0);
    map_free(&c.entries);
}

/* Small ones are bounded by number; who still waits keeps what is forgotten. */
static void test_small_answers_are_bounded_by_number(void **state)
{
    struct cache c = {0};
    (void)state;
    cache_init(&c);
    struct entry *pending = cache_add(&c, SLICE("pending.test"));
    for (int i = 0; i < 2 * CACHE_ENTRIES_MAX; i++)
        remember(&c, i, 16);
    assert_int_equal(c.entries.count, CACHE_ENTRIES_MAX);
    assert_false(is_known(&c, CACHE_ENTRIES_MAX / 2));
    assert_true(is_known(&c, 2 * CACHE_ENTRIES_MAX - 1));
    entry_complete(pending, clock_mono(), CLOCK_SECOND);
    assert_null(cache_find(&c, SLICE("pending.test"), clock_mono()));
    entry_release(pending);
    cache_clear(&c);
    assert_int_equal(c.bytes, 0);
    map_free(&c.entries);
}

static void test_answers_end_with_their_time(void **state)
{
    struct cache c = {0};
    (void)state;
    cache_init(&c);
    int64_t expires = remember(&c, 1, 16)->expires;
    assert_non_null(cache_find(&c, SLICE("d1.test"), expires - 1));
    assert_null(cache_find(&c, SLICE("d1.test"), expires));
    assert_int_equal(c.entries.count, 0);
    assert_int_equal(c.bytes, 0);
    map_free(&c.entries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_large_answers_push_old_ones_out),
        cmocka_unit_test(test_small_answers_are_bounded_by_number),
        cmocka_unit_test(test_answers_end_with_their_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: qmgr_parts */
/*
 * What was learned, as it is kept (memory.c) and written (memory_save.c): in slices while entries
 * come and go, many that are too old, imports that are older than what is known.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "qmgr/memory_inside.h"
#include "unit.h"

enum { MANY = 100000, SOME = 3500, MORE = 500 };
static const int64_t DAY = INT64_C(86400) * CLOCK_SECOND;

static struct qmgr q;

static char place[] = "/tmp/postern-memory-XXXXXX";

static int make_place(void **state)
{
    (void)state;
    return mkdtemp(place) && chdir(place) == 0 ? 0 : -1;
}

static int remove_place(void **state)
{
    (void)state;
    return rmdir(place);
}

static int start(void **state)
{
    (void)state;
    q = (struct qmgr){.now = clock_mono()};
    list_init(&q.dispatch.lanes);
    memory_init(&q);
    memory_load(&q);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    list_each_safe(&q.shaping.memory->all, n)
    {
        struct remembered *r = container_of(n, struct remembered, all);
        learned_free(&r->v);
        free(r->id);
        free(r->alias);
        free(r);
    }
    map_free(&q.shaping.memory->by_id);
    map_free(&q.shaping.memory->by_alias);
    free(q.shaping.memory);
    (void)unlink(MEMORY_FILE);
    return 0;
}

static void accept_one(unsigned n, double rate, int64_t when)
{
    char key[32], source[] = "";
    struct buf text = BUF_INIT(LEARNED_LINE_MAX);
    struct err e;
    snprintf(key, sizeof key, "mx%u.test", n);
    struct learned v = {.key = key,
                        .name = key,
                        .source = source,
                        .when = when,
                        .rate = rate,
                        .rate_failed = 2 * rate};
    learned_encode(&v, &text);
    assert_int_equal(memory_accept(&q, buf_slice(&text), &e), 0);
    buf_free(&text);
}

static const struct learned *entry_of(unsigned n)
{
    char id[40];
    snprintf(id, sizeof id, "mx%u.test\n", n);
    const struct remembered *r = map_get(&q.shaping.memory->by_id, slice_str(id));
    return r ? &r->v : NULL;
}

/* Until what is under way is on the disk. */
static void end_saving(void)
{
    struct memory *m = q.shaping.memory;
    while (m->saving.under_way)
        memory_turn(&q);
    assert_false(writing_runs(&m->writing, true));
    assert_false(m->writing.failed);
}

/* Forgets all, and reads the file. */
static void read_again(void)
{
    struct memory *m = q.shaping.memory;
    list_each(&m->all, n) container_of(n, struct remembered, all)->v.when -= 100 * DAY;
    memory_sweep(m);
    assert_int_equal(m->by_id.count, 0);
    memory_load(&q);
}

static void test_entries_that_come_and_go_while_it_is_written(void **state)
{
    (void)state;
    int64_t wall = clock_wall();
    for (unsigned n = 0; n < SOME; n++)
        accept_one(n, 5, wall);
    q.now += MEMORY_SAVE_SECONDS * CLOCK_SECOND;
    unsigned turns = 0, fresh = SOME;
    for (memory_turn(&q); q.shaping.memory->saving.under_way; turns++) {
        accept_one(turns * (SOME / 8), 7, wall + CLOCK_SECOND); /* it goes to the list's end */
        if (fresh < SOME + MORE)
            accept_one(fresh++, 9, wall);
        memory_turn(&q);
    }
    assert_true(turns >= 3); /* in slices */
    end_saving();
    read_again();
    assert_int_equal(q.shaping.memory->by_id.count, fresh);
    for (unsigned n = 0; n < SOME; n++)
        assert_true(entry_of(n)->rate < 8);
    for (unsigned n = 0; n + 1 < turns; n++)
        assert_true(entry_of(n * (SOME / 8))->rate > 6);
}

static void test_what_must_not_wait_is_written_soon(void **state)
{
    (void)state;
    struct memory *m = q.shaping.memory;
    accept_one(1, 5, clock_wall());
    assert_true(memory_due(&q) > q.now + 200 * CLOCK_SECOND);
    memory_soon(&q);
    assert_true(memory_due(&q) <= q.now + 10 * CLOCK_SECOND);
    q.now = memory_due(&q);
    memory_turn(&q);
    assert_int_equal(memory_due(&q), q.now);
    end_saving();
    assert_true(memory_due(&q) > q.now + 200 * CLOCK_SECOND);
    read_again();
    assert_int_equal(m->by_id.count, 1);
}

/* One at a time, each with a new look from the beginning, took a minute. */
static void test_many_that_are_too_old_are_forgotten_at_once(void **state)
{
    (void)state;
    int64_t wall = clock_wall();
    for (unsigned n = 0; n < MANY; n++)
        accept_one(n, 5, wall - (n % 10 ? 31 : 1) * DAY);
    int64_t began = clock_mono();
    memory_sweep(q.shaping.memory);
    assert_true(clock_mono() - began < 3 * CLOCK_SECOND);
    assert_int_equal(q.shaping.memory->by_id.count, MANY / 10);
    assert_null(entry_of(1));
    assert_non_null(entry_of(10));
}

static void test_what_is_newer_stays(void **state)
{
    (void)state;
    int64_t wall = clock_wall();
    accept_one(1, 5, wall);
    accept_one(1, 50, wall - 20 * DAY);
    accept_one(2, 50, wall - 20 * DAY);
    accept_one(2, 6, wall);
    assert_true(entry_of(1)->rate < 6 && entry_of(2)->rate < 7);
    assert_int_equal(q.shaping.memory->older, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_entries_that_come_and_go_while_it_is_written, start,
                                        stop),
        cmocka_unit_test_setup_teardown(test_what_must_not_wait_is_written_soon, start, stop),
        cmocka_unit_test_setup_teardown(test_many_that_are_too_old_are_forgotten_at_once, start,
                                        stop),
        cmocka_unit_test_setup_teardown(test_what_is_newer_stays, start, stop),
    };
    return cmocka_run_group_tests(tests, make_place, remove_place);
}

/* libraries: qmgr_parts */
/*
 * The file of what sources have sent: made in slices, whatever happens meanwhile (sources_state.c).
 */
#include <unistd.h>

#include "qmgr/sources.h"
#include "qmgr_rig.h"

enum { PLACES = 5200, TURN_BYTES = 1 << 20 };

static char directory[] = "/tmp/postern-XXXXXX";

static int start(void **state)
{
    (void)state;
    int rc = rig_start("default { start_rate = \"1000000/s\" }\n");
    sources_load(&rig->q);
    return rc;
}

static struct source_record *place_of(struct source *s, unsigned number)
{
    char name[32];
    int n = snprintf(name, sizeof name, "servers mx%u.test", number);
    return source_place(s, slice_make(name, (size_t)n));
}

static uint32_t *count_of(struct source *s, unsigned number)
{
    return &record_today(&rig->q, place_of(s, number))->accepted;
}

static struct source *make(const char *name)
{
    char copy[8];
    struct source_conf c = {.name = copy, .has_v4 = true, .v4 = {127, 0, 0, 9}};
    snprintf(copy, sizeof copy, "%s", name);
    return source_new(rig->q.from, &c);
}

static struct source *known(const char *name)
{
    list_each(&rig->q.from->all, n)
    {
        struct source *s = container_of(n, struct source, all);
        if (strcmp(s->name, name) == 0)
            return s;
    }
    fail_msg("no source %s", name);
    return NULL;
}

/* One turn's part of the text; false: all of it is on its way. */
static bool slice_of(struct kept_file *file)
{
    size_t before = file->text ? file->text->len : 0;
    kept_file_turn(file, &rig->q);
    if (!file->text)
        return false;
    assert_true(file->text->len - before < TURN_BYTES);
    assert_int_equal(kept_file_due(file, &rig->q), rig->q.now);
    return true;
}

static void test_what_changes_while_it_is_written(void **state)
{
    (void)state;
    struct kept_file *file = &rig->q.from->file;
    struct source *plain = rig->q.from->plain, *a = make("a"), *gone = make("gone");
    unsigned turn_count = 0;
    for (unsigned i = 0; i < PLACES; i++) {
        *count_of(plain, i) = i + 1;
        *count_of(a, i) = 2 * i + 1;
    }
    for (unsigned i = 0; i < PLACES; i++)
        *count_of(gone, i) = 3;
    *count_of(a, 7) = 0; /* nothing was sent there today */
    (void)make("last");
    *count_of(known("last"), 1) = 4711;
    file->dirty = true;
    while (slice_of(file)) {
        turn_count++;
        if (turn_count == 2) { /* the last place that is in the text, and one that is not, go */
            assert_ptr_equal(rig->q.from->saving.of, plain);
            record_today(&rig->q,
                         container_of(rig->q.from->saving.place, struct source_record, of_source))
                ->accepted = 0;
            *count_of(plain, PLACES - 1) = 0;
            sources_sweep(&rig->q);
            assert_int_equal(plain->places.count, PLACES - 2);
            *count_of(plain, 1000000) = 99; /* and one comes */
        }
        if (rig->q.from->saving.of == gone)
            source_free(rig->q.from, gone);
    }
    assert_true(turn_count > PLACES / 1000);
    assert_false(file->dirty);
    kept_file_stop(file, &rig->q);

    assert_int_equal(start(state), 0); /* after a restart */
    plain = rig->q.from->plain;
    a = known("a");
    assert_int_equal(plain->places.count, PLACES); /* one was in the text before it went */
    assert_int_equal(a->places.count, PLACES - 1);
    for (unsigned i = 0; i < PLACES - 1; i++) {
        assert_int_equal(*count_of(plain, i), i + 1);
        assert_int_equal(*count_of(a, i), i == 7 ? 0 : 2 * i + 1);
    }
    assert_int_equal(*count_of(plain, 1000000), 99);
    assert_int_equal(*count_of(known("last"), 1), 4711);
}

/* qmgr ends while the text is being made, and something has changed since. */
static void test_the_end_waits_for_all(void **state)
{
    (void)state;
    struct kept_file *file = &rig->q.from->file;
    struct source *plain = rig->q.from->plain;
    for (unsigned i = 0; i < PLACES; i++)
        *count_of(plain, i) = i + 1;
    file->dirty = true;
    assert_true(slice_of(file));
    *count_of(plain, 0) = 77;
    file->dirty = true;
    kept_file_stop(file, &rig->q);
    assert_int_equal(start(state), 0);
    assert_int_equal(*count_of(rig->q.from->plain, 0), 77);
    assert_int_equal(*count_of(rig->q.from->plain, PLACES - 1), PLACES);
}

static int enter(void **state)
{
    (void)state;
    return mkdtemp(directory) && chdir(directory) == 0 ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    (void)unlink("sources.state");
    return chdir("/") == 0 && rmdir(directory) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_what_changes_while_it_is_written, start),
        cmocka_unit_test_setup(test_the_end_waits_for_all, start),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}

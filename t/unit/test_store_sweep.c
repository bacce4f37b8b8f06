/* libraries: qmgr_parts */
/* Syncs of the whole file system beside the batches: they are held up here. */
#include <stdatomic.h>

#include "store_harness.h"

static const struct slice body = SLICE("Subject: x\r\n\r\nhello\r\n");
enum { MESSAGES = 3, FLIGHTS = 2, PIECE_US = 2000, PIECES_MAX = 5000 };

static struct {
    atomic_uint hold;    /* so many calls of syncfs wait... */
    atomic_bool release; /* ...until this is set */
    atomic_uint held, passed;
} calls;

static void a_moment(void)
{
    const struct timespec t = {0, PIECE_US * 1000L};
    nanosleep(&t, NULL);
}

int syncfs(int fd)
{
    bool hold = calls.held < calls.hold;
    calls.held += hold;
    for (int i = 0; hold && !calls.release && i < PIECES_MAX; i++)
        a_moment();
    (void)fd; /* what others have on this disk may take long */
    calls.passed += !hold;
    return 0;
}

static unsigned answers;

static void on_record(const char *error, void *arg)
{
    (void)arg;
    if (error)
        fail_msg("a record failed: %s", error);
    answers++;
}

static void append(struct spool *s, const struct id *id, struct store_ref *ref)
{
    struct buf record = BUF_INIT(SPOOL_RECORD_MAX);
    struct spool_record r = {.type = SPOOL_RECORD_FAILED, .code = 550};
    assert_int_equal(spool_record_encode(&record, id, &r), 0);
    store_record(s->store, id, ref, buf_slice(&record), on_record, s);
    buf_free(&record);
}

static unsigned open_files(struct spool *s)
{
    struct store_stats stats;
    store_stats(s->store, &stats);
    return stats.open_files;
}

static void wait_held(struct spool *s, unsigned count)
{
    settle(s); /* submits what was called */
    for (int i = 0; calls.held < count && i < PIECES_MAX; i++)
        a_moment();
    assert_int_equal(calls.held, count);
}

/* A record waits for a flight to come back, while a sweep makes its file durable; then the
 * disk is so slow that the file is synced by itself after all. */
static void test_a_record_that_waits_keeps_its_descriptor(void **state)
{
    struct spool *s = new_spool();
    struct id ids[MESSAGES];
    struct store_ref refs[MESSAGES];
    (void)state;
    open_spool(s, default_config());
    for (int i = 0; i < MESSAGES; i++) {
        ids[i] = id_new();
        assert_int_equal(commit_one(s, &ids[i], body, 1), 0);
        refs[i] = s->ref;
        store_unload(s->store, &ids[i], &refs[i]);
    }
    settle(s);
    assert_int_equal(open_files(s), 0);
    calls.hold = FLIGHTS;
    for (unsigned i = 0; i < FLIGHTS; i++) {
        append(s, &ids[i], &refs[i]);
        wait_held(s, i + 1);
    }
    unsigned passed = calls.passed;
    append(s, &ids[FLIGHTS], &refs[FLIGHTS]);
    settle(s);
    for (int i = 0; (calls.passed == passed || open_files(s) == MESSAGES) && i < PIECES_MAX; i++)
        a_moment();
    assert_int_not_equal(calls.passed, passed); /* the sweep */
    calls.release = true;
    while (answers < MESSAGES)
        event_base_loop(s->base, EVLOOP_ONCE);
    assert_int_equal(s->state, SPOOL_OK);
    rescan(s);
    assert_int_equal(s->seen_count, MESSAGES);
    for (int i = 0; i < MESSAGES; i++)
        assert_int_equal(s->seen[i].records, 1);
    end_spool(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_record_that_waits_keeps_its_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

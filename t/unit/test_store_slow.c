/* libraries: qmgr_parts */
/* A disk to which others write much: a sync of the whole file system takes long, one of a
 * single file does not. */
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

#define STORE_HARNESS_JOURNAL .journal_size = 1 << 20
#include "store_harness.h"

static const struct slice body = SLICE("Subject: x\r\n\r\nhello\r\n");
enum { PIECE_US = 2000, PATIENCE = 10000 /* pieces */ };

/* ---- calls that are held up --------------------------------------------------------------- */

static struct {
    atomic_bool sweep;      /* syncfs waits for the end of this */
    atomic_uint held;       /* calls that wait or have waited */
    atomic_uint sweeps;     /* that are over */
    atomic_uint file_syncs; /* while one is in the air */
} calls;

static void a_moment(void)
{
    const struct timespec t = {0, PIECE_US * 1000L};
    nanosleep(&t, NULL);
}

int fsync(int fd)
{
    calls.file_syncs += calls.sweep;
    return (int)syscall(SYS_fsync, fd);
}

int syncfs(int fd)
{
    bool held = calls.sweep;
    calls.held += held;
    for (int i = 0; i < PATIENCE && calls.sweep; i++)
        a_moment();
    int result = (int)syscall(SYS_syncfs, fd);
    calls.sweeps++;
    return result;
}

static void wait_held(struct spool *s, unsigned count)
{
    while (calls.held < count)
        event_base_loop(s->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

/* ---- helpers -------------------------------------------------------------------------------- */

/* Of a message that is too large for the ring, and has a file at once. */
static struct slice large_body(void)
{
    static char text[200000];
    memset(text, 'x', sizeof text);
    memcpy(text, "Subject: x\r\n\r\n", 14);
    return slice_make(text, sizeof text);
}

static void on_answer(const char *error, void *arg)
{
    struct spool *s = arg;
    s->answered = true;
    snprintf(s->error, sizeof s->error, "%s", error ? error : "");
}

static void sync_now(struct spool *s)
{
    store_sync(s->store, on_answer, s);
    wait_answer(s);
    assert_string_equal(s->error, "");
}

struct burst {
    struct spool *s;
    struct store_commit commits[40];
    struct id ids[40];
    unsigned answered;
};

static void on_taken(struct store_commit *c, const char *error, int code, void *arg)
{
    (void)c;
    assert_null(error);
    assert_int_equal(code, 0);
    ((struct burst *)arg)->answered++;
}

static void send_off(struct burst *b, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        b->ids[i] = id_new();
        fill_commit(b->s, &b->commits[i], &b->ids[i], body, 1);
        b->commits[i].done = on_taken;
        b->commits[i].arg = b;
        store_commit(b->s->store, &b->commits[i]);
    }
}

static void wait_taken(struct burst *b, unsigned count)
{
    while (b->answered < count)
        event_base_loop(b->s->base, EVLOOP_ONCE);
}

/* ---- the test ------------------------------------------------------------------------------ */

/* Mail is taken meanwhile, more than two batches at a time, and marks are durable within a
 * second. */
static void test_nothing_waits_for_a_sweep_that_takes_long(void **state)
{
    struct spool *s = new_spool();
    struct burst burst = {.s = s};
    struct id id = id_new();
    (void)state;
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &id, large_body(), 3), 0);
    struct store_ref ref = s->ref;
    sync_now(s);
    calls.held = calls.sweeps = 0;
    calls.sweep = true;
    store_mark(s->store, &id, &ref, 0, SPOOL_SENT);
    wait_held(s, 1);
    calls.file_syncs = 0;
    send_off(&burst, 0, 36);
    wait_taken(&burst, 36);
    assert_int_equal(calls.sweeps, 0);
    int64_t since = clock_mono();
    store_mark(s->store, &id, &ref, 1, SPOOL_SENT);
    while (calls.file_syncs == 0 && clock_mono() - since < 3 * CLOCK_SECOND)
        settle(s);
    assert_true(calls.file_syncs > 0);
    send_off(&burst, 36, 40);
    wait_taken(&burst, 40);
    assert_int_equal(calls.sweeps, 0);
    calls.sweep = false;
    sync_now(s);
    assert_int_equal(s->state, SPOOL_OK);
    rescan(s);
    assert_int_equal(s->seen_count, 41);
    for (unsigned i = 0; i < s->seen_count; i++)
        assert_string_equal(s->seen[i].status,
                            strcmp(s->seen[i].id.text, id.text) == 0 ? "SSP" : "P");
    end_spool(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_waits_for_a_sweep_that_takes_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

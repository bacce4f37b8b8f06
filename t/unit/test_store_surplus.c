/* libraries: qmgr_parts */
/* More finished files than are kept, on a disk on which removing one takes long. */
#include <ctype.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

#include "store_harness.h"

static const struct slice body = SLICE("Subject: x\r\n\r\nhello\r\n");
enum { PIECE_US = 2000, PATIENCE = 5000 /* pieces */, GAP_US = 100000, WINDOW_US = 1200000 };

/* ---- calls that are watched --------------------------------------------------------------- */

static struct {
    atomic_bool hold;    /* removals of free files wait for the end of this */
    atomic_bool fail;    /* syncfs fails */
    atomic_bool slow;    /* each removal takes PIECE_US longer */
    atomic_uint removed; /* free files */
} calls;

static void a_moment(void)
{
    const struct timespec t = {0, PIECE_US * 1000L};
    nanosleep(&t, NULL);
}

int unlinkat(int fd, const char *name, int flags)
{
    bool free_file = isdigit((unsigned char)*name) && strlen(name) < 8;
    for (int i = 0; free_file && i < PATIENCE && (calls.hold || (calls.slow && i == 0)); i++)
        a_moment();
    if (free_file)
        calls.hold = false; /* over, or held for long enough: the test fails */
    calls.removed += free_file;
    return (int)syscall(SYS_unlinkat, fd, name, flags);
}

int syncfs(int fd)
{
    if (!calls.fail)
        return (int)syscall(SYS_syncfs, fd);
    errno = EIO;
    return -1;
}

/* ---- helpers -------------------------------------------------------------------------------- */

/* Puts files into free/ as an earlier process would have left them; keeps them open in fds
 * if not NULL. */
static void make_free(unsigned count, int *fds)
{
    char name[32];
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "free/%u", i);
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        if (fds)
            fds[i] = fd;
        else
            close(fd);
    }
}

static void make_directories(struct spool *s)
{
    open_spool(s, default_config());
    close_spool(s);
    memset(&calls, 0, sizeof calls);
}

static void wait_free(struct spool *s, unsigned most)
{
    struct store_stats stats = {0};
    for (int i = 0; i < PATIENCE && (i == 0 || stats.free_files > most); i++) {
        a_moment();
        store_stats(s->store, &stats);
    }
    assert_int_equal(stats.free_files, most);
    assert_int_equal(count_entries("free"), most);
}

/* Takes and finishes messages one after the other for WINDOW_US; false: something else kept
 * this process from it for so long that there was time to remove files. */
static bool work_without_pause(struct spool *s)
{
    int64_t start = clock_mono(), last = start, now = start;
    for (; now - start < WINDOW_US; last = now) {
        struct id id = id_new();
        assert_int_equal(commit_one(s, &id, body, 1), 0);
        store_finish(s->store, &id, &s->ref);
        now = clock_mono();
        if (now - last > GAP_US)
            return false;
    }
    return true;
}

/* ---- the tests ------------------------------------------------------------------------------ */

/* There is a look at the surplus each second: it takes a few milliseconds and not, however
 * many files there are and however slow the disk is, a tenth of a second. */
static void test_commits_do_not_wait_for_the_removal_of_many(void **state)
{
    static const struct store_config config = {
        .sync_threads = 1, .batch_max = 8, .free_max = 5, .surplus_max = 20000, .open_max = 64};
    struct spool *s = new_spool();
    unsigned removed = 0;
    bool steady = false;
    (void)state;
    make_directories(s);
    make_free(10000, NULL);
    calls.slow = true;
    open_spool(s, &config);
    for (int tries = 0; tries < 20 && !steady; tries++) {
        struct id id = id_new();
        assert_int_equal(commit_one(s, &id, body, 1), 0); /* ends the time that there was */
        store_finish(s->store, &id, &s->ref);
        removed = calls.removed;
        steady = work_without_pause(s);
        removed = calls.removed - removed;
    }
    assert_true(steady);
    assert_in_range(removed, 1, 8); /* of at most three looks */
    calls.slow = false;
    end_spool(s);
}

/* A start waits for no removal: qmgr_free_files_limit was lowered, for instance. */
static void test_a_start_removes_nothing(void **state)
{
    static const struct store_config config = {
        .sync_threads = 1, .batch_max = 8, .free_max = 5, .surplus_max = 40, .open_max = 64};
    struct spool *s = new_spool();
    (void)state;
    make_directories(s);
    make_free(500, NULL);
    calls.hold = true;
    open_spool(s, &config);
    assert_int_equal(count_entries("free"), 500);
    calls.hold = false;
    wait_free(s, 5);
    end_spool(s);
}

static bool is_one_of(ino_t inode, const int *fds, unsigned count)
{
    struct stat st;
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(fstat(fds[i], &st), 0);
        if (st.st_ino == inode)
            return true;
    }
    return false;
}

/* Where the start cannot know that their ways out of new/ are durable, finished files are
 * never overwritten; and it does not wait for their removal either. */
static void test_F24_start_whose_sync_fails_reuses_no_file(void **state)
{
    enum { COUNT = 300 };
    static const struct store_config config = {
        .sync_threads = 1, .batch_max = 8, .free_max = 1000, .surplus_max = 40, .open_max = 64};
    static int fds[COUNT];
    struct spool *s = new_spool();
    (void)state;
    make_directories(s);
    make_free(COUNT, fds); /* open: no other file gets their inodes */
    calls.fail = calls.hold = true;
    open_spool(s, &config);
    assert_int_equal(count_entries("free"), COUNT);
    calls.fail = calls.hold = false;
    calls.slow = true;
    for (int i = 0; i < 20; i++) {
        struct id id = id_new();
        struct stat st;
        char path[64];
        assert_int_equal(commit_one(s, &id, body, 1), 0);
        snprintf(path, sizeof path, "new/%x/%s", s->ref.bucket, id.text);
        assert_int_equal(stat(path, &st), 0);
        assert_false(is_one_of(st.st_ino, fds, COUNT));
    }
    calls.slow = false;
    wait_free(s, 0);
    for (int i = 0; i < COUNT; i++)
        close(fds[i]);
    end_spool(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commits_do_not_wait_for_the_removal_of_many),
        cmocka_unit_test(test_a_start_removes_nothing),
        cmocka_unit_test(test_F24_start_whose_sync_fails_reuses_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

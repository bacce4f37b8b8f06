/* libraries: postern_core postern_store */
#include <db.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/fault.h"
#include "core/mem.h"
#include "kv_unit.h"

enum { PAGE = 4096, NOT_ALLOWED = 77 };

static void path_of(const char *name, char out[static 128])
{
    snprintf(out, 128, "%s/%s", directory, name);
}

static bool there(const char *name)
{
    char path[128];
    path_of(name, path);
    return access(path, F_OK) == 0;
}

static void rename_in(const char *from, const char *to)
{
    char a[128], b[128];
    path_of(from, a);
    path_of(to, b);
    assert_int_equal(rename(a, b), 0);
}

static void remove_in(const char *name)
{
    char path[128];
    path_of(name, path);
    assert_int_equal(unlink(path), 0);
}

/* Every page but the first two gets garbage in its middle. */
static void damage_pages(const char *file)
{
    char path[128];
    struct stat st;
    path_of(file, path);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size > 4 * PAGE);
    for (off_t at = 2 * PAGE; at < st.st_size; at += PAGE)
        damage(file, "garbage garbage garbage", at + PAGE / 2);
}

static void snapshot(struct kv *kv)
{
    struct err e = {0, ""};
    if (kv_snapshot(kv, &e) < 0)
        broken("no snapshot", e.text);
}

static void must_not_open(const char *because)
{
    struct err e = {0, ""};
    enum kv_condition condition;
    if (kv_open(&kv_test_config, &condition, &e))
        broken("it opens although", because);
    if (!strstr(e.text, because))
        broken(because, e.text);
}

/* What was put before the snapshot and after it. */
static void fill(bool with_snapshot)
{
    struct kv *kv = opened(KV_CREATED);
    put(kv, 0, 4000, "before");
    if (with_snapshot)
        snapshot(kv);
    put(kv, 1000, 6000, "after");
    kv_close(kv);
}

static void all_there(struct kv *kv)
{
    for (int i = 0; i < 6000; i++)
        assert_int_equal(has(kv, i, i < 1000 ? "before" : "after"), 1);
}

/* ---- what a read finds --------------------------------------------------------------- */

/* Opening looks at the first page only. The process that meets another bad one ends, and the
 * next repairs it: no crash loop. */
static void test_F41_a_damaged_page_inside_is_rebuilt_by_the_next_start(void **state)
{
    struct err e = {0, ""};
    struct buf value = BUF_INIT(KV_VALUE_MAX);
    (void)state;
    fill(true);
    damage_pages("db/one.db");
    struct kv *kv = opened(KV_SOUND);
    assert_int_equal(kv_get(kv, 0, SLICE("key001500"), &value, &e), -1);
    assert_true(kv_failed(kv));
    assert_true(there("db/damaged"));
    kv_close(kv);
    kv = opened(KV_REBUILT);
    all_there(kv);
    put(kv, 0, 10, "again");
    kv_close(kv);
    assert_false(there("db/damaged"));
    kv = opened(KV_SOUND);
    assert_int_equal(has(kv, 3, "again"), 1);
    kv_close(kv);
    buf_free(&value);
}

/* A copy with a damaged page never takes the place of a good one. */
static void test_F41_a_snapshot_of_damage_is_refused(void **state)
{
    struct err e = {0, ""};
    (void)state;
    fill(true);
    damage_pages("db/two.db");
    struct kv *kv = opened(KV_SOUND);
    uint64_t log = kv_log_bytes(kv);
    assert_int_equal(kv_snapshot(kv, &e), -1);
    assert_non_null(strstr(e.text, "damaged"));
    assert_true(kv_failed(kv));
    assert_true(kv_log_bytes(kv) >= log);
    assert_true(there("snapshot/two.db"));
    assert_false(there("snapshot.new"));
    kv_close(kv);
    kv = opened(KV_REBUILT);
    all_there(kv);
    snapshot(kv);
    kv_close(kv);
}

/* ---- what a start finds ------------------------------------------------------------- */

static void test_F41_before_the_first_snapshot_the_log_has_all(void **state)
{
    (void)state;
    fill(false);
    damage("db/one.db", "garbage garbage garbage garbage garbage garbage", 0);
    struct kv *kv = opened(KV_REBUILT);
    all_there(kv);
    kv_close(kv);
}

static void test_F41_without_snapshot_and_log_it_says_what_to_do(void **state)
{
    (void)state;
    fill(false);
    damage("db/one.db", "garbage garbage garbage garbage garbage garbage", 0);
    rename_in("db/log.0000000001", "log");
    must_not_open("postern account import");
    assert_true(there("db/one.db"));
}

static void test_F41_a_table_that_is_gone_is_not_made_anew(void **state)
{
    (void)state;
    fill(true);
    remove_in("db/one.db");
    struct kv *kv = opened(KV_REBUILT);
    all_there(kv);
    kv_close(kv);
}

static void test_F41_no_empty_database_where_there_was_one(void **state)
{
    (void)state;
    fill(true);
    rename_in("db", "away");
    must_not_open("nothing begins anew by itself");
    assert_false(there("db"));
    rename_in("snapshot", "db"); /* as the message says */
    struct err e;
    for (int i = 0; i < 3; i++) { /* it is told until it is noted */
        struct kv *kv = opened(KV_SOUND);
        assert_int_equal(has(kv, 3999, "before"), 1);
        assert_int_equal(kv_is_restored(kv), i < 2);
        if (i == 1)
            assert_int_equal(kv_restored_noted(kv, &e), 0);
        snapshot(kv); /* one that is in its own place makes no other */
        kv_close(kv);
    }
}

static void test_F41_an_interrupted_exchange_of_snapshots_is_mended(void **state)
{
    (void)state;
    fill(true);
    rename_in("snapshot", "snapshot.old");
    damage("db/one.db", "garbage garbage garbage garbage garbage garbage", 0);
    struct kv *kv = opened(KV_REBUILT);
    all_there(kv);
    kv_close(kv);
}

static void count_call(void *arg)
{
    ++*(unsigned *)arg;
}

static void test_a_start_that_takes_long_gives_signs_of_life(void **state)
{
    struct err e = {0, ""};
    enum kv_condition condition;
    unsigned calls = 0;
    struct kv_config c = kv_test_config;
    (void)state;
    c.alive = count_call;
    c.arg = &calls;
    fill(true);
    damage("db/one.db", "garbage garbage garbage garbage garbage garbage", 0);
    struct kv *kv = kv_open(&c, &condition, &e);
    assert_non_null(kv);
    assert_int_equal(condition, KV_REBUILT);
    assert_true(calls > 5000); /* each record of the log, some blocks of files */
    calls = 0;
    put(kv, 0, 1000, "x");
    kv_close(kv);
    assert_int_equal(calls, 0);
}

/* ---- no damage ------------------------------------------------------------------------ */

/* Runs `in_child` in a process of its own, which ends with 0 if all was right. */
static void in_process(void (*in_child)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        is_child = true;
        in_child();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_ALLOWED)
        skip(); /* no file systems of our own here */
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the process ended with status %d", status);
}

static void open_without_descriptors(void)
{
    const struct rlimit few = {5, 5};
    if (setrlimit(RLIMIT_NOFILE, &few) < 0)
        _exit(1);
    must_not_open("this is no damage");
}

static void test_F41_a_lack_of_descriptors_is_no_damage(void **state)
{
    (void)state;
    fill(true);
    in_process(open_without_descriptors);
    struct kv *kv = opened(KV_SOUND);
    all_there(kv);
    kv_close(kv);
}

#ifdef POSTERN_FAULTS
static void test_F41_no_memory_and_no_rights_are_no_damage(void **state)
{
    static const int errors[] = {ENOMEM, EACCES,  ENOSPC, EMFILE,           ETXTBSY,
                                 ENODEV, ENOTDIR, EROFS,  DB_REP_LOCKOUT,   DB_OLD_VERSION,
                                 ENOSYS, EBUSY,   ELOOP,  DB_LOCK_DEADLOCK, ESTALE};
    (void)state;
    fill(true);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        fault_set("kv.damaged", errors[i], 0, 1);
        must_not_open("this is no damage");
    }
    fault_set(NULL, 0, 0, 0);
    struct kv *kv = opened(KV_SOUND);
    all_there(kv);
    kv_close(kv);
}

/* The exchange of two snapshots fails half way, twice: the one before is there all the time. */
static void test_F41_a_snapshot_that_fails_keeps_the_one_before(void **state)
{
    struct err e;
    (void)state;
    fill(true);
    struct kv *kv = opened(KV_SOUND);
    for (int i = 0; i < 2; i++) {
        fault_set("kv.snapshot.exchange", EBUSY, 0, 1);
        assert_int_equal(kv_snapshot(kv, &e), -1);
        assert_true(there("snapshot"));
    }
    /* it could not be put back, either: a start, or the next one, does that */
    rename_in("snapshot", "snapshot.old");
    fault_set("kv.snapshot", ENOSPC, 0, 1);
    assert_int_equal(kv_snapshot(kv, &e), -1);
    assert_true(there("snapshot"));
    fault_set(NULL, 0, 0, 0);
    assert_int_equal(kv_snapshot(kv, &e), 0);
    assert_false(there("snapshot.old"));
    all_there(kv);
    kv_close(kv);
}

static void killed_at(const char *point)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        is_child = true;
        fault_set(point, FAULT_KILL, 0, 1);
        opened(KV_REBUILT);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    if (!WIFSIGNALED(status))
        fail_msg("it was not killed at %s", point);
}

/* Wherever a rebuild ends, the next start finds everything: never an empty database. */
static void test_F41_a_rebuild_that_is_killed_goes_on(void **state)
{
    static const char *const points[] = {"kv.rebuild.copied", "kv.rebuild.recovered",
                                         "kv.rebuild.ready", "kv.rebuild", "kv.rebuild.placed"};
    struct buf value = BUF_INIT(KV_VALUE_MAX);
    struct err e;
    fill(true);
    for (size_t i = 0; i < 2 * sizeof points / sizeof points[0]; i++) {
        if (i % 2) { /* found by the open, found by a read */
            damage("db/one.db", "garbage garbage garbage garbage garbage garbage", 0);
        } else {
            damage_pages("db/one.db");
            struct kv *kv = opened(KV_SOUND);
            assert_int_equal(kv_get(kv, 0, SLICE("key001500"), &value, &e), -1);
            kv_close(kv);
        }
        killed_at(points[i / 2]);
        struct kv *kv =
            opened(strcmp(points[i / 2], "kv.rebuild.placed") == 0 ? KV_SOUND : KV_REBUILT);
        all_there(kv);
        if (i % 3 == 0)
            snapshot(kv);
        kv_close(kv);
        assert_false(there("db.new") || there("db.ready") || there("db/damaged"));
        *state = NULL;
    }
    buf_free(&value);
}

static void test_F41_a_snapshot_that_is_killed_leaves_one(void **state)
{
    int status;
    (void)state;
    fill(true);
    for (int i = 0; i < 2; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            is_child = true;
            struct err e;
            struct kv *kv = opened(KV_SOUND);
            fault_set(i ? "kv.snapshot.exchange" : "kv.snapshot", FAULT_KILL, 0, 1);
            (void)kv_snapshot(kv, &e);
            _exit(0);
        }
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
        damage("db/two.db", "garbage garbage garbage garbage garbage garbage", 0);
        struct kv *kv = opened(KV_REBUILT);
        all_there(kv);
        kv_close(kv);
    }
}
#endif

/* ---- a full disk ------------------------------------------------------------------------- */

/* A file system of 80 MB on the directory, of this process alone; false: not allowed here. */
static bool small_disk(void)
{
    if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return false;
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", directory, "tmpfs", 0, "size=80m") == 0;
}

/* Fills it up to the last `left` bytes. */
static void fill_disk(size_t left)
{
    char path[128], *block = xcalloc(1, PAGE);
    path_of("ballast", path);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    off_t at = 0;
    ssize_t n;
    while ((n = write(fd, block, PAGE)) > 0)
        at += n;
    if (errno != ENOSPC || ftruncate(fd, at - (off_t)left) < 0)
        _exit(3);
    close(fd);
    free(block);
}

/* Many changes that are made durable in groups until one fails; how many are durable. */
static int put_until_full(struct kv *kv)
{
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    struct err e;
    char key[16], value[1001];
    int i = 0;
    memset(value, 'v', 1000);
    value[1000] = '\0';
    for (;;) {
        buf_clear(&batch);
        for (int n = 0; n < 100; n++) {
            snprintf(key, sizeof key, "key%06d", i + n);
            kv_put(&batch, (unsigned)(i + n) % 2, slice_str(key), slice_str(value));
        }
        if (kv_apply(kv, buf_slice(&batch), &e) < 0 || kv_sync(kv, &e) < 0)
            break;
        i += 100;
    }
    if (!strstr(e.text, "No space left"))
        _exit(4);
    buf_free(&batch);
    return i;
}

static void check_values(struct kv *kv, int count)
{
    char value[1001];
    memset(value, 'v', 1000);
    value[1000] = '\0';
    for (int i = 0; i < count; i++)
        if (has(kv, i, value) != 1)
            _exit(5);
}

static void full_while_it_writes(void)
{
    if (!small_disk())
        _exit(NOT_ALLOWED);
    struct kv *kv = opened(KV_CREATED);
    fill_disk(4 * 1024 * 1024);
    int durable = put_until_full(kv);
    if (durable == 0 || there("db/damaged"))
        _exit(6);
    kv_close(kv);
    fill_disk(0);
    must_not_open("this is no damage"); /* recovery cannot write, and rebuilds nothing */
    if (there("db.new") || there("db.ready"))
        _exit(7);
    remove_in("ballast");
    kv = opened(KV_SOUND);
    check_values(kv, durable);
    kv_close(kv);
}

static void mark(const char *what)
{
    char path[128];
    path_of("db/damaged", path);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0 || write(fd, what, strlen(what)) < 0)
        _exit(16);
    close(fd);
}

static void full_while_it_copies(void)
{
    struct err e = {0, ""};
    if (!small_disk())
        _exit(NOT_ALLOWED);
    struct kv *kv = opened(KV_CREATED);
    put(kv, 0, 20000, "before");
    snapshot(kv);
    put(kv, 0, 4000, "before");
    fill_disk(2 * 1024 * 1024);
    if (kv_snapshot(kv, &e) == 0 || !strstr(e.text, "No space left"))
        _exit(8);
    if (kv_failed(kv) || there("snapshot.new") || !there("snapshot/one.db"))
        _exit(9);
    if (kv_checkpoint(kv, &e) < 0 && !strstr(e.text, "No space left"))
        _exit(10);
    kv_close(kv);
    remove_in("ballast");
    fill_disk(2 * 1024 * 1024);
    mark("a page of one.db"); /* as the process before has found */
    damage_pages("db/one.db");
    must_not_open("it cannot be rebuilt now"); /* no room for a second one */
    if (there("db.new") || there("db.ready") || !there("db/two.db"))
        _exit(11);
    remove_in("ballast");
    kv = opened(KV_REBUILT);
    for (int i = 0; i < 20000; i++)
        if (has(kv, i, "before") != 1)
            _exit(12);
    kv_close(kv);
}

/* A checkpoint writes pages into holes of a table that has grown in memory only. */
static void full_at_a_checkpoint(void)
{
    struct err e = {0, ""};
    if (!small_disk())
        _exit(NOT_ALLOWED);
    struct kv *kv = opened(KV_CREATED);
    put(kv, 0, 20000, "kept");
    if (kv_sync(kv, &e) < 0)
        _exit(13);
    fill_disk(0);
    if (kv_checkpoint(kv, &e) == 0 || !strstr(e.text, "No space left") || there("db/damaged"))
        _exit(14);
    kv_close(kv);
    remove_in("ballast");
    kv = opened(KV_SOUND);
    for (int i = 0; i < 20000; i++)
        if (has(kv, i, "kept") != 1)
            _exit(15);
    kv_close(kv);
}

static void test_F41_a_full_disk_loses_nothing_that_was_durable(void **state)
{
    (void)state;
    in_process(full_while_it_writes);
}

static void test_F41_a_full_disk_stops_a_copy_and_harms_nothing(void **state)
{
    (void)state;
    in_process(full_while_it_copies);
}

static void test_F41_a_full_disk_at_a_checkpoint(void **state)
{
    (void)state;
    in_process(full_at_a_checkpoint);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, clear)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_F41_a_damaged_page_inside_is_rebuilt_by_the_next_start),
        TEST(test_F41_a_snapshot_of_damage_is_refused),
        TEST(test_F41_before_the_first_snapshot_the_log_has_all),
        TEST(test_F41_without_snapshot_and_log_it_says_what_to_do),
        TEST(test_F41_a_table_that_is_gone_is_not_made_anew),
        TEST(test_F41_no_empty_database_where_there_was_one),
        TEST(test_F41_an_interrupted_exchange_of_snapshots_is_mended),
        TEST(test_a_start_that_takes_long_gives_signs_of_life),
        TEST(test_F41_a_lack_of_descriptors_is_no_damage),
#ifdef POSTERN_FAULTS
        TEST(test_F41_no_memory_and_no_rights_are_no_damage),
        TEST(test_F41_a_rebuild_that_is_killed_goes_on),
        TEST(test_F41_a_snapshot_that_is_killed_leaves_one),
        TEST(test_F41_a_snapshot_that_fails_keeps_the_one_before),
#endif
        TEST(test_F41_a_full_disk_loses_nothing_that_was_durable),
        TEST(test_F41_a_full_disk_stops_a_copy_and_harms_nothing),
        TEST(test_F41_a_full_disk_at_a_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: postern_core postern_store */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/mem.h"
#include "kv_unit.h"

/* ---- the interface ---------------------------------------------------------------- */

struct walked {
    int count, limit;
    char last[32];
};
static bool on_key(struct slice key, struct slice value, void *arg)
{
    struct walked *w = arg;
    (void)value;
    char text[32];
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(key));
    assert_true(strcmp(text, w->last) > 0);
    memcpy(w->last, text, sizeof text);
    return ++w->count < w->limit;
}

static void test_what_is_put_is_there(void **state)
{
    struct kv *kv = opened(KV_CREATED);
    struct err e;
    (void)state;
    put(kv, 0, 1000, "value");
    assert_int_equal(has(kv, 7, "value"), 1);
    assert_int_equal(has(kv, 1000, ""), 0);
    struct walked w = {.limit = 1000};
    assert_int_equal(kv_walk(kv, 0, SLICE("key000500"), on_key, &w, &e), 0);
    assert_int_equal(w.count, 250);
    w = (struct walked){.limit = 3};
    assert_int_equal(kv_walk(kv, 1, SLICE(""), on_key, &w, &e), 0);
    assert_string_equal(w.last, "key000005");
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    char *large = xcalloc(1, 300001);
    memset(large, 'x', 300000);
    kv_remove(&batch, 1, SLICE("key000007"));
    kv_remove(&batch, 1, SLICE("never was"));
    kv_put(&batch, 0, SLICE("key000008"), slice_str(large));
    kv_put(&batch, 0, SLICE("key000010"), SLICE("a"));
    kv_put(&batch, 0, SLICE("key000010"), SLICE("b"));
    assert_int_equal(kv_apply(kv, buf_slice(&batch), &e), 0);
    assert_int_equal(has(kv, 7, ""), 0);
    assert_int_equal(has(kv, 8, large), 1);
    assert_int_equal(has(kv, 10, "b"), 1);
    free(large);
    buf_free(&batch);
    kv_close(kv);
    kv = opened(KV_SOUND);
    assert_int_equal(has(kv, 9, "value"), 1);
    kv_close(kv);
}

/* ---- ends and damage ---------------------------------------------------------------- */

/* A process that is killed right after kv_sync: all of it is there. */
static void test_F41_a_killed_process_loses_nothing_that_was_synced(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            is_child = true;
            struct kv *kv = opened(round ? KV_SOUND : KV_CREATED);
            struct err e;
            put(kv, round * 500, round * 500 + 500, "kept");
            if (kv_sync(kv, &e) < 0)
                _exit(1);
            put(kv, 100000, 100500, "may be lost");
            kill(getpid(), SIGKILL);
        }
        int status;
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
    }
    struct kv *kv = opened(KV_SOUND);
    for (int i = 0; i < 1500; i++)
        assert_int_equal(has(kv, i, "kept"), 1);
    int extra = 0;
    for (int i = 100000; i < 100500; i++)
        extra += has(kv, i, "may be lost");
    assert_true(extra == 0 || extra == 500); /* a transaction is all or nothing */
    kv_close(kv);
}

/* Snapshot and log give everything back that the tables had. */
static void test_F41_bad_magic_is_rebuilt_from_the_snapshot(void **state)
{
    struct err e = {0, ""};
    struct kv *kv = opened(KV_CREATED);
    (void)state;
    put(kv, 0, 1000, "before");
    if (kv_snapshot(kv, &e) < 0)
        fail_msg("%s", e.text);
    put(kv, 500, 2000, "after");
    kv_close(kv);
    damage("db/one.db", "garbage garbage garbage garbage garbage garbage", 0);
    kv = opened(KV_REBUILT);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(has(kv, i, i < 500 ? "before" : "after"), 1);
    put(kv, 0, 10, "again");
    kv_close(kv);
    kv = opened(KV_SOUND);
    assert_int_equal(has(kv, 3, "again"), 1);
    kv_close(kv);
}

static unsigned log_files(void)
{
    char path[128];
    unsigned n = 0;
    snprintf(path, sizeof path, "%s/db", directory);
    DIR *d = opendir(path);
    struct dirent *entry;
    while ((entry = readdir(d)))
        n += strncmp(entry->d_name, "log.", 4) == 0;
    closedir(d);
    return n;
}

static const char *last_of(struct kv *kv, struct slice most)
{
    static struct buf key = BUF_INIT(100), value = BUF_INIT(1000);
    struct err e;
    static char text[50];
    int rc = kv_last(kv, 0, most, &key, &value, &e);
    assert_true(rc >= 0);
    snprintf(text, sizeof text, "%.*s=%.*s", SLICE_ARG(buf_slice(&key)),
             SLICE_ARG(buf_slice(&value)));
    return rc ? text : "";
}

static void test_the_last_entry_up_to_a_key(void **state)
{
    struct kv *kv = opened(KV_CREATED);
    struct err e;
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    (void)state;
    assert_string_equal(last_of(kv, SLICE("b")), "");
    kv_put(&batch, 0, SLICE("b"), SLICE("1"));
    kv_put(&batch, 0, SLICE("d"), SLICE("2"));
    assert_int_equal(kv_apply(kv, buf_slice(&batch), &e), 0);
    assert_string_equal(last_of(kv, SLICE("a")), "");
    assert_string_equal(last_of(kv, SLICE("b")), "b=1");
    assert_string_equal(last_of(kv, SLICE("c")), "b=1");
    assert_string_equal(last_of(kv, SLICE("d")), "d=2");
    assert_string_equal(last_of(kv, SLICE("dd")), "d=2");
    buf_free(&batch);
    kv_close(kv);
}

static void test_a_snapshot_ends_the_growth_of_the_log(void **state)
{
    struct err e = {0, ""};
    struct kv *kv = opened(KV_CREATED);
    char value[2001];
    (void)state;
    memset(value, 'v', 2000);
    value[2000] = '\0';
    for (int i = 0; i < 30; i++)
        put(kv, i * 1000, i * 1000 + 1000, value);
    assert_int_equal(kv_sync(kv, &e), 0);
    uint64_t before = kv_log_bytes(kv);
    assert_true(log_files() >= 3);
    for (int i = 0; i < 2; i++)
        if (kv_snapshot(kv, &e) < 0)
            fail_msg("%s", e.text);
    assert_true(log_files() <= 2);
    assert_true(kv_log_bytes(kv) < before);
    put(kv, 5, 6, "new");
    kv_close(kv);
    damage("db/two.db", "garbage garbage garbage garbage garbage garbage", 0);
    kv = opened(KV_REBUILT);
    assert_int_equal(has(kv, 5, "new"), 1);
    assert_int_equal(has(kv, 29999, value), 1);
    kv_close(kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_put_is_there, make, clear),
        cmocka_unit_test_setup_teardown(test_F41_a_killed_process_loses_nothing_that_was_synced,
                                        make, clear),
        cmocka_unit_test_setup_teardown(test_F41_bad_magic_is_rebuilt_from_the_snapshot, make,
                                        clear),
        cmocka_unit_test_setup_teardown(test_the_last_entry_up_to_a_key, make, clear),
        cmocka_unit_test_setup_teardown(test_a_snapshot_ends_the_growth_of_the_log, make, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: qmgr_parts */
/* Small messages in the journal when calls fail, on a full disk, and killed at named places. */
#include "journal_rig.h"

#ifdef POSTERN_FAULTS

/* The file is there but may be anything after a power failure: the ring is believed. */
static void kill_before_the_file_is_synced(struct spool *s, const struct id *id)
{
    pid_t child = fork();
    if (child == 0) {
        open_spool(s, default_config());
        fault_set("store.syncfs", FAULT_KILL, 0, 1); /* the first one is that of the file */
        commit_it(s, id);
        store_mark(s->store, id, &s->ref, 0, SPOOL_SENT);
        for (;;)
            event_base_loop(s->base, EVLOOP_ONCE);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(count_messages(), 1);
}

static void test_a_file_that_may_not_be_durable_is_written_again(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    char path[128];
    (void)state;
    kill_before_the_file_is_synced(s, &id);
    message_path(path, &id);
    overwrite(path, 250, "SSSSSSSSSSSSSSSSSSSSSSSS", 24); /* as a lost sector would */
    rescan(s);
    assert_int_equal(s->seen_count, 1);
    assert_string_equal(s->seen[0].status, "SPP");
    check_sound(s, &id, &s->seen[0].ref);
    assert_int_equal(count_entries("corrupt"), 0);
    end_spool(s);
}

/* The older copy does not outlive the message that is delivered from the ring. */
static void test_F21_a_file_that_cannot_be_written_again_is_gone(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    kill_before_the_file_is_synced(s, &id);
    fault_set("store.create", ENOSPC, 0, 1u << 30);
    rescan(s);
    assert_int_equal(s->seen_count, 1);
    assert_string_equal(s->seen[0].status, "SPP");
    check_sound(s, &id, &s->seen[0].ref);
    store_finish(s->store, &id, &s->seen[0].ref);
    sync_now(s);
    fault_set(NULL, 0, 0, 0);
    rescan(s);
    rescan(s);
    assert_int_equal(s->seen_count, 0);
    assert_int_equal(count_messages(), 0);
    assert_int_equal(count_entries("corrupt"), 0);
    end_spool(s);
}

/* ---- failing calls ----------------------------------------------------------------------- */

static void check_killed(const char *point, unsigned skip, unsigned found)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    pid_t child = fork();
    if (child == 0) {
        open_spool(s, default_config());
        fault_set(point, FAULT_KILL, skip, 1);
        commit_one(s, &id, body, 1);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    rescan(s);
    assert_int_equal(s->seen_count, found);
    assert_int_equal(count_entries("corrupt"), 0);
    end_spool(s);
}

static void test_F04_to_F07_killed_on_the_way(void **state)
{
    (void)state;
    check_killed("journal.write", 0, 0);
    check_killed("journal.written", 0, 1);
    check_killed("journal.sync", 0, 1);
    check_killed("store.dirs_synced", 0, 1);
}

static void test_F21_no_space_in_the_ring_is_452(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new(), next = id_new();
    (void)state;
    open_spool(s, default_config());
    fault_set("journal.write", ENOSPC, 0, 1);
    assert_int_equal(commit_one(s, &id, body, 1), 452);
    assert_int_equal(s->state, SPOOL_OK);
    assert_int_equal(commit_one(s, &next, body, 1), 0);
    rescan(s);
    assert_int_equal(s->seen_count, 1);
    assert_string_equal(s->seen[0].id.text, next.text);
    end_spool(s);
}

/* Nothing can get a file: marks and records are kept, the store says so, and all
 * goes its way when there is room again; also over a restart. */
static void test_F21_F22_no_space_for_files(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    open_spool(s, default_config());
    fault_set("store.create", ENOSPC, 0, 1u << 30);
    commit_it(s, &id);
    struct store_ref ref = s->ref;
    store_mark(s->store, &id, &ref, 1, SPOOL_SENT);
    add_record(s, &id, &ref, 3);
    assert_string_equal(s->error, "");
    rescan(s); /* nothing can be filed at the end, nor at the start */
    assert_int_equal(count_messages(), 0);
    assert_int_equal(s->seen_count, 1);
    assert_string_equal(s->seen[0].status, "PSP");
    assert_int_equal(s->seen[0].last.attempts, 3);
    ref = s->seen[0].ref;
    check_sound(s, &id, &ref);
    store_mark(s->store, &id, &ref, 0, SPOOL_SENT);
    struct id next = id_new(); /* mail is taken meanwhile */
    assert_int_equal(commit_one(s, &next, body, 1), 0);
    fault_set(NULL, 0, 0, 0);
    while (count_messages() < 2)
        settle(s);
    store_finish(s->store, &next, &s->ref);
    rescan(s);
    assert_int_equal(s->seen_count, 1);
    assert_string_equal(s->seen[0].status, "SSP");
    end_spool(s);
}

static void check_latched(const char *point, int error)
{
    struct spool *s = new_spool();
    struct id kept = id_new(), id = id_new(), later = id_new();
    open_spool(s, default_config());
    commit_it(s, &kept);
    struct store_ref ref = s->ref;
    fault_set(point, error, 0, 1);
    assert_int_equal(commit_one(s, &id, body, 1), 451);
    while (s->state != SPOOL_BAD)
        event_base_loop(s->base, EVLOOP_ONCE);
    assert_int_equal(commit_one(s, &later, body, 1), 451);
    check_sound(s, &kept, &ref); /* deliveries go on */
    store_mark(s->store, &kept, &ref, 0, SPOOL_SENT);
    settle(s);
    fault_set(NULL, 0, 0, 0);
    rescan(s);
    assert_true(s->seen_count >= 1);
    for (unsigned i = 0; i < s->seen_count; i++)
        assert_string_not_equal(s->seen[i].id.text, later.text);
    end_spool(s);
}

static void test_F24_F26_errors_latch(void **state)
{
    (void)state;
    check_latched("journal.write", EIO);
    check_latched("journal.sync", EIO);
    check_latched("journal.write", EROFS);
}

/* Files of messages that stay: an error of their way to the disk latches, and what is
 * in the ring is what counts after a restart. */
static void test_F24_a_file_that_cannot_be_synced(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    char path[128];
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        open_spool(s, default_config());
        fault_set("store.syncfs", EIO, 0, 1u << 30);
        fault_set("store.file_fsync", EIO, 0, 1);
        commit_it(s, &id);
        while (s->state != SPOOL_BAD)
            event_base_loop(s->base, EVLOOP_ONCE);
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    message_path(path, &id);
    overwrite(path, 0, "what the disk lost", 18);
    rescan(s);
    assert_int_equal(s->seen_count, 1);
    check_sound(s, &id, &s->seen[0].ref);
    assert_int_equal(count_entries("corrupt"), 0);
    end_spool(s);
}

/* A failed write of somebody else's on this file system harms nobody. */
static void test_syncfs_failure_of_others(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    open_spool(s, default_config());
    fault_set("store.syncfs", EIO, 0, 3);
    commit_it(s, &id);
    wait_file(s);
    sync_now(s);
    assert_string_equal(s->error, "");
    rescan(s);
    assert_int_equal(s->seen_count, 1);
    assert_int_equal(s->state, SPOOL_OK);
    end_spool(s);
}

/* Every call that may fail does, once each, at each of its places: what was
 * acknowledged and not finished is there afterwards, whole, and nothing is taken for
 * damage. */
enum { SWEEP_PLACES = 12, SWEEP_MESSAGES = 6 };

static void sweep_work(struct spool *s, struct id *taken, unsigned *count)
{
    struct store_ref refs[SWEEP_MESSAGES];
    for (unsigned i = 0; i < SWEEP_MESSAGES; i++) {
        struct id id = id_new();
        if (commit_one(s, &id, body, 2) != 0)
            continue;
        refs[*count] = s->ref;
        taken[(*count)++] = id;
        store_mark(s->store, &id, &s->ref, 1, SPOOL_SENT);
    }
    if (*count > 1) { /* the first one is over */
        store_finish(s->store, &taken[0], &refs[0]);
        for (unsigned i = 1; i < *count; i++)
            taken[i - 1] = taken[i];
        --*count;
    }
    sync_now(s);
}

static void sweep(const char *point, int error, unsigned skip)
{
    struct spool *s = new_spool();
    struct id taken[SWEEP_MESSAGES];
    unsigned count = 0;
    open_spool(s, default_config());
    fault_set(point, error, skip, 1);
    sweep_work(s, taken, &count);
    close_spool(s);
    fault_set(NULL, 0, 0, 0);
    rescan(s);
    for (unsigned i = 0; i < count; i++) {
        struct seen *m = NULL;
        for (unsigned k = 0; k < s->seen_count; k++)
            if (strcmp(taken[i].text, s->seen[k].id.text) == 0)
                m = &s->seen[k];
        if (m == NULL)
            fail_msg("%s: errno %d at visit %u: an acknowledged message is lost", point, error,
                     skip + 1);
        check_sound(s, &m->id, &m->ref);
    }
    assert_int_equal(count_entries("corrupt"), 0);
    end_spool(s);
}

static void test_F21_to_F26_every_call_fails_once(void **state)
{
    static const char *const points[] = {
        "journal.write", "journal.sync",     "store.write",     "store.rename", "store.create",
        "store.mkdir",   "store.file_fsync", "store.dir_fsync", "store.syncfs", "store.change"};
    static const int errors[] = {ENOSPC, EIO, EROFS};
    (void)state;
    for (size_t p = 0; p < sizeof points / sizeof points[0]; p++)
        for (size_t e = 0; e < sizeof errors / sizeof errors[0]; e++)
            for (unsigned skip = 0; skip < SWEEP_PLACES; skip += 1 + skip / 4)
                sweep(points[p], errors[e], skip);
}

static void count_read(struct slice prefix, struct slice content, const char *error, void *arg)
{
    (void)prefix;
    (void)content;
    (void)error; /* those for which there was no room may fail */
    ++*(unsigned *)arg;
}

static void test_many_reads_at_a_time(void **state)
{
    enum { READS = 200 };
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    open_spool(s, default_config());
    commit_it(s, &id);
    struct store_ref ref = s->ref;
    fault_set("store.create", ENOSPC, 0, 1); /* the read that comes too many gets none */
    unsigned answered = 0;
    for (unsigned i = 0; i < READS; i++)
        store_read(s->store, &id, &ref, 1000, count_read, &answered);
    while (answered < READS)
        event_base_loop(s->base, EVLOOP_ONCE);
    fault_set(NULL, 0, 0, 0);
    check_sound(s, &id, &ref);
    end_spool(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_file_that_may_not_be_durable_is_written_again),
        cmocka_unit_test(test_F04_to_F07_killed_on_the_way),
        cmocka_unit_test(test_F21_no_space_in_the_ring_is_452),
        cmocka_unit_test(test_F21_F22_no_space_for_files),
        cmocka_unit_test(test_F21_a_file_that_cannot_be_written_again_is_gone),
        cmocka_unit_test(test_F24_F26_errors_latch),
        cmocka_unit_test(test_F24_a_file_that_cannot_be_synced),
        cmocka_unit_test(test_syncfs_failure_of_others),
        cmocka_unit_test(test_F21_to_F26_every_call_fails_once),
        cmocka_unit_test(test_many_reads_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0; /* a build without fault points */
}

#endif

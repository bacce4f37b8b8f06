/* libraries: qmgr_parts */
/* Small messages in the journal: kills, failing calls, a full disk and damage, with the
 * whole store around it. */
#include <signal.h>
#include <sys/wait.h>

#include "core/fault.h"

#define STORE_HARNESS_JOURNAL .journal_size = 1 << 20
#include "spool/journal.h"
#include "store_harness.h"

static const struct slice body = SLICE("Subject: x\r\n\r\nhello\r\n");

static void on_record(const char *error, void *arg)
{
    struct spool *s = arg;
    s->answered = true;
    snprintf(s->error, sizeof s->error, "%s", error ? error : "");
}

static void on_load(const struct store_found *found, const char *error, void *arg)
{
    struct spool *s = arg;
    assert_null(error);
    s->answered = true;
    note_seen(&s->loaded, found);
}

static void sync_now(struct spool *s)
{
    store_sync(s->store, on_record, s);
    wait_answer(s);
}

/* Appends a record; its error, if any, is in s->error. */
static void add_record(struct spool *s, const struct id *id, struct store_ref *ref,
                       uint32_t attempts)
{
    struct buf record = BUF_INIT(SPOOL_RECORD_MAX);
    struct spool_record r = {
        .type = SPOOL_RECORD_FLAGS, .flags = MESSAGE_HOLD, .attempts = attempts};
    assert_int_equal(spool_record_encode(&record, id, &r), 0);
    store_record(s->store, id, ref, buf_slice(&record), on_record, s);
    wait_answer(s);
    buf_free(&record);
}

/* Runs `work` in a process that is killed at its end, and starts the store again. */
static void after_kill(struct spool *s, void (*work)(struct spool *s, const struct id *id),
                       const struct id *id)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        open_spool(s, default_config());
        work(s, id);
        raise(SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    rescan(s);
}

static void check_sound(struct spool *s, const struct id *id, struct store_ref *ref)
{
    read_back(s, id, ref, 1000);
    assert_string_equal(s->error, "");
    assert_int_equal(s->content.len, 16 + body.len);
}

static void commit_it(struct spool *s, const struct id *id)
{
    assert_int_equal(commit_one(s, id, body, 3), 0);
    assert_int_equal(count_messages(), 0); /* no file yet */
}

static void test_P1_a_message_without_a_file_survives_a_kill(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    after_kill(s, commit_it, &id);
    assert_int_equal(s->seen_count, 1);
    assert_string_equal(s->seen[0].status, "PPP");
    assert_int_equal(count_messages(), 1);
    check_sound(s, &id, &s->seen[0].ref);
    assert_int_equal(count_entries("corrupt"), 0);
    end_spool(s);
}

static void commit_and_change(struct spool *s, const struct id *id)
{
    commit_it(s, id);
    struct store_ref ref = s->ref;
    store_mark(s->store, id, &ref, 1, SPOOL_SENT);
    add_record(s, id, &ref, 1);
    assert_string_equal(s->error, "");
    store_mark(s->store, id, &ref, 2, SPOOL_BOUNCED);
    add_record(s, id, &ref, 2);
    assert_int_equal(count_messages(), 0);
}

static void test_marks_and_records_need_no_file(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    after_kill(s, commit_and_change, &id);
    assert_int_equal(s->seen_count, 1);
    assert_string_equal(s->seen[0].status, "PSB");
    assert_int_equal(s->seen[0].records, 2);
    assert_int_equal(s->seen[0].last.attempts, 2);
    check_sound(s, &id, &s->seen[0].ref);
    end_spool(s);
}

static void commit_and_finish(struct spool *s, const struct id *id)
{
    commit_it(s, id);
    store_finish(s->store, id, &s->ref);
    settle(s);
    settle(s); /* the turn after that one: what was noted is in the ring */
}

static void test_a_finished_message_does_not_come_back(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    after_kill(s, commit_and_finish, &id);
    assert_int_equal(s->seen_count, 0);
    assert_int_equal(count_messages(), 0);
    end_spool(s);
}

/* Waits until the message has a file. */
static void wait_file(struct spool *s)
{
    while (count_messages() == 0)
        settle(s);
}

static void test_a_message_that_stays_gets_a_file_and_leaves_the_ring(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    open_spool(s, default_config());
    commit_it(s, &id);
    struct store_ref ref = s->ref;
    wait_file(s);
    store_mark(s->store, &id, &ref, 0, SPOOL_SENT);
    store_load(s->store, &id, &ref, on_load, s);
    wait_answer(s);
    assert_string_equal(s->loaded.status, "SPP");
    sync_now(s); /* the file, and the word that it is there */
    sync_now(s);
    assert_string_equal(s->error, "");
    /* by hand, to tell which of both is believed now */
    char path[128];
    message_path(path, &id);
    overwrite(path, (long)ref.status_at + 2, "D", 1);
    rescan(s);
    assert_string_equal(s->seen[0].status, "SPD");
    end_spool(s);
}

/* More than the ring holds goes through it, round and round, and some stays. */
static void test_many_rounds(void **state)
{
    enum { MANY = 400, KEPT = 20 };
    struct spool *s = new_spool();
    static char text[20000];
    struct id kept[KEPT];
    unsigned count = 0;
    (void)state;
    memset(text, 'x', sizeof text);
    open_spool(s, default_config());
    for (unsigned i = 0; i < MANY; i++) {
        struct id id = id_new();
        assert_int_equal(commit_one(s, &id, slice_make(text, sizeof text - i), 1), 0);
        if (i % (MANY / KEPT) == 0)
            kept[count++] = id;
        else
            store_finish(s->store, &id, &s->ref);
    }
    rescan(s);
    assert_int_equal(s->seen_count, count);
    for (unsigned i = 0; i < s->seen_count; i++) {
        read_back(s, &s->seen[i].id, &s->seen[i].ref, 100000);
        assert_string_equal(s->error, "");
    }
    for (unsigned i = 0; i < count; i++) {
        bool found = false;
        for (unsigned k = 0; k < s->seen_count; k++)
            found |= strcmp(kept[i].text, s->seen[k].id.text) == 0;
        assert_true(found);
    }
    assert_int_equal(count_entries("corrupt"), 0);
    end_spool(s);
}

static void test_without_a_journal_an_old_ring_is_emptied_and_removed(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    struct store_config none = *default_config();
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        open_spool(s, default_config());
        commit_it(s, &id);
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    none.journal_size = 0;
    open_spool(s, &none);
    assert_int_equal(count_messages(), 1);
    assert_int_not_equal(access("journal/ring", F_OK), 0);
    end_spool(s);
}

/* ---- damage ---------------------------------------------------------------------------- */

static void commit_two(struct spool *s, const struct id *id)
{
    struct id other = id_new();
    commit_it(s, id);
    commit_it(s, &other); /* its block says that the first one is durable */
    other = id_new();
    commit_it(s, &other);
}

static void test_F40_a_damaged_block_is_told_and_the_ring_kept(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        open_spool(s, default_config());
        commit_two(s, &id);
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    overwrite("journal/ring", JOURNAL_PAGE + 100, "#", 1);
    rescan(s);
    assert_int_equal(s->seen_count, 2); /* the others are there */
    assert_int_equal(count_entries("corrupt"), 1);
    assert_int_equal(commit_one(s, &id, body, 1), 0); /* and there is a new ring */
    assert_int_equal(count_messages(), 2);
    end_spool(s);
}

/* The last block, which the power failure caught: nothing of it was acknowledged. */
static void test_a_torn_end_is_no_damage(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        open_spool(s, default_config());
        commit_two(s, &id);
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    overwrite("journal/ring", 3 * JOURNAL_PAGE + 100, "#", 1);
    rescan(s);
    assert_int_equal(s->seen_count, 2);
    assert_int_equal(count_entries("corrupt"), 0);
    end_spool(s);
}

static void test_F40_without_superblocks_the_ring_is_kept(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    static const char zeros[JOURNAL_PAGE];
    (void)state;
    after_kill(s, commit_it, &id);
    close_spool(s);
    overwrite("journal/ring", 0, zeros, sizeof zeros);
    rescan(s);
    assert_int_equal(s->seen_count, 1); /* which had a file */
    assert_int_equal(count_entries("corrupt"), 1);
    end_spool(s);
}

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

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_P1_a_message_without_a_file_survives_a_kill),
        cmocka_unit_test(test_marks_and_records_need_no_file),
        cmocka_unit_test(test_a_finished_message_does_not_come_back),
        cmocka_unit_test(test_a_message_that_stays_gets_a_file_and_leaves_the_ring),
        cmocka_unit_test(test_many_rounds),
        cmocka_unit_test(test_without_a_journal_an_old_ring_is_emptied_and_removed),
        cmocka_unit_test(test_F40_a_damaged_block_is_told_and_the_ring_kept),
        cmocka_unit_test(test_a_torn_end_is_no_damage),
        cmocka_unit_test(test_F40_without_superblocks_the_ring_is_kept),
#ifdef POSTERN_FAULTS
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
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

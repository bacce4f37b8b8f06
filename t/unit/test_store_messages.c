/* libraries: qmgr_parts */
/* Messages through their life in the spool: taken, marked, finished, reused,
 * found again. */
#include <poll.h>

#include "store_harness.h"

static const struct slice body = SLICE("Subject: x\r\n\r\nhello\r\n");
static const struct slice whole = SLICE("Received: here\r\nSubject: x\r\n\r\nhello\r\n");

static void test_commit_is_found_after_a_restart(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &id, body, 2), 0);
    read_back(s, &id, &s->ref, 1000);
    assert_true(slice_eq(buf_slice(&s->content), whole));
    rescan(s);
    assert_int_equal(s->messages, 1);
    assert_int_equal(s->quarantined, 0);
    assert_int_equal(s->seen_count, 1);
    assert_string_equal(s->seen[0].id.text, id.text);
    assert_string_equal(s->seen[0].sender, "s@example.com");
    assert_string_equal(s->seen[0].status, "PP");
    read_back(s, &id, &s->seen[0].ref, 1000);
    assert_string_equal(s->error, "");
    assert_true(slice_eq(buf_slice(&s->content), whole));
    assert_int_equal(s->prefix_len, 16);
    read_back(s, &id, &s->seen[0].ref, 5); /* a part of the body */
    assert_int_equal(s->content.len, 16 + 5);
    end_spool(s);
}

static void test_finished_file_is_recycled_once_durable(void **state)
{
    struct spool *s = new_spool();
    struct id first = id_new(), second = id_new(), third = id_new();
    struct store_stats st;
    (void)state;
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &first, body, 1), 0);
    store_finish(s->store, &first, &s->ref);
    settle(s);
    assert_int_equal(count_messages(), 0);
    assert_int_equal(count_entries("free"), 1);
    /* the way out of new/ is not durable before this commit's fsync: not reused */
    assert_int_equal(commit_one(s, &second, body, 1), 0);
    assert_int_equal(count_entries("free"), 1);
    /* now it is */
    assert_int_equal(commit_one(s, &third, SLICE("short\r\n"), 1), 0);
    assert_int_equal(count_entries("free"), 0);
    store_stats(s->store, &st);
    assert_int_equal(st.committed, 3);
    rescan(s);
    assert_int_equal(s->seen_count, 2);
    read_back(s, &third, &s->seen[strcmp(s->seen[0].id.text, third.text) != 0].ref, 1000);
    assert_true(slice_eq(buf_slice(&s->content), SLICE("Received: here\r\nshort\r\n")));
    end_spool(s);
}

static void test_finish_becomes_durable_without_commits(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new(), next = id_new();
    (void)state;
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &id, body, 1), 0);
    store_finish(s->store, &id, &s->ref);
    close_spool(s); /* syncs what is dirty */
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &next, body, 1), 0);
    assert_int_equal(count_entries("free"), 0); /* adopted at the start, and used */
    end_spool(s);
}

static void test_status_and_records_survive(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    struct buf record = BUF_INIT(SPOOL_RECORD_MAX);
    struct spool_record r = {.type = SPOOL_RECORD_DEFERRED, .code = 451, .text = SLICE("later")};
    (void)state;
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &id, body, 3), 0);
    store_mark(s->store, &id, &s->ref, 1, SPOOL_SENT);
    store_unload(s->store, &id, &s->ref);
    store_mark(s->store, &id, &s->ref, 2, SPOOL_BOUNCED);
    for (uint32_t i = 1; i <= 40; i++) {
        r.attempts = i;
        buf_clear(&record);
        assert_int_equal(spool_record_encode(&record, &id, &r), 0);
        store_record(s->store, &id, &s->ref, buf_slice(&record), NULL, NULL);
    }
    rescan(s);
    assert_int_equal(s->seen_count, 1);
    assert_string_equal(s->seen[0].status, "PSB");
    assert_int_equal(s->seen[0].records, 40);
    assert_int_equal(s->seen[0].last.attempts, 40);
    assert_int_equal(s->seen[0].ref.records_end, s->ref.records_end);
    buf_free(&record);
    end_spool(s);
}

static void on_record(const char *error, void *arg)
{
    struct spool *s = arg;
    s->answered = true;
    snprintf(s->error, sizeof s->error, "%s", error ? error : "");
}

static void on_load(const struct store_found *found, const char *error, void *arg)
{
    struct spool *s = arg;
    s->answered = true;
    snprintf(s->error, sizeof s->error, "%s", error ? error : "");
    if (found)
        note_seen(&s->loaded, found);
}

static void test_load_sees_what_was_called_before(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    struct buf record = BUF_INIT(SPOOL_RECORD_MAX);
    struct spool_record r = {.type = SPOOL_RECORD_FLAGS, .flags = MESSAGE_HOLD};
    (void)state;
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &id, body, 1), 0);
    assert_int_equal(spool_record_encode(&record, &id, &r), 0);
    store_record(s->store, &id, &s->ref, buf_slice(&record), on_record, s);
    wait_answer(s);
    assert_string_equal(s->error, "");
    store_mark(s->store, &id, &s->ref, 0, SPOOL_DROPPED);
    store_load(s->store, &id, &s->ref, on_load, s);
    wait_answer(s);
    assert_string_equal(s->error, "");
    assert_string_equal(s->loaded.status, "D");
    assert_int_equal(s->loaded.records, 1);
    assert_int_equal(s->loaded.last.flags, MESSAGE_HOLD);
    assert_int_equal(s->loaded.ref.records_end, s->ref.records_end);
    buf_free(&record);
    end_spool(s);
}

static void test_older_content_is_never_taken_for_records(void **state)
{
    struct spool *s = new_spool();
    struct id first = id_new(), second = id_new(), third = id_new();
    struct buf forged = BUF_INIT(1 << 20), record = BUF_INIT(SPOOL_RECORD_MAX);
    struct spool_record r = {.type = SPOOL_RECORD_FLAGS, .flags = MESSAGE_HOLD};
    (void)state;
    /* a peer that guessed the next ID fills its message with records of it */
    assert_int_equal(spool_record_encode(&record, &third, &r), 0);
    while (forged.len < 40000)
        buf_adds(&forged, buf_slice(&record));
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &first, buf_slice(&forged), 1), 0);
    store_finish(s->store, &first, &s->ref);
    assert_int_equal(commit_one(s, &second, body, 1), 0);
    /* every alignment of the end of the message with the old records */
    for (size_t len = 0; len < record.len; len++) {
        assert_int_equal(commit_one(s, &third, slice_first(buf_slice(&forged), len), 1), 0);
        store_load(s->store, &third, &s->ref, on_load, s);
        wait_answer(s);
        assert_int_equal(s->loaded.records, 0);
        store_finish(s->store, &third, &s->ref);
        settle(s);
        assert_int_equal(commit_one(s, &first, buf_slice(&forged), 1), 0);
        store_finish(s->store, &first, &s->ref);
        settle(s);
    }
    buf_free(&forged);
    buf_free(&record);
    end_spool(s);
}

static void test_large_message(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    struct store_commit c;
    struct err e;
    static char block[100000];
    (void)state;
    open_spool(s, default_config());
    memset(block, 'L', sizeof block);
    store_large_create(s->store, &id, on_nothing, s);
    wait_answer(s);
    int fd = s->fd, writer = store_large_writer(s->store, &id, &e);
    assert_true(fd >= 0 && writer >= 0);
    assert_int_equal(write(writer, block, sizeof block), sizeof block);
    char byte;
    assert_int_equal(read(writer, &byte, 1), -1); /* write-only */
    close(writer);
    fill_commit(s, &c, &id, slice_make(NULL, 0), 2);
    c.large_fd = fd;
    c.large_len = sizeof block;
    c.large_sum = 0; /* wrong: shows at reading */
    store_commit(s->store, &c);
    wait_answer(s);
    assert_string_equal(s->error, "");
    assert_true(s->ref.large);
    assert_int_equal(count_entries("tmp"), 0);
    store_mark(s->store, &id, &s->ref, 1, SPOOL_SENT);
    read_back(s, &id, &s->ref, 50); /* a part: not checked */
    assert_string_equal(s->error, "");
    assert_int_equal(s->content.len, 16 + 50);
    int reader = store_reader(s->store, &id, &s->ref, &e);
    assert_int_equal(pread(reader, &byte, 1, (off_t)s->ref.body_at), 1);
    assert_int_equal(byte, 'L');
    close(reader);
    rescan(s);
    assert_int_equal(s->seen_count, 1);
    assert_string_equal(s->seen[0].status, "PS");
    read_back(s, &id, &s->seen[0].ref, 1 << 20);
    assert_string_not_equal(s->error, ""); /* B77 */
    assert_int_equal(s->damaged, 1);
    settle(s);
    assert_int_equal(count_entries("corrupt"), 1);
    end_spool(s);
}

static void test_large_of_another_length_is_refused(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    struct store_commit c;
    (void)state;
    open_spool(s, default_config());
    store_large_create(s->store, &id, on_nothing, s);
    wait_answer(s);
    assert_int_equal(pwrite(s->fd, "x", 1, SPOOL_LARGE_BODY + 10), 1);
    fill_commit(s, &c, &id, slice_make(NULL, 0), 1);
    c.large_fd = s->fd;
    c.large_len = 10;
    store_commit(s->store, &c);
    wait_answer(s);
    assert_int_equal(s->code, 451);
    assert_int_equal(count_entries("tmp") + count_messages(), 0);
    end_spool(s);
}

static void test_large_abort_and_sweep(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new(), left = id_new();
    (void)state;
    open_spool(s, default_config());
    store_large_create(s->store, &id, on_nothing, s);
    wait_answer(s);
    store_large_abort(s->store, &id, s->fd);
    store_large_create(s->store, &left, on_nothing, s);
    wait_answer(s);
    close(s->fd);
    assert_int_equal(count_entries("tmp"), 1);
    rescan(s);
    assert_int_equal(count_entries("tmp"), 0);
    end_spool(s);
}

static void test_existing_id_is_refused_unless_replaced(void **state)
{
    struct spool *s = new_spool();
    struct id original = id_new(), id = id_notice(&original, 'F', 1);
    struct store_commit c;
    (void)state;
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &id, body, 1), 0);
    store_mark(s->store, &id, &s->ref, 0, SPOOL_SENT);
    store_unload(s->store, &id, &s->ref);
    assert_int_equal(commit_one(s, &id, SLICE("again\r\n"), 1), 451);
    fill_commit(s, &c, &id, SLICE("again\r\n"), 2);
    c.replace = true;
    store_commit(s->store, &c);
    wait_answer(s);
    assert_string_equal(s->error, "");
    store_mark(s->store, &id, &s->ref, 1, SPOOL_SENT);
    rescan(s);
    assert_int_equal(s->seen_count, 1);
    assert_string_equal(s->seen[0].status, "PS");
    read_back(s, &id, &s->seen[0].ref, 100);
    assert_true(slice_eq(buf_slice(&s->content), SLICE("Received: here\r\nagain\r\n")));
    end_spool(s);
}

static void count_commit(struct store_commit *c, const char *error, int code, void *arg)
{
    (void)code;
    assert_null(error);
    ++*(unsigned *)arg;
    (void)c;
}

static void test_many_at_once_with_few_descriptors(void **state)
{
    enum { MANY = 60 };
    static const struct store_config small = {
        .sync_threads = 1, .batch_max = 7, .free_max = 5, .open_max = 3};
    struct spool *s = new_spool();
    struct store_commit c[MANY];
    struct store_stats st;
    unsigned done = 0;
    (void)state;
    open_spool(s, &small);
    for (int round = 0; round < 4; round++, done = 0) {
        for (int i = 0; i < MANY; i++) {
            struct id id = id_new();
            fill_commit(s, &c[i], &id, body, 1);
            c[i].done = count_commit;
            c[i].arg = &done;
            store_commit(s->store, &c[i]);
        }
        while (done < MANY)
            event_base_loop(s->base, EVLOOP_ONCE);
        assert_int_equal(count_messages(), MANY);
        for (int i = 0; i < MANY; i++)
            store_finish(s->store, &c[i].id, &c[i].ref);
        settle(s);
        assert_int_equal(count_messages(), 0);
        assert_true(count_entries("free") <= 5);
        store_stats(s->store, &st);
        assert_true(st.open_files <= 5);
    }
    end_spool(s);
}

static void test_scan_leaves_out_what_was_taken_meanwhile(void **state)
{
    struct spool *s = new_spool();
    struct id before = id_new(), after = id_new();
    (void)state;
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &before, body, 1), 0);
    close_spool(s);
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &after, body, 1), 0);
    store_scan(s->store);
    while (!s->scanned)
        event_base_loop(s->base, EVLOOP_ONCE);
    assert_int_equal(s->seen_count, 1);
    assert_string_equal(s->seen[0].id.text, before.text);
    end_spool(s);
}

/* Whoever claims the name of a message that is not scanned yet cannot hide it. */
static void test_scan_tells_of_a_message_whose_name_was_claimed(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &id, body, 1), 0);
    close_spool(s);
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &id, body, 2), 451);
    store_scan(s->store);
    while (!s->scanned)
        event_base_loop(s->base, EVLOOP_ONCE);
    assert_int_equal(s->seen_count, 1);
    assert_int_equal(s->seen[0].recipients, 1);
    end_spool(s);
}

static void spare_files_are_made_while_nothing_happens(void **state)
{
    static const struct store_config config = {
        .sync_threads = 1, .batch_max = 8, .free_max = 64, .open_max = 64, .spare_files = 20};
    struct spool *s = new_spool();
    struct store_stats stats = {0};
    (void)state;
    open_spool(s, &config);
    for (int i = 0; i < 2000 && stats.free_files < 20; i++) {
        poll(NULL, 0, 5);
        store_stats(s->store, &stats);
    }
    assert_int_equal(stats.free_files, 20);
    assert_int_equal(stats.open_files, 0);
    end_spool(s);
}

/* Commits and finishes many messages; how many files are free then. */
static unsigned free_after_many(struct spool *s, unsigned many)
{
    struct store_commit *c = xcalloc(many, sizeof *c);
    struct store_stats stats;
    unsigned done = 0;
    for (unsigned i = 0; i < many; i++) {
        struct id id = id_new();
        fill_commit(s, &c[i], &id, body, 1);
        c[i].done = count_commit;
        c[i].arg = &done;
        store_commit(s->store, &c[i]);
    }
    while (done < many)
        event_base_loop(s->base, EVLOOP_ONCE);
    for (unsigned i = 0; i < many; i++)
        store_finish(s->store, &c[i].id, &c[i].ref);
    settle(s);
    store_stats(s->store, &stats);
    free(c);
    return stats.free_files;
}

static void files_beyond_the_limit_are_removed_when_there_is_time(void **state)
{
    static const struct store_config config = {
        .sync_threads = 1, .batch_max = 8, .free_max = 5, .surplus_max = 40, .open_max = 64};
    struct spool *s = new_spool();
    struct store_stats stats = {0};
    unsigned most = 0;
    (void)state;
    open_spool(s, &config);
    /* where this thread is stopped for long there was time: then again */
    for (int tries = 0; tries < 20 && most < 45; tries++) {
        unsigned count = free_after_many(s, 60);
        assert_true(count <= 45);
        most = count > most ? count : most;
    }
    assert_int_equal(most, 45);
    for (int i = 0; i < 2000 && (i == 0 || stats.free_files > 5); i++) {
        poll(NULL, 0, 5);
        store_stats(s->store, &stats);
    }
    assert_int_equal(stats.free_files, 5);
    assert_int_equal(count_entries("free"), 5);
    end_spool(s);
}

/* A start takes over what the last process had no time for. */
static void a_surplus_outlives_a_restart_and_then_goes(void **state)
{
    static const struct store_config config = {
        .sync_threads = 1, .batch_max = 8, .free_max = 5, .surplus_max = 40, .open_max = 64};
    struct spool *s = new_spool();
    struct store_stats stats = {0};
    char name[32];
    (void)state;
    open_spool(s, &config);
    close_spool(s);
    for (int i = 100; i < 130; i++) {
        snprintf(name, sizeof name, "free/%d", i);
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        close(fd);
    }
    open_spool(s, &config);
    for (int i = 0; i < 2000 && (i == 0 || stats.free_files > 5); i++) {
        poll(NULL, 0, 5);
        store_stats(s->store, &stats);
    }
    assert_int_equal(count_entries("free"), 5);
    end_spool(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spare_files_are_made_while_nothing_happens),
        cmocka_unit_test(files_beyond_the_limit_are_removed_when_there_is_time),
        cmocka_unit_test(a_surplus_outlives_a_restart_and_then_goes),
        cmocka_unit_test(test_commit_is_found_after_a_restart),
        cmocka_unit_test(test_finished_file_is_recycled_once_durable),
        cmocka_unit_test(test_finish_becomes_durable_without_commits),
        cmocka_unit_test(test_status_and_records_survive),
        cmocka_unit_test(test_load_sees_what_was_called_before),
        cmocka_unit_test(test_older_content_is_never_taken_for_records),
        cmocka_unit_test(test_large_message),
        cmocka_unit_test(test_large_of_another_length_is_refused),
        cmocka_unit_test(test_large_abort_and_sweep),
        cmocka_unit_test(test_existing_id_is_refused_unless_replaced),
        cmocka_unit_test(test_many_at_once_with_few_descriptors),
        cmocka_unit_test(test_scan_leaves_out_what_was_taken_meanwhile),
        cmocka_unit_test(test_scan_tells_of_a_message_whose_name_was_claimed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

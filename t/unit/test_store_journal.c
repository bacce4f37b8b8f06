/* libraries: qmgr_parts */
/* Small messages in the journal: kills and damage, with the whole store around it. */
#include "journal_rig.h"
#include "spool/journal.h"

static void on_load(const struct store_found *found, const char *error, void *arg)
{
    struct spool *s = arg;
    assert_null(error);
    s->answered = true;
    note_seen(&s->loaded, found);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

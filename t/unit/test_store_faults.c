/* libraries: qmgr_parts */
/* The process dies, or the disk fails, at named places (F04-F07, F21-F26). The
 * fault points exist in builds with POSTERN_FAULTS (the sanitizer build has
 * them); elsewhere only the cases that need none of them run. */
#include <signal.h>
#include <sys/wait.h>

#include "core/fault.h"
#include "store_harness.h"

static void on_create(int fd, const char *error, int code, void *arg)
{
    struct spool *s = arg;
    assert_true(fd < 0 && error);
    s->answered = true;
    s->code = code;
}

/* Free space below the reserve: mail is refused at the door; what is in the
 * queue goes on. */
static void test_F21_reserve(void **state)
{
    struct spool *s = new_spool();
    struct store_config greedy = *default_config();
    (void)state;
    greedy.reserve_bytes = UINT64_MAX;
    open_spool(s, &greedy);
    while (s->state != SPOOL_FULL)
        event_base_loop(s->base, EVLOOP_ONCE);
    assert_int_equal(store_state(s->store), SPOOL_FULL);
    struct id id = id_new();
    store_large_create(s->store, &id, on_create, s);
    wait_answer(s);
    assert_int_equal(s->code, 452);
    end_spool(s);
}

#ifdef POSTERN_FAULTS

static const struct slice body = SLICE("Subject: x\r\n\r\nhello\r\n");

enum way { WHOLE, FILE_BY_FILE /* because syncfs fails */ };

/* A child commits a message and is killed at the fault point; returns the ID. */
static struct id killed_at(struct spool *s, const char *point, enum way way)
{
    struct id id = id_new();
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (way == FILE_BY_FILE)
            fault_set("store.syncfs", EIO, 0, 1);
        fault_set(point, FAULT_KILL, 0, 1);
        open_spool(s, default_config());
        commit_one(s, &id, body, 1);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return id;
}

static void check_killed(const char *point, enum way way, unsigned found)
{
    struct spool *s = new_spool();
    struct id id = killed_at(s, point, way);
    rescan(s);
    assert_int_equal(s->seen_count, found);
    assert_int_equal(s->quarantined, 0);
    if (found) {
        assert_string_equal(s->seen[0].id.text, id.text);
        read_back(s, &id, &s->seen[0].ref, 1000);
        assert_string_equal(s->error, "");
        assert_int_equal(s->content.len, 16 + body.len);
    }
    assert_int_equal(count_entries("tmp") + count_entries("corrupt"), 0);
    end_spool(s);
}

static void test_F04_F05_killed_before_the_name(void **state)
{
    (void)state;
    check_killed("store.write", WHOLE, 0);
    check_killed("store.rename", WHOLE, 0);
}

static void test_F06_killed_before_fsync(void **state)
{
    (void)state;
    check_killed("store.renamed", WHOLE, 1);
    check_killed("store.syncfs", WHOLE, 1);
    check_killed("store.file_fsync", FILE_BY_FILE, 1);
    check_killed("store.files_synced", FILE_BY_FILE, 1);
    check_killed("store.dir_fsync", FILE_BY_FILE, 1);
}

static void test_F07_killed_before_the_answer(void **state)
{
    (void)state;
    check_killed("store.dirs_synced", WHOLE, 1);
    check_killed("store.dirs_synced", FILE_BY_FILE, 1);
}

static void test_killed_while_finishing(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        open_spool(s, default_config());
        commit_one(s, &id, body, 1);
        store_finish(s->store, &id, &s->ref);
        fault_set("store.syncfs", FAULT_KILL, 0, 1);
        for (;;)
            event_base_loop(s->base, EVLOOP_ONCE);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
    rescan(s);
    assert_int_equal(s->seen_count, 0);
    assert_int_equal(count_entries("free"), 1);
    end_spool(s);
}

/* A message that cannot be written is refused, leaves nothing, and the next one
 * is taken. */
static void check_refused(const char *point, int error, int code)
{
    struct spool *s = new_spool();
    struct id id = id_new(), next = id_new();
    open_spool(s, default_config());
    fault_set(point, error, 0, 1);
    assert_int_equal(commit_one(s, &id, body, 1), code);
    assert_int_equal(count_messages(), 0);
    assert_int_equal(s->state, SPOOL_OK);
    assert_int_equal(commit_one(s, &next, body, 1), 0);
    rescan(s);
    assert_int_equal(s->seen_count, 1);
    assert_string_equal(s->seen[0].id.text, next.text);
    fault_set(NULL, 0, 0, 0);
    end_spool(s);
}

static void test_F21_F23_no_space(void **state)
{
    (void)state;
    check_refused("store.write", ENOSPC, 452);
    check_refused("store.write", EDQUOT, 452);
    check_refused("store.rename", ENOSPC, 452);
    check_refused("store.mkdir", ENOSPC, 452);
    check_refused("store.create", ENOSPC, 452);
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
    assert_null(error);
    s->answered = true;
    s->ref = found->ref;
}

/* F22: the record that did not fit is reported, and leaves no hole that would
 * hide later ones; also when the message is read back in between. */
static void test_F22_no_space_for_a_record(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    struct buf record = BUF_INIT(SPOOL_RECORD_MAX);
    struct spool_record r = {.type = SPOOL_RECORD_FAILED, .code = 550};
    (void)state;
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &id, body, 1), 0);
    for (unsigned i = 0; i < 4; i++) {
        r.attempts = i;
        buf_clear(&record);
        assert_int_equal(spool_record_encode(&record, &id, &r), 0);
        if (i == 1)
            fault_set("store.change", ENOSPC, 0, 1);
        store_record(s->store, &id, &s->ref, buf_slice(&record), on_record, s);
        wait_answer(s);
        assert_int_equal(s->error[0] != '\0', i == 1);
        if (i == 2) {
            store_load(s->store, &id, &s->ref, on_load, s);
            wait_answer(s);
        }
    }
    rescan(s);
    assert_int_equal(s->seen[0].records, 3);
    assert_int_equal(s->seen[0].last.attempts, 3);
    buf_free(&record);
    end_spool(s);
}

static unsigned refused;
static void count_refused(struct store_commit *c, const char *error, int code, void *arg)
{
    (void)c;
    (void)arg;
    assert_non_null(error);
    assert_int_equal(code, 451);
    refused++;
}

static void count_done(struct store_commit *c, const char *error, int code, void *arg)
{
    (void)c;
    (void)code;
    assert_null(error);
    ++*(unsigned *)arg;
}

static void check_batch_fails(const char *point)
{
    enum { MANY = 5 };
    struct spool *s = new_spool();
    struct store_commit c[MANY];
    struct id kept = id_new();
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &kept, body, 1), 0);
    struct store_ref ref = s->ref;
    fault_set("store.syncfs", EIO, 0, 1); /* then each file is asked */
    fault_set(point, EIO, 0, 1);
    refused = 0;
    for (int i = 0; i < MANY; i++) {
        struct id id = id_new();
        fill_commit(s, &c[i], &id, body, 1);
        c[i].done = count_refused;
        store_commit(s->store, &c[i]);
    }
    while (refused < MANY)
        event_base_loop(s->base, EVLOOP_ONCE);
    assert_int_equal(s->state, SPOOL_BAD);
    assert_int_equal(count_messages(), 1);
    /* latched, although the fault is gone; deliveries go on */
    struct id id = id_new();
    assert_int_equal(commit_one(s, &id, body, 1), 451);
    read_back(s, &kept, &ref, 1000);
    assert_string_equal(s->error, "");
    store_finish(s->store, &kept, &ref);
    settle(s);
    assert_int_equal(count_messages(), 0);
    assert_int_equal(store_state(s->store), SPOOL_BAD);
    fault_set(NULL, 0, 0, 0);
    end_spool(s);
}

static void test_F24_EIO_on_fsync(void **state)
{
    (void)state;
    check_batch_fails("store.file_fsync");
    check_batch_fails("store.dir_fsync");
}

/* A failed write of somebody else's file on this file system harms nobody. */
static void test_syncfs_failure_of_others(void **state)
{
    enum { MANY = 5 };
    struct spool *s = new_spool();
    struct store_commit c[MANY];
    unsigned done = 0;
    (void)state;
    open_spool(s, default_config());
    fault_set("store.syncfs", EIO, 0, 1);
    for (int i = 0; i < MANY; i++) {
        struct id id = id_new();
        fill_commit(s, &c[i], &id, body, 1);
        c[i].done = count_done;
        c[i].arg = &done;
        store_commit(s->store, &c[i]);
    }
    while (done < MANY)
        event_base_loop(s->base, EVLOOP_ONCE);
    assert_int_equal(count_messages(), MANY);
    assert_int_equal(s->state, SPOOL_OK);
    end_spool(s);
}

/* Messages come and go while batches overlap and some of their syncs fail: what
 * was acknowledged and not finished is there, whole; nothing else is. */
enum { TURNS = 400, PER_TURN = 3, KEPT = 40 };

struct traffic {
    struct spool *s;
    struct store_commit commits[PER_TURN];
    char text[PER_TURN][64];
    struct id kept[KEPT];
    struct store_ref refs[KEPT];
    unsigned count, answered;
};

static void on_traffic(struct store_commit *c, const char *error, int code, void *arg)
{
    struct traffic *t = arg;
    assert_null(error);
    assert_int_equal(code, 0);
    t->answered++;
    if (t->count == KEPT) {
        unsigned old = (unsigned)rand() % KEPT;
        store_finish(t->s->store, &t->kept[old], &t->refs[old]);
        t->count--;
        t->kept[old] = t->kept[t->count];
        t->refs[old] = t->refs[t->count];
    }
    t->kept[t->count] = c->id;
    t->refs[t->count++] = c->ref;
}

static void send_some(struct traffic *t)
{
    unsigned sent = 1 + (unsigned)rand() % PER_TURN;
    t->answered = 0;
    for (unsigned i = 0; i < sent; i++) {
        struct id id = id_new();
        snprintf(t->text[i], sizeof t->text[i], "Subject: %s\r\n\r\n", id.text);
        fill_commit(t->s, &t->commits[i], &id, slice_str(t->text[i]), 1);
        t->commits[i].done = on_traffic;
        t->commits[i].arg = t;
        store_commit(t->s->store, &t->commits[i]);
        if (rand() % 2) /* not all in one batch */
            event_base_loop(t->s->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    }
    while (t->answered < sent)
        event_base_loop(t->s->base, EVLOOP_ONCE);
}

static void test_batches_that_overlap_and_fail(void **state)
{
    static struct traffic t;
    (void)state;
    srand(20);
    t.s = new_spool();
    open_spool(t.s, default_config());
    for (int turn = 0; turn < TURNS; turn++) {
        fault_set(NULL, 0, 0, 0);
        if (turn % 5 == 0)
            fault_set("store.syncfs", EIO, (unsigned)rand() % 2, 1 + (unsigned)rand() % 2);
        send_some(&t);
    }
    fault_set(NULL, 0, 0, 0);
    rescan(t.s);
    assert_int_equal(t.s->seen_count, t.count);
    assert_int_equal(t.s->quarantined, 0);
    for (unsigned i = 0; i < t.s->seen_count; i++) {
        const struct seen *m = &t.s->seen[i];
        read_back(t.s, &m->id, &m->ref, 1000);
        assert_string_equal(t.s->error, "");
        char *text = slice_dup(buf_slice(&t.s->content));
        assert_non_null(strstr(text, m->id.text));
        free(text);
    }
    end_spool(t.s);
}

static void test_F25_EIO_on_read(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &id, body, 1), 0);
    fault_set("store.read", EIO, 0, 1);
    read_back(s, &id, &s->ref, 1000);
    assert_string_not_equal(s->error, "");
    assert_int_equal(s->damaged, 0); /* the disk's fault: the message stays */
    read_back(s, &id, &s->ref, 1000);
    assert_string_equal(s->error, "");
    end_spool(s);
}

static void test_F26_read_only(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    open_spool(s, default_config());
    fault_set("store.write", EROFS, 0, 1);
    assert_int_equal(commit_one(s, &id, body, 1), 451);
    while (s->state != SPOOL_BAD)
        event_base_loop(s->base, EVLOOP_ONCE);
    assert_int_equal(count_messages(), 0);
    end_spool(s);
}

static void test_large_fsync_fails(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    struct store_commit c;
    (void)state;
    open_spool(s, default_config());
    store_large_create(s->store, &id, on_nothing, s);
    wait_answer(s);
    assert_int_equal(pwrite(s->fd, "body", 4, SPOOL_LARGE_BODY), 4);
    fill_commit(s, &c, &id, slice_make(NULL, 0), 1);
    c.large_fd = s->fd;
    c.large_len = 4;
    fault_set("store.large_fsync", EIO, 0, 1);
    store_commit(s->store, &c);
    wait_answer(s);
    assert_int_equal(s->code, 451);
    assert_int_equal(count_messages() + count_entries("tmp"), 0);
    end_spool(s);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_F21_reserve),
#ifdef POSTERN_FAULTS
        cmocka_unit_test(test_F04_F05_killed_before_the_name),
        cmocka_unit_test(test_F06_killed_before_fsync),
        cmocka_unit_test(test_F07_killed_before_the_answer),
        cmocka_unit_test(test_killed_while_finishing),
        cmocka_unit_test(test_F21_F23_no_space),
        cmocka_unit_test(test_F22_no_space_for_a_record),
        cmocka_unit_test(test_F24_EIO_on_fsync),
        cmocka_unit_test(test_syncfs_failure_of_others),
        cmocka_unit_test(test_batches_that_overlap_and_fail),
        cmocka_unit_test(test_F25_EIO_on_read),
        cmocka_unit_test(test_F26_read_only),
        cmocka_unit_test(test_large_fsync_fails),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

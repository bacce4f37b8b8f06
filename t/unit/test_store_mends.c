/* libraries: qmgr_parts */
/* What the spool's journal must not do when calls fail at the worst moment: each test is of
 * one mistake that was made once. Calls of libc are watched, held up or lost here. */
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/fault.h"

#define STORE_HARNESS_JOURNAL .journal_size = 1 << 20
#include "qmgr/store_internal.h"
#include "spool/journal.h"
#include "store_harness.h"

#ifdef POSTERN_FAULTS

static const struct slice body = SLICE("Subject: x\r\n\r\nhello\r\n");
enum { FOREVER = 1 << 30, PIECE_US = 2000, AGAIN = 77, GATE_PIECES = 5000 };

/* ---- calls that are watched ------------------------------------------------------------- */

static struct {
    atomic_bool lose;       /* what is written to the ring once there is a file: it succeeds,
                             * and nothing is there */
    atomic_uint lost;       /* such writes */
    atomic_uint ring_syncs; /* of the ring alone, since the last of them */
    atomic_uint slow_from;  /* writes from this one on are held up; 0: none */
    atomic_uint writes;
    atomic_size_t status_at; /* in writes of whole files: a byte that has to be 'S'; 0: any */
    atomic_uint whole, torn; /* such writes; those that had something else there */
    atomic_uint starve_at;   /* after so many of them no file can be opened; 0: any can */
    atomic_bool hold;        /* syncfs waits until corrupt/ has something, and fails */
    atomic_bool sync_gate;   /* syncfs waits while this is set */
    atomic_int ring_gate;    /* writes of blocks to this descriptor wait, if it is not 0... */
    atomic_uint let;         /* ...but so many */
    atomic_uint syncs_held, blocks_held; /* that came to a gate so far */
} calls;

static void a_moment(void)
{
    const struct timespec t = {0, PIECE_US * 1000L};
    nanosleep(&t, NULL);
}

/* No gate holds for ever: then a test fails. */
static void pass_sync_gate(void)
{
    calls.syncs_held++;
    for (int i = 0; i < GATE_PIECES && calls.sync_gate; i++)
        a_moment();
}

static void pass_ring_gate(void)
{
    calls.blocks_held++;
    for (int i = 0; i < GATE_PIECES && calls.ring_gate && calls.let == 0; i++)
        a_moment();
    if (calls.let > 0)
        calls.let--;
}

static void descriptors(rlim_t most)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = most < limit.rlim_max ? most : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at)
{
    if (calls.ring_gate && fd == calls.ring_gate && at >= JOURNAL_PAGE)
        pass_ring_gate();
    unsigned number = ++calls.writes;
    size_t status_at = calls.status_at;
    if (status_at && at == 0 && len > status_at) {
        calls.torn += ((const char *)bytes)[status_at] != 'S';
        if (++calls.whole == calls.starve_at)
            descriptors(0);
    } else if (calls.lose && calls.whole > 0) {
        calls.lost++;
        calls.ring_syncs = 0;
        return (ssize_t)len;
    }
    for (unsigned i = 0; calls.slow_from && number >= calls.slow_from && i < 200; i++)
        a_moment();
    return syscall(SYS_pwrite64, fd, bytes, len, at);
}

int fdatasync(int fd)
{
    calls.ring_syncs++;
    return (int)syscall(SYS_fdatasync, fd);
}

int syncfs(int fd)
{
    if (calls.sync_gate)
        pass_sync_gate();
    if (!calls.hold)
        return (int)syscall(SYS_syncfs, fd);
    for (int i = 0; i < 200 && count_entries("corrupt") == 0; i++)
        a_moment();
    errno = EIO;
    return -1;
}

/* ---- helpers ------------------------------------------------------------------------------ */

static void on_sync(const char *error, void *arg)
{
    struct spool *s = arg;
    s->answered = true;
    snprintf(s->error, sizeof s->error, "%s", error ? error : "");
}

static void sync_now(struct spool *s)
{
    store_sync(s->store, on_sync, s);
    wait_answer(s);
}

static void append(struct spool *s, const struct id *id, struct store_ref *ref, struct slice text,
                   void (*done)(const char *error, void *arg))
{
    struct buf record = BUF_INIT(SPOOL_RECORD_MAX);
    struct spool_record r = {.type = SPOOL_RECORD_FLAGS, .attempts = 1, .text = text};
    assert_int_equal(spool_record_encode(&record, id, &r), 0);
    store_record(s->store, id, ref, buf_slice(&record), done, s);
    buf_free(&record);
}

static void wait_files(struct spool *s, unsigned count)
{
    while (count_messages() < count)
        settle(s);
}

static void wait_bad(struct spool *s)
{
    while (s->state != SPOOL_BAD)
        event_base_loop(s->base, EVLOOP_ONCE);
}

static pid_t in_child(struct spool *s)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        open_spool(s, default_config());
    return child;
}

static void wait_killed(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* ---- after a failed sync nothing is let go ------------------------------------------------ */

/* What a sync of the ring alone fails for. */
static void fail_the_ring(struct spool *s)
{
    fault_set("journal.sync", EIO, 0, 1);
    while (calls.lost == 0)
        settle(s);
    calls.lose = false;
    wait_bad(s);
}

static void on_record(const char *error, void *arg)
{
    ((struct spool *)arg)->code = error ? EIO : 0;
}

/* The same for the ring and a file side by side, which a record waits for. */
static void fail_both(struct spool *s, const struct id *id, struct store_ref *ref)
{
    fault_set("store.syncfs", EIO, 0, FOREVER);
    while (calls.lost == 0)
        settle(s);
    calls.lose = false;
    fault_set("store.file_fsync", EIO, 0, 2);
    append(s, id, ref, SLICE("x"), on_record);
    wait_bad(s);
    if (calls.ring_syncs > 0)
        _exit(AGAIN); /* too late: the ring was synced by itself before */
}

/* A message has a durable file, and the word of that is lost on its way to the disk, which
 * says so once. Until a restart the ring has to hear all of this message. */
static void lose_the_word(struct spool *s, const struct id *id, bool with_a_file)
{
    assert_int_equal(commit_one(s, id, body, 3), 0);
    struct store_ref ref = s->ref;
    calls.status_at = ref.status_at;
    calls.lose = true; /* first the file is written; what follows is FILED */
    if (with_a_file)
        fail_both(s, id, &ref);
    else
        fail_the_ring(s);
    fault_set(NULL, 0, 0, 0);
    store_mark(s->store, id, &ref, 1, SPOOL_SENT);
    sync_now(s);
    sync_now(s);
    store_mark(s->store, id, &ref, 2, SPOOL_SENT);
    settle(s);
    settle(s);
    raise(SIGKILL);
}

static void check_lost_word(bool with_a_file)
{
    int status = 0;
    for (int tries = 0; tries < 10; tries++) {
        struct spool *s = new_spool();
        struct id id = id_new();
        pid_t child = in_child(s);
        if (child == 0)
            lose_the_word(s, &id, with_a_file);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
            rescan(s);
            assert_int_equal(s->seen_count, 1);
            assert_string_equal(s->seen[0].status, "PSS");
            assert_int_equal(count_entries("corrupt"), 0);
            end_spool(s);
            return;
        }
        end_spool(s);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == AGAIN);
    }
    fail_msg("the machine is too busy for this test");
}

static void test_F24_after_a_failed_sync_nothing_is_let_go(void **state)
{
    (void)state;
    check_lost_word(false);
}

static void test_F24_after_a_failed_sync_beside_files_nothing_is_let_go(void **state)
{
    (void)state;
    check_lost_word(true);
}

/* ---- a mark that found no room is noted once ------------------------------------------------ */

/* Commits until the ring has no room; the number of messages. */
static unsigned fill_ring(struct spool *s, struct id *first, struct store_ref *ref)
{
    static char text[20000];
    unsigned count = 0;
    memset(text, 'x', sizeof text);
    fault_set("store.create", ENOSPC, 0, FOREVER);
    for (;; count++) {
        struct id id = id_new();
        if (commit_one(s, &id, slice_make(text, sizeof text), 1) != 0)
            break;
        if (count == 0) {
            *first = id;
            *ref = s->ref;
        }
    }
    fault_set(NULL, 0, 0, 0);
    return count;
}

/* Lets the loop run until so many calls have come to their gate. */
static void wait_held(struct spool *s, atomic_uint *held, unsigned count)
{
    for (int i = 0; *held < count; i++) {
        assert_true(i < GATE_PIECES);
        event_base_loop(s->base, EVLOOP_NONBLOCK);
        a_moment();
    }
}

static void wait_landed(struct store *s)
{
    for (unsigned landed = 0, i = 0; landed == 0; i++) {
        assert_true(i < GATE_PIECES);
        a_moment();
        pthread_mutex_lock(&s->mutex);
        landed = s->landed;
        pthread_mutex_unlock(&s->mutex);
    }
}

static unsigned length(const struct list *head, unsigned most)
{
    unsigned n = 0;
    for (const struct list *at = head->next; at != head && n <= most; at = at->next)
        n++;
    return n;
}

/* Files of messages were written and are being synced. In one turn of the disk thread it hears
 * that they are durable, of which the ring is told in the next block, and of changes of one of
 * them, *id, more than has room. Returns how many messages that block says to have files,
 * when the thread is about to write it. */
static unsigned filed_and_changed(struct spool *s, struct id *id, struct store_ref ref,
                                  unsigned records, unsigned most)
{
    struct journal *j = &s->store->disk.journal;
    static char text[1000];
    memset(text, 'y', sizeof text);
    calls.ring_gate = j->fd; /* the disk thread stops at the end of its turn with this mark */
    store_mark(s->store, id, &ref, 0, SPOOL_SENT);
    wait_held(s, &calls.blocks_held, 1);
    *id = container_of(j->filed.next, struct kept, stage)->id; /* it stands still */
    ref.bucket = store_bucket_of(id);                          /* all are alike */
    calls.sync_gate = false;
    wait_landed(s->store);
    for (unsigned i = 0; i < records; i++)
        append(s, id, &ref, slice_make(text, sizeof text), NULL);
    while (!list_empty(&s->store->outbox))
        event_base_loop(s->base, EVLOOP_NONBLOCK);
    calls.let = 1; /* and again at the end of the next one */
    wait_held(s, &calls.blocks_held, 2);
    assert_false(list_empty(&j->pending));
    unsigned noted = length(&j->noting, most);
    calls.ring_gate = 0;
    return noted;
}

static void test_F21_a_change_that_finds_no_room_is_noted_once(void **state)
{
    enum { RECORDS = 60 };
    struct spool *s = new_spool();
    struct id id, next = id_new();
    struct store_ref ref;
    (void)state;
    open_spool(s, default_config());
    calls.sync_gate = true;
    unsigned count = fill_ring(s, &id, &ref);
    assert_true(count > 10);
    wait_files(s, count);
    wait_held(s, &calls.syncs_held, 1);
    unsigned noted = filed_and_changed(s, &id, ref, RECORDS, count);
    /* the sync that came to its end was of the first of them, at least */
    assert_true(noted > 1 && noted <= count);
    for (unsigned i = 0; i < 4; i++)
        sync_now(s);
    assert_string_equal(s->error, "");
    /* the ring has let them all go: there is room again */
    assert_int_equal(commit_one(s, &next, body, 1), 0);
    assert_int_equal(count_messages(), count);
    rescan(s);
    assert_int_equal(s->seen_count, count + 1);
    for (unsigned i = 0; i < s->seen_count; i++)
        if (strcmp(s->seen[i].id.text, id.text) == 0)
            assert_int_equal(s->seen[i].records, RECORDS);
    end_spool(s);
}

/* ---- an operator's change that is not in the ring -------------------------------------------- */

static void test_F22_a_change_that_is_not_in_the_ring_is_not_called_done(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    open_spool(s, default_config());
    fault_set("store.create", ENOSPC, 0, FOREVER);
    assert_int_equal(commit_one(s, &id, body, 3), 0);
    struct store_ref ref = s->ref;
    fault_set("journal.write", ENOSPC, 0, FOREVER);
    store_mark(s->store, &id, &ref, 1, SPOOL_SENT);
    sync_now(s);
    assert_string_not_equal(s->error, "");
    assert_int_equal(s->state, SPOOL_OK);
    fault_set(NULL, 0, 0, 0);
    settle(s);
    settle(s);
    sync_now(s);
    assert_string_equal(s->error, "");
    rescan(s);
    assert_string_equal(s->seen[0].status, "PSP");
    end_spool(s);
}

/* ---- files are written in one piece ---------------------------------------------------------- */

/* A reader may look at any moment: no mark is ever missing. */
static void test_a_file_is_rewritten_in_one_piece(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    open_spool(s, default_config());
    assert_int_equal(commit_one(s, &id, body, 3), 0);
    struct store_ref ref = s->ref;
    store_mark(s->store, &id, &ref, 1, SPOOL_SENT);
    settle(s);
    calls.status_at = ref.status_at + 1;
    fault_set("store.syncfs", EIO, 0, FOREVER); /* the file is asked itself, and written again */
    wait_files(s, 1);
    sync_now(s);
    assert_string_equal(s->error, "");
    calls.status_at = 0;
    fault_set(NULL, 0, 0, 0);
    assert_true(calls.whole >= 2);
    assert_int_equal(calls.torn, 0);
    end_spool(s);
}

/* ---- a refusal comes after the words that the message is over -------------------------------- */

static void test_P2_a_message_is_over_before_its_451(void **state)
{
    struct spool *s = new_spool();
    struct id id = id_new();
    (void)state;
    pid_t child = in_child(s);
    if (child == 0) {
        fault_set("journal.sync", EIO, 0, 1);
        calls.slow_from = calls.writes + 2; /* the block with the message is the first */
        if (commit_one(s, &id, body, 1) == 451)
            raise(SIGKILL);
        _exit(1);
    }
    wait_killed(child);
    rescan(s);
    assert_int_equal(s->seen_count, 0);
    end_spool(s);
}

/* ---- descriptors that are closed too early --------------------------------------------------- */

static void on_damaged(const struct store_found *found, const char *error, void *arg)
{
    (void)error;
    assert_null(found);
    ((struct spool *)arg)->code = 1;
}

/* A record is on its way to the disk when a reader finds the message's file damaged: the
 * record's descriptor is not closed before it was synced. */
static void test_B77_quarantine_waits_for_a_record_under_way(void **state)
{
    struct spool *s = new_spool();
    struct store_config files = *default_config();
    struct id id = id_new();
    char path[128];
    (void)state;
    files.journal_size = 0;
    files.open_max = 0; /* no descriptor is kept: the record has one of its own */
    open_spool(s, &files);
    assert_int_equal(commit_one(s, &id, body, 1), 0);
    struct store_ref ref = s->ref;
    sync_now(s);
    store_unload(s->store, &id, &ref);
    settle(s);
    message_path(path, &id);
    overwrite(path, 0, "no magic", 8);
    s->code = 0;
    calls.hold = true;
    append(s, &id, &ref, SLICE("x"), on_sync);
    store_load(s->store, &id, &ref, on_damaged, s);
    wait_answer(s);
    calls.hold = false;
    while (s->code == 0 || count_entries("corrupt") == 0)
        event_base_loop(s->base, EVLOOP_ONCE);
    sync_now(s);
    assert_int_equal(s->state, SPOOL_OK);
    end_spool(s);
}

/* ---- a shortage of descriptors passes ----------------------------------------------------------
 */

static void test_F27_files_that_cannot_be_opened_are_asked_later(void **state)
{
    enum { MANY = 5 };
    struct spool *s = new_spool();
    struct id id;
    struct store_ref ref = {.fd = -1};
    char path[128];
    (void)state;
    open_spool(s, default_config());
    fault_set("store.syncfs", EIO, 0, FOREVER); /* each file is asked */
    for (int i = 0; i < MANY; i++) {
        id = id_new();
        assert_int_equal(commit_one(s, &id, body, 3), 0);
        ref = s->ref;
    }
    calls.whole = 0;
    calls.starve_at = MANY;
    calls.status_at = ref.status_at;
    while (calls.whole < MANY)
        event_base_loop(s->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    calls.status_at = 0;
    sync_now(s);
    sync_now(s);
    assert_string_equal(s->error, ""); /* the ring has it all */
    assert_int_equal(s->state, SPOOL_OK);
    descriptors(1024);
    wait_files(s, MANY);
    sync_now(s); /* the files, and then the word that they are there */
    sync_now(s);
    assert_string_equal(s->error, "");
    assert_int_equal(s->state, SPOOL_OK);
    fault_set(NULL, 0, 0, 0);
    /* by hand, to tell which of both is believed now */
    message_path(path, &id);
    overwrite(path, (long)ref.status_at + 2, "D", 1);
    rescan(s);
    assert_int_equal(s->seen_count, MANY);
    for (unsigned i = 0; i < s->seen_count; i++)
        if (strcmp(s->seen[i].id.text, id.text) == 0)
            assert_string_equal(s->seen[i].status, "PPD");
    end_spool(s);
}

#endif

int main(void)
{
#ifdef POSTERN_FAULTS
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_F24_after_a_failed_sync_nothing_is_let_go),
        cmocka_unit_test(test_F24_after_a_failed_sync_beside_files_nothing_is_let_go),
        cmocka_unit_test(test_F21_a_change_that_finds_no_room_is_noted_once),
        cmocka_unit_test(test_F22_a_change_that_is_not_in_the_ring_is_not_called_done),
        cmocka_unit_test(test_a_file_is_rewritten_in_one_piece),
        cmocka_unit_test(test_P2_a_message_is_over_before_its_451),
        cmocka_unit_test(test_B77_quarantine_waits_for_a_record_under_way),
        cmocka_unit_test(test_F27_files_that_cannot_be_opened_are_asked_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
#else
    return 0;
#endif
}

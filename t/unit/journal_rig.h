/* A store with a journal, as the tests of it use it: a small message, records, kills. */
#ifndef POSTERN_T_JOURNAL_RIG_H
#define POSTERN_T_JOURNAL_RIG_H

#include <signal.h>
#include <sys/wait.h>

#include "core/fault.h"

#define STORE_HARNESS_JOURNAL .journal_size = 1 << 20
#include "store_harness.h"

static const struct slice body = SLICE("Subject: x\r\n\r\nhello\r\n");

static inline void on_record(const char *error, void *arg)
{
    struct spool *s = arg;
    s->answered = true;
    snprintf(s->error, sizeof s->error, "%s", error ? error : "");
}

static inline void sync_now(struct spool *s)
{
    store_sync(s->store, on_record, s);
    wait_answer(s);
}

/* Appends a record; its error, if any, is in s->error. */
static inline void add_record(struct spool *s, const struct id *id, struct store_ref *ref,
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
static inline void after_kill(struct spool *s, void (*work)(struct spool *s, const struct id *id),
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

static inline void check_sound(struct spool *s, const struct id *id, struct store_ref *ref)
{
    read_back(s, id, ref, 1000);
    assert_string_equal(s->error, "");
    assert_int_equal(s->content.len, 16 + body.len);
}

static inline void commit_it(struct spool *s, const struct id *id)
{
    assert_int_equal(commit_one(s, id, body, 3), 0);
    assert_int_equal(count_messages(), 0); /* no file yet */
}

/* Waits until the message has a file. */
static inline void wait_file(struct spool *s)
{
    while (count_messages() == 0)
        settle(s);
}

#endif

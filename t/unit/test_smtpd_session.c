/* libraries: smtpd_parts */
/* What the end-to-end tests cannot see or would take minutes for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/clock.h"
#include "t/unit/smtpd_world.h"

static struct {
    unsigned commits, aborts, large_opens;
    uint64_t tag;
} seen;

static void note_frame(struct world *w, const struct ipc_frame *f)
{
    struct ipc_commit commit;
    (void)w;
    seen.commits += f->number == IPC_NUMBER_ipc_commit;
    seen.aborts += f->number == IPC_NUMBER_ipc_abort;
    seen.large_opens += f->number == IPC_NUMBER_ipc_large_open;
    if (f->number == IPC_NUMBER_ipc_commit && ipc_commit_decode(f->body, &commit) == 0)
        seen.tag = commit.tag;
}

static int set_up(void **state)
{
    static struct world w;
    struct buf out = BUF_INIT(4096);
    memset(&seen, 0, sizeof seen);
    world_open(&w, "myhostname = relay.test\n");
    w.frame = note_frame;
    ipc_spool_state_encode(
        &out,
        &(struct ipc_spool_state){.state = SPOOL_OK, .commit_credit = 10, .byte_credit = 1 << 20});
    world_answer(&w, &out, -1);
    buf_free(&out);
    world_run(&w);
    world_connect(&w);
    world_run(&w);
    *state = &w;
    return world_reply(&w) == 220 ? 0 : -1;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    world_close(w);
    return w->server.session_count == 0 ? 0 : -1;
}

static int say(struct world *w, const char *text)
{
    world_send(w, slice_str(text));
    world_run(w);
    return world_reply(w);
}

static void envelope(struct world *w)
{
    assert_int_equal(say(w, "EHLO client.test\r\n"), 250);
    assert_int_equal(say(w, "MAIL FROM:<a@src.test>\r\n"), 250);
    assert_int_equal(say(w, "RCPT TO:<b@dst.test>\r\n"), 250);
}

static void message(struct world *w)
{
    envelope(w);
    assert_int_equal(say(w, "DATA\r\n"), 354);
    assert_int_equal(say(w, "Subject: x\r\n\r\nbody\r\n.\r\n"), 0);
    assert_int_equal(seen.commits, 1);
}

/* Runs the loop until the client has a reply, with every wait cut short. */
static int await_reply(struct world *w, enum timeout_kind kind)
{
    int code;
    w->server.timeouts.lasts[kind] = 0;
    while ((code = world_reply(w)) == 0) {
        event_base_loop(w->base, EVLOOP_ONCE);
        channel_flush_all();
        world_receive(w);
    }
    return code;
}

static void test_an_idle_session_is_small(void **state)
{
    const struct world *w = *state;
    const struct session *s = world_session(w);
    assert_true(sizeof *s + strlen(s->peer) < 2048);
    assert_null(s->in.data);
    assert_null(s->out.data);
    assert_true(tx_is_clean(&s->tx));
}

static void test_a_silent_qmgr_is_given_up(void **state)
{
    struct world *w = *state;
    message(w);
    assert_int_equal(await_reply(w, TIMEOUT_COMMIT), 451);
    world_run(w);
    assert_int_equal(seen.aborts, 1);
    assert_int_equal(w->server.link.commits, 0);
    assert_true(tx_is_clean(&world_session(w)->tx));
}

/* COMMITTED that crosses our ABORT finds nobody, and must not be taken for the
 * answer to a later message. */
static void test_a_late_answer_is_ignored(void **state)
{
    struct world *w = *state;
    struct buf out = BUF_INIT(4096);
    message(w);
    uint64_t first = seen.tag;
    assert_int_equal(await_reply(w, TIMEOUT_COMMIT), 451);
    w->server.timeouts.lasts[TIMEOUT_COMMIT] = 100 * CLOCK_SECOND;
    seen.commits = 0;
    message(w);
    assert_int_not_equal(seen.tag, first);
    ipc_committed_encode(&out, &(struct ipc_committed){.tag = first});
    world_answer(w, &out, -1);
    world_run(w);
    assert_int_equal(world_reply(w), 0);
    buf_clear(&out);
    ipc_committed_encode(&out, &(struct ipc_committed){.tag = seen.tag});
    world_answer(w, &out, -1);
    world_run(w);
    assert_int_equal(world_reply(w), 250);
    buf_free(&out);
}

/* F34: content that dribbles in; the first minute is free. */
static void test_F34_content_that_is_too_slow(void **state)
{
    struct world *w = *state;
    envelope(w);
    assert_int_equal(say(w, "DATA\r\n"), 354);
    world_session(w)->tx.content->began -= 59 * CLOCK_SECOND;
    assert_int_equal(say(w, "Subject: x\r\n"), 0);
    world_session(w)->tx.content->began -= 2 * CLOCK_SECOND;
    assert_int_equal(say(w, "X: y\r\n"), 421);
}

/* F34: a command that comes byte by byte has one time-out, not one for each. */
static void test_F34_command_that_is_too_slow(void **state)
{
    struct world *w = *state;
    const struct session *s = world_session(w);
    envelope(w);
    int64_t since = s->timeout.since;
    assert_int_equal(say(w, "RCPT TO:<"), 0);
    assert_int_equal(say(w, "c@dst"), 0);
    assert_true(s->timeout.since == since);
    assert_int_equal(say(w, ".test>\r\n"), 250);
    assert_true(s->timeout.since > since);
    since = s->timeout.since;
    assert_int_equal(say(w, "DATA\r\nSub"), 554); /* whatever ends it has its own time */
    assert_true(s->timeout.since > since);
}

/* F34, B38: neither empty chunks nor one now and then keep a transaction for ever. */
static void test_F34_chunks_without_content(void **state)
{
    struct world *w = *state;
    envelope(w);
    for (int i = 0; i < 100; i++)
        assert_int_equal(say(w, "BDAT 0\r\n"), 250);
    assert_int_equal(say(w, "BDAT 0\r\n"), 421);
    world_disconnect(w);
    world_connect(w);
    world_run(w);
    assert_int_equal(world_reply(w), 220);
    envelope(w);
    assert_int_equal(say(w, "BDAT 0\r\n"), 250);
    world_session(w)->tx.content->began -= 61 * CLOCK_SECOND;
    assert_int_equal(say(w, "BDAT 0\r\n"), 421);
}

/* What is sent ahead while the answer is awaited is memory, too. */
static void test_input_sent_ahead_is_counted(void **state)
{
    struct world *w = *state;
    char ahead[20000];
    for (size_t i = 0; i < sizeof ahead; i++)
        ahead[i] = "NOOP\n"[i % 5];
    envelope(w);
    assert_int_equal(say(w, "DATA\r\n"), 354);
    struct buf all = BUF_INIT(100000);
    buf_addstr(&all, "Subject: x\r\n\r\nbody\r\n.\r\n");
    buf_add(&all, ahead, sizeof ahead);
    uint64_t others = (uint64_t)w->config->smtpd_memory_limit - 10000;
    w->server.memory += others;
    assert_true(send(w->client, all.data, all.len, 0) == (ssize_t)all.len);
    world_run(w);
    assert_int_equal(seen.commits, 1);
    const struct session *s = world_session(w);
    assert_in_range(s->in.cap, 1, 2 * INPUT_TIGHT);
    assert_true(w->server.memory - others >= s->in.cap);
    w->server.memory -= others;
    buf_clear(&all);
    ipc_committed_encode(&all, &(struct ipc_committed){.tag = seen.tag});
    world_answer(w, &all, -1);
    buf_free(&all);
    world_run(w);
    assert_int_equal(world_reply(w), 250);
    world_disconnect(w);
    assert_int_equal(w->server.memory, 0);
}

static void test_a_session_ends_between_messages_after_its_time(void **state)
{
    struct world *w = *state;
    envelope(w);
    world_session(w)->started -= 86401 * CLOCK_SECOND;
    assert_int_equal(say(w, "RCPT TO:<c@dst.test>\r\n"), 250);
    assert_int_equal(say(w, "RSET\r\n"), 250);
    assert_int_equal(world_reply(w), 421);
}

/* After QUIT's 221 or a 421 the session takes nothing more, however much came. */
static void test_nothing_is_taken_behind_quit(void **state)
{
    struct world *w = *state;
    envelope(w);
    world_send(w, SLICE("QUIT\r\nDATA\r\n"));
    world_run(w);
    assert_int_equal(world_reply(w), 221);
    assert_int_equal(world_reply(w), 0);
    assert_null(world_session(w));
}

static void test_content_memory_is_given_back(void **state)
{
    struct world *w = *state;
    envelope(w);
    assert_int_equal(say(w, "DATA\r\n"), 354);
    assert_int_equal(say(w, "Subject: x\r\n\r\nhalf a body\r\n"), 0);
    assert_true(w->server.memory > 0);
    world_disconnect(w);
    assert_int_equal(w->server.memory, 0);
    assert_int_equal(seen.commits, 0);
}

static void test_B07_long_command_does_not_grow_the_session(void **state)
{
    struct world *w = *state;
    char block[64 * 1024];
    memset(block, 'x', sizeof block);
    for (int i = 0; i < 8; i++)
        world_send(w, slice_make(block, sizeof block));
    assert_true(world_session(w)->in.cap <= SERVER_INPUT);
    assert_int_equal(world_session(w)->in.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_idle_session_is_small, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_silent_qmgr_is_given_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_late_answer_is_ignored, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_F34_content_that_is_too_slow, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_F34_command_that_is_too_slow, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_F34_chunks_without_content, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_input_sent_ahead_is_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_session_ends_between_messages_after_its_time, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_is_taken_behind_quit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_content_memory_is_given_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_B07_long_command_does_not_grow_the_session, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: smtpd_parts */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "t/unit/smtpd_world.h"

#define LABEL_63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void test_B68_what_may_be_a_name(void **state)
{
    static const struct {
        struct slice name;
        bool good;
    } rows[] = {
        {SLICE("mail.example.test"), true},
        {SLICE("localhost"), true},
        {SLICE("xn--bcher-kva.test"), true},
        {SLICE("1-2_3.test"), true},
        {SLICE(LABEL_63 ".test"), true},
        {SLICE(LABEL_63 "a.test"), false},
        {SLICE(LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_63), false},
        {SLICE(""), false},
        {SLICE("."), false},
        {SLICE(".test"), false},
        {SLICE("a..test"), false},
        {SLICE("a.test."), false},
        {SLICE("a b.test"), false},
        {SLICE("a\0b.test"), false},
        {SLICE("a\r\n.test"), false},
        {SLICE("a\x1b.test"), false},
        {SLICE("a[1].test"), false},
        {SLICE("b\xc3\xbc"
               "cher.test"),
         false},
        {SLICE("a/b"), false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(names_is_host(rows[i].name), rows[i].good);
}

/* ---- resolve's answers ------------------------------------------------------------ */

static struct world world;
static int resolve; /* its end of the channel */

static void no_frame(struct world *w, const struct ipc_frame *f)
{
    (void)w;
    (void)f;
}

static void attach(void)
{
    struct err e;
    int ends[2];
    assert_int_equal(channel_pair(ends, &e), 0);
    resolve = ends[0];
    names_attach(&world.server.names, ends[1]);
}

/* A client has connected and waits; returns the question's tag. */
static uint64_t ask(void)
{
    char packet[1024];
    struct ipc_frame f;
    struct ipc_name_request m;
    world_connect(&world);
    world_run(&world);
    assert_int_equal(world_reply(&world), 0);
    ssize_t n = recv(resolve, packet, sizeof packet, MSG_DONTWAIT);
    assert_true(n > 0);
    struct slice rest = slice_make(packet, (size_t)n);
    assert_int_equal(ipc_frame_next(&rest, &f), 1);
    assert_int_equal(ipc_name_request_decode(f.body, &m), 0);
    assert_true(slice_eq(m.address, SLICE("\x7f\0\0\1")));
    return m.tag;
}

static void answer(uint64_t tag, uint8_t status, struct slice host)
{
    struct buf out = BUF_INIT(IPC_FRAME_MAX);
    ipc_name_reply_encode(&out, &(struct ipc_name_reply){tag, status, host});
    assert_int_equal(channel_send_now(resolve, buf_slice(&out), -1), 0);
    buf_free(&out);
    world_run(&world);
}

static void greeted_as(const char *peer)
{
    assert_int_equal(world_reply(&world), 220);
    assert_string_equal(world_session(&world)->peer, peer);
    world_disconnect(&world);
}

static int set_up(void **state)
{
    (void)state;
    world_open(&world, "myhostname = relay.test\nsmtpd_peername_lookup = yes\n");
    world.frame = no_frame;
    attach();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    world_close(&world);
    close(resolve);
    return 0;
}

static void test_the_answer_is_the_name(void **state)
{
    (void)state;
    answer(ask(), NAME_FOUND, SLICE("mail.test"));
    greeted_as("mail.test[127.0.0.1]");
    answer(ask(), NAME_NONE, SLICE(""));
    greeted_as("unknown[127.0.0.1]");
}

static void test_a_name_that_resolve_does_not_vouch_for_is_unknown(void **state)
{
    (void)state;
    for (unsigned status = NAME_NONE; status < 255; status += 50) {
        answer(ask(), (uint8_t)status, SLICE("mail.test"));
        greeted_as("unknown[127.0.0.1]");
    }
    answer(ask(), NAME_FOUND, SLICE("mail\n.test"));
    greeted_as("unknown[127.0.0.1]");
    answer(ask(), NAME_FOUND, SLICE("127.0.0.1] x[9.9.9.9"));
    greeted_as("unknown[127.0.0.1]");
}

static void test_B91_answers_that_nobody_asked_for(void **state)
{
    (void)state;
    uint64_t tag = ask();
    answer(tag + 1, NAME_FOUND, SLICE("other.test"));
    assert_int_equal(world_reply(&world), 0);
    answer(tag, NAME_FOUND, SLICE("mail.test"));
    answer(tag, NAME_FOUND, SLICE("again.test"));
    greeted_as("mail.test[127.0.0.1]");
    answer(tag, NAME_FOUND, SLICE("again.test"));
    tag = ask();
    world_disconnect(&world);
    answer(tag, NAME_FOUND, SLICE("mail.test"));
    assert_null(world_session(&world));
}

static void test_without_resolve_the_client_is_unknown_at_once(void **state)
{
    (void)state;
    ask();
    close(resolve);
    world_run(&world);
    greeted_as("unknown[127.0.0.1]");
    world_connect(&world);
    world_run(&world);
    greeted_as("unknown[127.0.0.1]");
    attach();
    answer(ask(), NAME_FOUND, SLICE("mail.test"));
    greeted_as("mail.test[127.0.0.1]");
}

static void test_a_new_channel_takes_the_old_ones_place(void **state)
{
    int old = resolve;
    (void)state;
    ask();
    attach();
    world_run(&world);
    greeted_as("unknown[127.0.0.1]");
    answer(ask(), NAME_FOUND, SLICE("mail.test"));
    greeted_as("mail.test[127.0.0.1]");
    close(old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_B68_what_may_be_a_name),
        cmocka_unit_test_setup_teardown(test_the_answer_is_the_name, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_name_that_resolve_does_not_vouch_for_is_unknown,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_B91_answers_that_nobody_asked_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_resolve_the_client_is_unknown_at_once, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_new_channel_takes_the_old_ones_place, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

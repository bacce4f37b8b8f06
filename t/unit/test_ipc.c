/* libraries: postern_ipc */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/mem.h"
#include "ipc/channel.h"

/* ---- frames -------------------------------------------------------------- */

static void what_is_encoded_is_decoded(void **state)
{
    struct buf list = BUF_INIT(4096), out = BUF_INIT(IPC_FRAME_MAX);
    (void)state;
    ipc_rcpt_add(&list, &(struct ipc_rcpt){SLICE("a@b"), SLICE("rfc822;a@b"), 4});
    ipc_rcpt_add(&list, &(struct ipc_rcpt){SLICE("c@d"), SLICE(""), 0});
    ipc_commit_encode(&out, &(struct ipc_commit){.tag = 7,
                                                 .id = SLICE("ID"),
                                                 .arrival = -5,
                                                 .recipient_count = 2,
                                                 .recipients = buf_slice(&list),
                                                 .body = SLICE("x\0y")});
    struct slice packet = buf_slice(&out);
    struct ipc_frame f;
    struct ipc_commit m;
    assert_int_equal(ipc_frame_next(&packet, &f), 1);
    assert_int_equal(ipc_frame_next(&packet, &f), 0);
    assert_int_equal(ipc_commit_decode(f.body, &m), 0);
    assert_int_equal(m.tag, 7);
    assert_int_equal(m.arrival, -5);
    assert_true(slice_eq(m.body, SLICE("x\0y")));
    struct ipc_cursor c = ipc_list_cursor(m.recipients);
    struct ipc_rcpt r;
    assert_true(ipc_rcpt_next(&c, &r));
    assert_slice_is(r.orcpt, "rfc822;a@b");
    assert_true(ipc_rcpt_next(&c, &r));
    assert_slice_is(r.address, "c@d");
    assert_false(ipc_rcpt_next(&c, &r));
    assert_false(c.failed);
    buf_free(&list);
    buf_free(&out);
}

static void test_B89_missing_and_left_over_bytes_are_refused(void **state)
{
    struct buf out = BUF_INIT(IPC_FRAME_MAX);
    struct ipc_refused m;
    (void)state;
    ipc_refused_encode(&out, &(struct ipc_refused){1, 451, SLICE("4.3.0"), SLICE("text")});
    struct slice body = slice_from(buf_slice(&out), IPC_HEADER);
    assert_int_equal(ipc_refused_decode(body, &m), 0);
    for (size_t n = 0; n < body.len; n++)
        assert_int_equal(ipc_refused_decode(slice_first(body, n), &m), -1);
    buf_addc(&out, 'x');
    assert_int_equal(ipc_refused_decode(slice_from(buf_slice(&out), IPC_HEADER), &m), -1);
    buf_free(&out);
}

/* ---- channels ------------------------------------------------------------ */

struct end {
    struct channel *channel;
    int frames, fds, closed;
    uint64_t last_tag;
    bool refuse;
    char why[256];
};

static int on_frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg, struct err *e)
{
    struct end *end = arg;
    (void)c;
    end->frames++;
    if (fd >= 0) {
        char byte = 0;
        assert_int_equal(read(fd, &byte, 1), 1);
        assert_int_equal(byte, 'x');
        end->fds++;
        close(fd);
    }
    if (f->number == IPC_NUMBER_ipc_committed) {
        struct ipc_committed m;
        assert_int_equal(ipc_committed_decode(f->body, &m), 0);
        end->last_tag = m.tag;
    }
    return end->refuse ? err_set(e, "refused by the test") : 0;
}

static void on_closed(struct channel *c, const char *why, void *arg)
{
    struct end *end = arg;
    (void)c;
    end->closed++;
    end->channel = NULL;
    snprintf(end->why, sizeof end->why, "%s", why);
}

static const struct channel_ops ops = {on_frame, on_closed};

static void turn(struct event_base *base)
{
    channel_flush_all();
    event_base_loop(base, EVLOOP_NONBLOCK);
}

static void pipe_with_x(int *fd)
{
    int p[2];
    assert_int_equal(pipe(p), 0);
    assert_int_equal(write(p[1], "x", 1), 1);
    close(p[1]);
    *fd = p[0];
}

static void frames_and_descriptors_arrive_in_order(void **state)
{
    struct event_base *base = event_base_new();
    struct end a = {0}, b = {0};
    int fds[2], passed;
    struct err e;
    (void)state;
    assert_int_equal(channel_pair(fds, &e), 0);
    a.channel = channel_new(base, fds[0], "a", &ops, &a);
    b.channel = channel_new(base, fds[1], "b", &ops, &b);
    enum { N = 20000 };
    for (uint64_t i = 1; i <= N; i++) {
        ipc_committed_encode(channel_out(a.channel), &(struct ipc_committed){i});
        if (i % 4000 == 0) {
            pipe_with_x(&passed);
            ipc_large_fd_encode(channel_out(a.channel), &(struct ipc_large_fd){i});
            channel_attach(a.channel, passed);
            close(passed);
        }
    }
    for (int i = 0; i < 10000 && b.last_tag < N; i++)
        turn(base);
    turn(base);
    assert_int_equal(b.last_tag, N);
    assert_int_equal(b.fds, N / 4000);
    assert_int_equal(b.frames, N + N / 4000);
    assert_int_equal(channel_pending(a.channel), 0);
    channel_free(a.channel);
    for (int i = 0; i < 3; i++)
        turn(base);
    assert_int_equal(b.closed, 1);
    event_base_free(base);
}

/* Sends raw bytes (and a descriptor) to a channel; it must be closed. */
static void expect_closed(const void *bytes, size_t len, bool with_fd, const char *why)
{
    struct event_base *base = event_base_new();
    struct end b = {0};
    int fds[2], passed = -1;
    struct err e;
    assert_int_equal(channel_pair(fds, &e), 0);
    b.channel = channel_new(base, fds[1], "b", &ops, &b);
    if (with_fd)
        pipe_with_x(&passed);
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {(void *)(uintptr_t)bytes, len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (with_fd) {
        m.msg_control = control.bytes;
        m.msg_controllen = sizeof control.bytes;
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        *h = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(h), &passed, sizeof passed);
    }
    assert_int_equal(sendmsg(fds[0], &m, 0), (ssize_t)len);
    turn(base);
    assert_int_equal(b.closed, 1);
    assert_int_equal(b.frames, 0);
    if (!strstr(b.why, why))
        fail_msg("\"%s\" does not say \"%s\"", b.why, why);
    if (with_fd)
        close(passed);
    close(fds[0]);
    event_base_free(base);
}

static void test_B89_a_bad_frame_closes_the_channel(void **state)
{
    (void)state;
    expect_closed("\x00\x00\x00\x00\xff\x7f\x00\x00", 8, false, "undeclared");
    expect_closed("\xff\xff\xff\xff\x1a\x00\x00\x00", 8, false, "malformed");
    expect_closed("\x08\x00\x00\x00\x1a\x00\x00\x00", 8, false, "malformed");
    expect_closed("\x00\x00\x00\x00\x1a\x00\x02\x00", 8, false, "malformed");
    expect_closed("\x00", 1, false, "malformed");
}

static void test_B90_a_descriptor_where_none_is_declared_or_missing(void **state)
{
    static const char committed[] = "\x08\x00\x00\x00\x1a\x00\x01\x00\0\0\0\0\0\0\0\0";
    static const char large_fd[] = "\x08\x00\x00\x00\x16\x00\x00\x00\0\0\0\0\0\0\0\0";
    (void)state;
    expect_closed(committed, 16, true, "descriptor");
    expect_closed(large_fd, 16, false, "descriptor");
}

static void a_frame_the_owner_refuses_closes_the_channel(void **state)
{
    struct event_base *base = event_base_new();
    struct end a = {0}, b = {.refuse = true};
    int fds[2];
    struct err e;
    (void)state;
    assert_int_equal(channel_pair(fds, &e), 0);
    a.channel = channel_new(base, fds[0], "a", &ops, &a);
    b.channel = channel_new(base, fds[1], "b", &ops, &b);
    ipc_committed_encode(channel_out(a.channel), &(struct ipc_committed){1});
    ipc_committed_encode(channel_out(a.channel), &(struct ipc_committed){2});
    for (int i = 0; i < 4; i++)
        turn(base);
    assert_int_equal(b.frames, 1);
    assert_string_equal(b.why, "refused by the test");
    assert_int_equal(a.closed, 1);
    event_base_free(base);
}

/* A channel whose owner flushes from within a frame's callback, and which fails
 * at that moment, must not be freed under the callback. */
struct flusher {
    struct end end;
    int peer;
    bool closed_inside, inside;
};

static int flush_in_frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg,
                          struct err *e)
{
    struct flusher *t = arg;
    (void)f;
    (void)fd;
    (void)e;
    t->inside = true;
    t->end.frames++;
    if (t->peer >= 0)
        close(t->peer);
    t->peer = -1;
    ipc_committed_encode(channel_out(c), &(struct ipc_committed){1});
    channel_flush_all(); /* EPIPE */
    assert_int_equal(channel_pending(c), IPC_HEADER + 8);
    t->inside = false;
    return 0;
}

static void flusher_closed(struct channel *c, const char *why, void *arg)
{
    struct flusher *t = arg;
    t->closed_inside = t->inside;
    on_closed(c, why, &t->end);
}

static void a_channel_that_fails_inside_its_callback_ends_after_it(void **state)
{
    static const struct channel_ops flusher_ops = {flush_in_frame, flusher_closed};
    struct event_base *base = event_base_new();
    struct flusher t = {.end = {0}};
    struct buf two = BUF_INIT(4096);
    int fds[2];
    struct err e;
    (void)state;
    assert_int_equal(channel_pair(fds, &e), 0);
    t.peer = fds[0];
    channel_new(base, fds[1], "b", &flusher_ops, &t);
    ipc_committed_encode(&two, &(struct ipc_committed){1});
    ipc_committed_encode(&two, &(struct ipc_committed){2});
    assert_int_equal(send(fds[0], two.data, two.len, 0), two.len);
    turn(base);
    assert_int_equal(t.end.frames, 1);
    assert_int_equal(t.end.closed, 1);
    assert_false(t.closed_inside);
    assert_non_null(strstr(t.end.why, "send"));
    buf_free(&two);
    event_base_free(base);
}

/* A peer that is always a little behind, with descriptors under way all the
 * time, is not one that does not read: memory stays bounded and it goes on. */
static void a_slow_peer_with_descriptors_is_not_given_up(void **state)
{
    enum { ROUNDS = 1500, BYTES = 60 * 1024 };
    static char text[BYTES];
    static char block[IPC_FRAME_MAX];
    struct event_base *base = event_base_new();
    struct end a = {0};
    struct slice large = slice_make(text, sizeof text);
    int fds[2], passed;
    struct err e;
    (void)state;
    assert_int_equal(channel_pair(fds, &e), 0);
    a.channel = channel_new(base, fds[0], "a", &ops, &a);
    pipe_with_x(&passed);
    for (int i = 0; i < ROUNDS; i++) {
        ipc_refused_encode(channel_out(a.channel), &(struct ipc_refused){.tag = 1, .text = large});
        ipc_large_fd_encode(channel_out(a.channel), &(struct ipc_large_fd){1});
        channel_attach(a.channel, passed);
        if (i >= 100) /* one packet of text, one with a descriptor */
            for (int k = 0; k < 2; k++)
                assert_true(recv(fds[1], block, sizeof block, MSG_DONTWAIT) > 0);
        turn(base);
        assert_int_equal(a.closed, 0);
    }
    assert_true(channel_pending(a.channel) > BYTES);
    assert_true(channel_out(a.channel)->len < 200 * (size_t)BYTES);
    channel_free(a.channel);
    close(passed);
    close(fds[1]);
    event_base_free(base);
}

static void test_B94_a_peer_that_does_not_read_is_given_up(void **state)
{
    enum { BYTES = 120 * 1024, ENOUGH = 70 * 1024 * 1024 / BYTES };
    static char text[BYTES];
    struct event_base *base = event_base_new();
    struct end a = {0};
    int fds[2];
    struct err e;
    (void)state;
    assert_int_equal(channel_pair(fds, &e), 0);
    a.channel = channel_new(base, fds[0], "a", &ops, &a);
    for (int i = 0; i < ENOUGH && !a.closed; i++) {
        ipc_refused_encode(channel_out(a.channel),
                           &(struct ipc_refused){.tag = 1, .text = slice_make(text, sizeof text)});
        turn(base);
    }
    assert_int_equal(a.closed, 1);
    assert_string_equal(a.why, "the peer does not read");
    close(fds[1]);
    event_base_free(base);
}

static void a_descriptor_that_cannot_be_passed_closes_the_channel(void **state)
{
    struct event_base *base = event_base_new();
    struct end a = {0};
    struct rlimit old, none;
    int fds[2], passed;
    struct err e;
    (void)state;
    assert_int_equal(channel_pair(fds, &e), 0);
    pipe_with_x(&passed);
    a.channel = channel_new(base, fds[0], "a", &ops, &a);
    ipc_large_fd_encode(channel_out(a.channel), &(struct ipc_large_fd){1});
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){0, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    channel_attach(a.channel, passed);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(a.closed, 0);
    turn(base);
    assert_int_equal(a.closed, 1);
    assert_non_null(strstr(a.why, "out of descriptors"));
    close(passed);
    close(fds[1]);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(test_B89_missing_and_left_over_bytes_are_refused),
        cmocka_unit_test(frames_and_descriptors_arrive_in_order),
        cmocka_unit_test(test_B89_a_bad_frame_closes_the_channel),
        cmocka_unit_test(test_B90_a_descriptor_where_none_is_declared_or_missing),
        cmocka_unit_test(a_frame_the_owner_refuses_closes_the_channel),
        cmocka_unit_test(a_channel_that_fails_inside_its_callback_ends_after_it),
        cmocka_unit_test(a_slow_peer_with_descriptors_is_not_given_up),
        cmocka_unit_test(test_B94_a_peer_that_does_not_read_is_given_up),
        cmocka_unit_test(a_descriptor_that_cannot_be_passed_closes_the_channel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

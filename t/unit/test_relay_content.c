/* libraries: relay_parts */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "relay_fixture.h"

static void ignore(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

static void writable(evutil_socket_t fd, short what, void *arg)
{
    struct wire *w = arg;
    (void)fd;
    (void)what;
    w->blocked = false;
}

static void drain_into(int fd, struct buf *b)
{
    char block[4096];
    ssize_t n;
    while ((n = recv(fd, block, sizeof block, 0)) > 0)
        assert_int_equal(buf_add(b, block, (size_t)n), 0);
}

/* Sends content through a socket that takes little at a time. */
static enum content_status send_all(const struct job *j, bool bdat, struct buf *got)
{
    int fds[2], size = 4096;
    struct wire w;
    struct content c;
    enum content_status status;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    wire_open(&w, rig_service.base, fds[0], ignore, writable, &w);
    content_init(&c, j, bdat);
    while ((status = content_send(&c, &w)) == CONTENT_AGAIN || status == CONTENT_HELD) {
        assert_false(c.gathered && !c.announced);
        c.announced = status == CONTENT_HELD || c.announced;
        drain_into(fds[1], got);
        event_base_loop(rig_service.base, EVLOOP_NONBLOCK);
    }
    wire_close(&w);
    drain_into(fds[1], got);
    close(fds[1]);
    return status;
}

static int file_with(struct slice s)
{
    int fd = memfd_create("content", MFD_CLOEXEC);
    assert_int_equal(write(fd, s.ptr, s.len), s.len);
    return fd;
}

/* 300 KB of short lines, some with dots. */
static void fill(struct buf *content, struct buf *stuffed)
{
    for (int i = 0; i < 20000; i++) {
        const char *line = i % 3 ? "a line\r\n" : i % 2 ? ".a dot\r\n" : "..\r\n";
        buf_addstr(content, line);
        if (line[0] == '.')
            buf_addc(stuffed, '.');
        buf_addstr(stuffed, line);
    }
}

static void test_data_is_stuffed_whatever_the_socket_takes(void **state)
{
    (void)state;
    rig_start();
    struct buf content = BUF_INIT(1 << 20), want = BUF_INIT(1 << 20), got = BUF_INIT(1 << 20);
    fill(&content, &want);
    buf_addstr(&want, ".\r\n");
    struct job *j =
        rig_job(1, TRANSPORT_SMTP, SLICE(""), file_with(buf_slice(&content)), content.len);
    assert_int_equal(send_all(j, false, &got), CONTENT_SENT);
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.data, want.data, want.len);
    job_free(j);
    buf_free(&content);
    buf_free(&want);
    buf_free(&got);
    rig_stop();
}

static void test_prefix_and_body_form_lines_together(void **state)
{
    (void)state;
    rig_start();
    struct buf got = BUF_INIT(4096);
    struct job *j = rig_job(1, TRANSPORT_SMTP, SLICE("A: 1\r\n"), file_with(SLICE(".\r\nend")), 6);
    assert_int_equal(send_all(j, false, &got), CONTENT_SENT);
    assert_true(slice_eq(buf_slice(&got), SLICE("A: 1\r\n..\r\nend\r\n.\r\n")));
    job_free(j);
    buf_free(&got);
    rig_stop();
}

static void test_bdat_sends_the_bytes_as_they_are(void **state)
{
    (void)state;
    rig_start();
    struct buf content = BUF_INIT(1 << 20), stuffed = BUF_INIT(1 << 20), got = BUF_INIT(1 << 20);
    char head[64];
    fill(&content, &stuffed);
    struct job *j =
        rig_job(1, TRANSPORT_SMTP, SLICE("A: 1\r\n"), file_with(buf_slice(&content)), content.len);
    assert_int_equal(send_all(j, true, &got), CONTENT_SENT);
    size_t n = (size_t)snprintf(head, sizeof head, "BDAT %zu LAST\r\nA: 1\r\n", content.len + 6);
    assert_int_equal(got.len, n + content.len);
    assert_memory_equal(got.data, head, n);
    assert_memory_equal(got.data + n, content.data, content.len);
    job_free(j);
    buf_free(&content);
    buf_free(&stuffed);
    buf_free(&got);
    rig_stop();
}

static void test_F25_a_short_file_is_noticed(void **state)
{
    (void)state;
    for (int bdat = 0; bdat < 2; bdat++) {
        rig_start();
        struct buf got = BUF_INIT(4096);
        struct job *j = rig_job(1, TRANSPORT_SMTP, SLICE("A: 1\r\n"), file_with(SLICE("x")), 100);
        assert_int_equal(send_all(j, bdat, &got), CONTENT_UNREADABLE);
        job_free(j);
        buf_free(&got);
        rig_stop();
    }
}

static void test_8bit_bytes_are_found(void **state)
{
    static const struct {
        const char *content;
        int anywhere, header;
    } cases[] = {
        {"A: 1\r\n\r\nbody\r\n", 0, 0},
        {"A: 1\r\n\r\nbod\xc3\xa4\r\n", 1, 0},
        {"A: \xc3\xa4\r\n\r\nbody\r\n", 1, 1},
        {"", 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct slice content = slice_str(cases[i].content);
        rig_start();
        struct job *j = rig_job(1, TRANSPORT_SMTP, content, -1, content.len);
        assert_int_equal(content_has_8bit(j, false), cases[i].anywhere);
        assert_int_equal(content_has_8bit(j, true), cases[i].header);
        job_free(j);
        rig_stop();
    }
}

/* The prefix and the body are two pieces, and the empty line that ends the header may be
 * in both of them, as it is when what the client sent has no header at all. */
static void test_8bit_bytes_behind_a_header_that_ends_between_pieces(void **state)
{
    static const char content[] = "A: 1\r\r\n\r\nbod\xc3\xa4\r\n\r\nend\r\n";
    (void)state;
    for (size_t cut = 0; cut < sizeof content; cut++) {
        struct slice body = slice_from(slice_str(content), cut);
        rig_start();
        struct job *j = rig_job(1, TRANSPORT_SMTP, slice_first(slice_str(content), cut),
                                file_with(body), body.len);
        assert_int_equal(content_has_8bit(j, false), 1);
        assert_int_equal(content_has_8bit(j, true), 0);
        job_free(j);
        rig_stop();
    }
}

/* Lines of dots only: each would be two iovecs. They must not make a system
 * call, and a read of the file, for every few lines. */
static void test_dense_dots_do_not_multiply_the_work(void **state)
{
    (void)state;
    enum { LINES = 200000, AT_ONCE = 64 * 1024 };
    for (int in_memory = 0; in_memory < 2; in_memory++) {
        int lines = in_memory ? 20000 : LINES, calls = 0;
        struct buf content = BUF_INIT(1 << 20), got = BUF_INIT(1 << 20);
        rig_start();
        for (int i = 0; i < lines; i++)
            buf_addstr(&content, i % 5 ? ".\r\n" : "..\r\n");
        struct job *j = in_memory ? rig_job(1, TRANSPORT_SMTP, buf_slice(&content), -1, content.len)
                                  : rig_job(1, TRANSPORT_SMTP, SLICE(""),
                                            file_with(buf_slice(&content)), content.len);
        int fds[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds), 0);
        struct wire w;
        struct content c;
        wire_open(&w, rig_service.base, fds[0], ignore, writable, &w);
        content_init(&c, j, false);
        c.announced = true;
        enum content_status status;
        static char packet[4 * CONTENT_BLOCK];
        do {
            ssize_t n;
            status = content_send(&c, &w);
            for (; (n = recv(fds[1], packet, sizeof packet, 0)) > 0; calls++)
                assert_int_equal(buf_add(&got, packet, (size_t)n), 0);
            event_base_loop(rig_service.base, EVLOOP_NONBLOCK);
        } while (status == CONTENT_AGAIN);
        assert_int_equal(status, CONTENT_SENT);
        assert_int_equal(got.len, content.len + (size_t)lines + 3);
        for (size_t at = 0, k = 0; k < (size_t)lines; k++) {
            struct slice line = k % 5 ? SLICE("..\r\n") : SLICE("...\r\n");
            assert_memory_equal(got.data + at, line.ptr, line.len);
            at += line.len;
        }
        assert_true((size_t)calls <= got.len / AT_ONCE + 2);
        wire_close(&w);
        close(fds[1]);
        job_free(j);
        buf_free(&content);
        buf_free(&got);
        rig_stop();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data_is_stuffed_whatever_the_socket_takes),
        cmocka_unit_test(test_prefix_and_body_form_lines_together),
        cmocka_unit_test(test_bdat_sends_the_bytes_as_they_are),
        cmocka_unit_test(test_F25_a_short_file_is_noticed),
        cmocka_unit_test(test_8bit_bytes_are_found),
        cmocka_unit_test(test_8bit_bytes_behind_a_header_that_ends_between_pieces),
        cmocka_unit_test(test_dense_dots_do_not_multiply_the_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: postern_core */
/* F43: whatever the receiver of the log is and does, nothing waits for it. */
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"

enum { MANY = 20000 }; /* lines: more than any receiver's buffer and ours hold */

static unsigned broken_calls;

static void note_broken(void *arg)
{
    (void)arg;
    broken_calls++;
}

static void flood(void)
{
    for (int i = 0; i < MANY; i++) {
        log_info("line %d of many that nobody reads", i);
        log_flush();
    }
}

/* Reads lines until there are no more; checks that each is whole. */
static unsigned read_lines(int fd, bool datagrams, char *last, size_t size)
{
    static char text[4 << 20];
    size_t len = 0;
    ssize_t n;
    unsigned lines = 0;
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    do {
        log_flush(); /* what waits follows when there is room */
        while ((n = read(fd, text + len, sizeof text - len - 1)) > 0) {
            len += (size_t)n;
            if (datagrams)
                text[len++] = '\n';
            log_flush();
        }
    } while (n > 0);
    struct slice rest = slice_make(text, len);
    while (rest.len) {
        struct slice line = slice_cut(&rest, '\n');
        assert_true(line.len > 0);
        bool known = memmem(line.ptr, line.len, "test: line ", 11) ||
                     memmem(line.ptr, line.len, "test: warning: ", 15) ||
                     memmem(line.ptr, line.len, "]: line ", 8) ||
                     memmem(line.ptr, line.len, "]: warning: ", 12);
        assert_true(known);
        snprintf(last, size, "%.*s", SLICE_ARG(line));
        lines++;
    }
    return lines;
}

static void floods_without_waiting(enum log_kind kind, int in, int out, bool datagrams)
{
    char last[200];
    log_open("test", "host.test", kind, in);
    flood();
    unsigned lines = read_lines(out, datagrams, last, sizeof last);
    assert_in_range(lines, 100, MANY - 100);
    /* the last one tells how many are missing, and all others are there */
    const char *count = strstr(last, "warning: ");
    assert_non_null(count);
    assert_int_equal(atoi(count + 9), MANY - (int)(lines - 1));
    log_open("test", "", LOG_KIND_STDERR, STDERR_FILENO);
    close(in);
    close(out);
}

static void test_F43_pipe_that_nobody_reads(void **state)
{
    int ends[2];
    (void)state;
    assert_int_equal(pipe(ends), 0); /* as a shell makes it: writing waits */
    floods_without_waiting(LOG_KIND_STDERR, ends[1], ends[0], false);
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    floods_without_waiting(LOG_KIND_FILE, ends[1], ends[0], false);
}

static void test_F43_journal_or_syslog_that_does_not_read(void **state)
{
    int ends[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    floods_without_waiting(LOG_KIND_STDERR, ends[1], ends[0], false);
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
    floods_without_waiting(LOG_KIND_SYSLOG, ends[1], ends[0], true);
}

/* A short pause of the receiver costs no line. */
static void lines_wait_for_a_slow_receiver(void **state)
{
    int ends[2];
    char filler[4096], last[200];
    (void)state;
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    memset(filler, 'x', sizeof filler);
    filler[sizeof filler - 1] = '\n';
    while (write(ends[1], filler, sizeof filler) > 0)
        continue;
    log_open("test", "", LOG_KIND_STDERR, ends[1]);
    for (int i = 0; i < 100; i++) {
        log_info("line %d", i);
        log_flush();
    }
    while (read(ends[0], filler, sizeof filler) > 0)
        continue;
    assert_int_equal(read_lines(ends[0], false, last, sizeof last), 100);
    assert_string_equal(last, "test: line 99");
    log_open("test", "", LOG_KIND_STDERR, STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
}

static void test_F43_full_disk(void **state)
{
    char path[] = "/tmp/postern-log-XXXXXX", last[200];
    int full = open("/dev/full", O_WRONLY), file = mkstemp(path);
    (void)state;
    assert_true(full >= 0 && file >= 0);
    unlink(path);
    broken_calls = 0;
    log_on_broken(note_broken, NULL);
    log_open("test", "host.test", LOG_KIND_FILE, full);
    for (int i = 0; i < 10; i++) {
        log_info("line %d", i);
        log_flush();
    }
    assert_int_equal(broken_calls, 10);
    assert_int_equal(log_set_fd(file), full);
    log_flush();
    assert_int_equal(lseek(file, 0, SEEK_SET), 0);
    assert_int_equal(read_lines(file, false, last, sizeof last), 10);
    log_on_broken(NULL, NULL);
    log_open("test", "", LOG_KIND_STDERR, STDERR_FILENO);
    close(full);
    close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_F43_pipe_that_nobody_reads),
        cmocka_unit_test(test_F43_journal_or_syslog_that_does_not_read),
        cmocka_unit_test(lines_wait_for_a_slow_receiver),
        cmocka_unit_test(test_F43_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

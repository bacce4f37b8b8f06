/* libraries: postern_service postern_conf postern_ipc postern_core */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "service/jail.h"
#include "service/sanitized.h"

/* What a filtered child could do. */
enum {
    EXECUTED = 1,
    FORKED = 2,
    MADE_THREAD = 4,
    INET_SOCKET = 8,
    NETLINK_SOCKET = 16,
    UNIX_SOCKET = 32,
    CHROOTED = 64,
    UNFILTERED = 128,
    SIGNALLED = 256,
    SHARED_MEMORY = 512,
    LISTENED = 1024,
    CONNECTED = 2048,
    ABSTRACT_MAX = 32
};

static void *nothing(void *arg)
{
    return arg;
}

static bool can_make_socket(int family)
{
    int fd = socket(family, family == AF_NETLINK ? SOCK_RAW : SOCK_STREAM, 0);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* What a socket that was made before is still good for. */
static int try_sockets(int ready)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int can = 0;
    snprintf(name.sun_path + 1, ABSTRACT_MAX, "postern-test-%d", (int)getpid());
    if (bind(ready, (const struct sockaddr *)&name, sizeof name) == 0 && listen(ready, 1) == 0)
        can |= LISTENED;
    if (connect(ready, (const struct sockaddr *)&name, sizeof name) == 0 || errno != EPERM)
        can |= CONNECTED;
    return can;
}

static int try_everything(int ready)
{
    static char *const argv[] = {(char *)(uintptr_t) "true", NULL};
    pthread_t thread;
    int can = 0;
    if (chroot("/tmp") == 0)
        can |= CHROOTED;
    if (can_make_socket(AF_INET) || can_make_socket(AF_INET6))
        can |= INET_SOCKET;
    if (can_make_socket(AF_NETLINK))
        can |= NETLINK_SOCKET;
    if (can_make_socket(AF_UNIX))
        can |= UNIX_SOCKET;
    can |= try_sockets(ready);
    if (shmget(IPC_PRIVATE, 1, 0600) >= 0 || semget(IPC_PRIVATE, 1, 0600) >= 0)
        can |= SHARED_MEMORY;
    if (!SANITIZED) {
        if (kill(getpid(), 0) == 0)
            can |= SIGNALLED;
        if (pthread_create(&thread, NULL, nothing, NULL) == 0) {
            pthread_join(thread, NULL);
            can |= MADE_THREAD;
        }
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        if (pid > 0) {
            waitpid(pid, NULL, 0);
            can |= FORKED;
        }
    }
    /* comes back only when it is refused; "true" would end with 0 */
    execv("/bin/true", argv);
    return errno == EPERM ? can : can | EXECUTED;
}

static int in_filtered_child(bool network, bool threads)
{
    int status, can, ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct err e;
        int ready = socket(AF_UNIX, SOCK_STREAM, 0);
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        can = jail_filter(network, threads, &e) < 0 ? UNFILTERED : try_everything(ready);
        _exit(write(ends[1], &can, sizeof can) == (ssize_t)sizeof can ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(read(ends[0], &can, sizeof can), sizeof can);
    close(ends[0]);
    close(ends[1]);
    return can;
}

static void test_a_service_without_network_has_no_sockets(void **state)
{
    (void)state;
    assert_int_equal(in_filtered_child(false, false), 0);
}

static void test_a_service_with_network_and_threads(void **state)
{
    (void)state;
    assert_int_equal(in_filtered_child(true, true),
                     CONNECTED | INET_SOCKET | (SANITIZED ? 0 : MADE_THREAD));
}

static void test_log_names(void **state)
{
    (void)state;
    static const struct {
        const char *config, *program, *expected;
    } rows[] = {
        {"", "smtpd", "postern/smtpd"},
        {"", "relay", "postern/relay"},
        {"compatible_log_names = yes\n", "relay", "postfix/smtp"},
        {"compatible_log_names = yes\n", "smtpd", "postfix/smtpd"},
        {"compatible_log_names = yes\n", "cleanup", "postfix/cleanup"},
        {"compatible_log_names = yes\nsyslog_name = out\n", "relay", "out/smtp"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char name[64];
        struct err e = {0, ""};
        struct config *c = config_parse(slice_str(rows[i].config), "main.cf", "/", &e);
        assert_non_null(c);
        service_log_name(c, rows[i].program, name, sizeof name);
        assert_string_equal(name, rows[i].expected);
        config_free(c);
    }
}

static void test_log_kind_follows_the_descriptor(void **state)
{
    (void)state;
    struct err e;
    int pair[2];
    FILE *file = tmpfile();
    struct config *syslog = config_parse(SLICE(""), "main.cf", "/", &e);
    struct config *named = config_parse(SLICE("maillog_file = /x\n"), "main.cf", "/", &e);
    struct config *standard = config_parse(SLICE("maillog_file = stderr\n"), "main.cf", "/", &e);
    assert_non_null(file);
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    assert_int_equal(service_log_kind(syslog, pair[0]), LOG_KIND_SYSLOG);
    assert_int_equal(service_log_kind(named, fileno(file)), LOG_KIND_FILE);
    assert_int_equal(service_log_kind(standard, fileno(file)), LOG_KIND_STDERR);
    int pipe_ends[2]; /* standard error under a service manager */
    assert_int_equal(pipe(pipe_ends), 0);
    assert_int_equal(service_log_kind(syslog, pipe_ends[1]), LOG_KIND_STDERR);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    config_free(syslog);
    config_free(named);
    config_free(standard);
    fclose(file);
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_service_without_network_has_no_sockets),
        cmocka_unit_test(test_a_service_with_network_and_threads),
        cmocka_unit_test(test_log_names),
        cmocka_unit_test(test_log_kind_follows_the_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

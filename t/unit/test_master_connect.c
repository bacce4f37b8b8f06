/* libraries: master_parts */
/* Master connects a service to what its configuration names, and to nothing else. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "master/master.h"

static struct {
    struct event_base *base;
    struct plan plan;
    struct master master;
    struct process process;
    int service; /* the other end of its channel */
    int listener;
    char named[64], other[64];
} world;

static int on_frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg, struct err *e)
{
    (void)c;
    (void)f;
    (void)fd;
    (void)arg;
    return err_set(e, "nothing is sent to master here");
}

static void on_closed(struct channel *c, const char *why, void *arg)
{
    (void)c;
    (void)arg;
    fail_msg("%s", why);
}

static int set_up(void **state)
{
    static const struct channel_ops ops = {on_frame, on_closed};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof to;
    struct err e;
    int ends[2];
    char text[512];
    (void)state;
    world.listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(world.listener, (struct sockaddr *)&to, len) < 0 || listen(world.listener, 4) < 0 ||
        getsockname(world.listener, (struct sockaddr *)&to, &len) < 0)
        return -1;
    snprintf(world.named, sizeof world.named, "inet:127.0.0.1:%u", ntohs(to.sin_port));
    snprintf(world.other, sizeof world.other, "inet:127.0.0.2:%u", ntohs(to.sin_port));
    snprintf(text, sizeof text,
             "myhostname = relay.test\nsmtpd_data_restrictions = permit_mynetworks, "
             "check_policy_service { %s, timeout=5s }\n",
             world.named);
    world.base = event_base_new();
    world.plan.config = config_parse(slice_str(text), "main.cf", "/tmp", &e);
    if (!world.plan.config || channel_pair(ends, &e) < 0)
        return -1;
    world.master = (struct master){.base = world.base, .plan = &world.plan};
    world.service = ends[0];
    world.process = (struct process){
        .master = &world.master,
        .channel = channel_new(world.base, ends[1], "smtpd", &ops, NULL),
        .command = command_find(SLICE("smtpd")),
    };
    connect_permit(&world.process, world.plan.config);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    channel_free(world.process.channel);
    free(world.process.endpoints);
    config_free(world.plan.config);
    event_base_free(world.base);
    close(world.service);
    close(world.listener);
    return 0;
}

/* The number of the answer to a request for this endpoint; *fd: what came with it. */
static unsigned ask(const char *endpoint, uint64_t tag, int *fd)
{
    struct ipc_connect_request m = {.tag = tag, .endpoint = slice_str(endpoint)};
    static char packet[4096];
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {packet, sizeof packet};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    struct ipc_frame f = {0};
    connect_request(&world.process, &m);
    channel_flush_all();
    ssize_t n = recvmsg(world.service, &message, 0);
    assert_true(n > 0);
    struct slice rest = slice_make(packet, (size_t)n);
    assert_int_equal(ipc_frame_next(&rest, &f), 1);
    const struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    *fd = -1;
    if (c)
        memcpy(fd, CMSG_DATA(c), sizeof *fd);
    return f.number;
}

static void test_a_server_of_the_configuration(void **state)
{
    int fd;
    (void)state;
    assert_int_equal(ask(world.named, 7, &fd), IPC_NUMBER_ipc_connecting);
    assert_true(fd >= 0);
    int server = accept(world.listener, NULL, NULL);
    assert_true(server >= 0);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    close(server);
    close(fd);
}

static void test_nothing_else(void **state)
{
    static const char *const others[] = {"",
                                         "inet:25",
                                         "inet:192.0.2.1:25",
                                         "unix:/dev/log",
                                         "permit_mynetworks",
                                         "check_policy_service"};
    int fd;
    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_int_equal(ask(others[i], i, &fd), IPC_NUMBER_ipc_connect_failed);
        assert_int_equal(fd, -1);
    }
    assert_int_equal(ask(world.other, 9, &fd), IPC_NUMBER_ipc_connect_failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_server_of_the_configuration),
        cmocka_unit_test(test_nothing_else),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

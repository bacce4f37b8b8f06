/*
 * master: reads the configuration, opens listeners and logs, starts, watches
 * and restarts the services, and gives them their channels to each other.
 *
 *   user      root (or unprivileged, for development: then so are the services)
 *   chroot    none
 *   fds       listeners, control socket, logs, pid file, a channel to each service
 *   secrets   private keys, read at start and reload for keyd and then wiped; memory
 *             files with them stay open for a keyd that is started again
 *   network   opens listening sockets; reads and writes no byte on any
 *   mail      none
 *
 * usage: master [-c CONFDIR] [-t] [-d]
 *   -c  directory of main.cf and master.cf; default /etc/postern
 *   -t  check the configuration and exit
 *   -d  run in the background; returns when all services are ready
 * SIGHUP reloads, SIGTERM stops gracefully, a second SIGTERM at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/fault.h"
#include "core/mem.h"
#include "master/master.h"
#include "service/client_counts.h"

enum { DAEMON_START_MS = 60000 };

struct options {
    const char *directory;
    bool check_only, daemonise;
};

static int parse_options(struct options *o, int argc, char **argv)
{
    int option;
    *o = (struct options){.directory = "/etc/postern"};
    while ((option = getopt(argc, argv, "c:td")) != -1) {
        if (option == 'c')
            o->directory = optarg;
        else if (option == 't')
            o->check_only = true;
        else if (option == 'd')
            o->daemonise = true;
        else
            return -1;
    }
    return optind == argc ? 0 : -1;
}

/* In the starter: waits until the daemon is ready or has ended. */
static int await_daemon(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char byte = 0;
    int rc;
    while ((rc = poll(&p, 1, DAEMON_START_MS)) < 0 && errno == EINTR)
        continue;
    if (rc > 0 && read(fd, &byte, 1) == 1 && byte == 'R')
        return EXIT_SUCCESS;
    if (rc == 0)
        fprintf(stderr, "postern: not all services are ready after %d s; see the log\n",
                DAEMON_START_MS / 1000);
    return EXIT_FAILURE;
}

/* Goes on in a child of its own session; the end of the pipe to the starter. */
static int daemonise(void)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    pid_t pid = fork();
    if (pid < 0)
        return -1;
    if (pid > 0) {
        close(ends[1]);
        _exit(await_daemon(ends[0]));
    }
    close(ends[0]);
    setsid();
    return ends[1];
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
    struct master *m = arg;
    (void)what;
    if (number == SIGCHLD)
        supervise_reap(m);
    else if (number == SIGHUP)
        life_reload(m);
    else
        life_stop(m, m->stopping != NOT_STOPPING);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    supervise_tick(arg);
}

/* The system log was restarted: the tick connects to it again. */
static void on_log_broken(void *arg)
{
    struct master *m = arg;
    m->logs.degraded = !*m->plan->config->maillog_file;
}

/* Everything that can fail because of the system, before any service starts. */
static int set_up(struct master *m, struct err *e)
{
    struct list none;
    list_init(&none);
    if (prepare_directories(m->plan, m->privileged, e) < 0)
        return -1;
    if (prepare_pid_file(&m->pid_file, m->plan->config, e) < 0) {
        if (m->pid_file.fd >= 0)
            close(m->pid_file.fd);
        m->pid_file.fd = -1; /* another master's: stays */
        return -1;
    }
    if (listen_open(&m->listeners, &none, m->plan, m->privileged, e) < 0)
        return -1;
    m->control = listen_public(m->plan, "control", PUBLIC_GROUP, m->privileged, e);
    if (m->control < 0)
        return -1;
    m->showq = listen_public(m->plan, "showq", PUBLIC_EVERYONE, m->privileged, e);
    if (m->showq < 0)
        return -1;
    m->accounts = listen_public(m->plan, "accounts", PUBLIC_GROUP, m->privileged, e);
    if (m->accounts < 0 || logs_open(&m->logs, m->plan->config, e) < 0)
        return -1;
    m->client_counts = client_counts_make(e);
    if (m->client_counts < 0)
        return -1;
    prepare_limits();
    logs_use(&m->logs, m->plan->config);
    prepare_check_addresses(m->plan);
    log_on_broken(on_log_broken, m);
    for (size_t i = 0; i < m->plan->count; i++)
        if (m->plan->services[i].line->command == command_find(SLICE("resolve")))
            tables_set(&m->tables, m->plan->services[i].config);
    return 0;
}

/* Test builds only, and apart from the services' faults: master's own clock. */
static void share_faults(void)
{
#ifdef POSTERN_FAULTS
    struct err e;
    const char *path = getenv("POSTERN_FAULT_MASTER");
    if (path && fault_share(path, &e) < 0)
        panic("%s", e.text);
#endif
}

static void run(struct master *m)
{
    static const int signals[] = {SIGCHLD, SIGHUP, SIGTERM, SIGINT};
    static const struct timeval second = {1, 0};
    struct event *events[5];
    for (size_t i = 0; i < 4; i++) {
        events[i] = evsignal_new(m->base, signals[i], on_signal, m);
        if (!events[i] || event_add(events[i], NULL) < 0)
            panic("cannot watch signal %d", signals[i]);
    }
    events[4] = event_new(m->base, -1, EV_PERSIST, on_tick, m);
    if (!events[4] || event_add(events[4], &second) < 0)
        panic("cannot make a timer");
    share_faults();
    m->last_tick = clock_mono();
    keys_adopt(m, m->plan);
    supervise_apply(m);
    while (!m->stopping || !list_empty(&m->processes)) {
        channel_flush_all();
        log_flush();
        if (event_base_loop(m->base, EVLOOP_ONCE) < 0)
            panic("the event loop failed");
    }
    log_info("stopped");
    log_flush();
    for (size_t i = 0; i < 5; i++)
        event_free(events[i]);
}

static void quiet_standard_files(const struct master *m)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return;
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    if (strcmp(m->plan->config->maillog_file, "stderr") != 0 && !m->logs.degraded)
        dup2(null, STDERR_FILENO);
    close(null);
}

static int start(struct master *m, bool in_background, struct err *e)
{
    m->base = event_base_new();
    if (!m->base)
        return err_set(e, "cannot make an event loop");
    if (set_up(m, e) < 0) {
        prepare_remove_pid_file(&m->pid_file);
        return -1;
    }
    if (in_background)
        quiet_standard_files(m);
    if (!m->privileged)
        log_info("not started as root: the services keep this user and have no chroot");
    run(m);
    listen_remove_public(m->plan, m->privileged);
    prepare_remove_pid_file(&m->pid_file);
    return 0;
}

/* -t: the plan was good; what else can be known without starting. */
static int check(const struct master *m, struct err *e)
{
    if (prepare_check(m->plan, m->privileged, e) < 0 || logs_check(m->plan->config, e) < 0)
        return -1;
    printf("%s: the configuration is good\n", m->config_directory);
    return 0;
}

static int launch(struct master *m, bool in_background, struct err *e)
{
    if (in_background && (m->ready_pipe = daemonise()) < 0)
        return err_sys(e, "cannot go into the background");
    return start(m, in_background, e);
}

int main(int argc, char **argv)
{
    static struct master master = {.control = -1,
                                   .showq = -1,
                                   .accounts = -1,
                                   .client_counts = -1,
                                   .pid_file = {NULL, -1},
                                   .ready_pipe = -1};
    struct master *m = &master;
    struct options o;
    struct err e = {0, ""};
    if (parse_options(&o, argc, argv) < 0) {
        fprintf(stderr, "usage: master [-c CONFDIR] [-t] [-d]\n");
        return EXIT_FAILURE;
    }
    umask(022);
    signal(SIGPIPE, SIG_IGN);
    log_open("postern/master", "", LOG_KIND_STDERR, STDERR_FILENO);
    list_init(&m->listeners);
    list_init(&m->members);
    list_init(&m->processes);
    m->privileged = geteuid() == 0;
    m->started = clock_wall();
    m->config_directory = realpath(o.directory, NULL);
    if (!m->config_directory)
        err_sys(&e, "%s", o.directory);
    else
        m->plan = plan_load(m->config_directory, m->privileged, &e);
    if (m->plan && o.check_only && check(m, &e) == 0)
        return EXIT_SUCCESS;
    if (m->plan && !o.check_only && launch(m, o.daemonise, &e) == 0)
        return EXIT_SUCCESS;
    log_fatal("%s", e.text);
    log_flush();
    return EXIT_FAILURE;
}

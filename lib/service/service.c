#include "service/service.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/fault.h"
#include "core/mem.h"
#include "service/control.h"
#include "service/jail.h"

static const struct timeval heartbeat_interval = {1, 0};

/* ---- arguments and configuration ------------------------------------------- */

static int parse_unsigned(const char *text, unsigned max, unsigned *out)
{
    uint64_t n;
    if (slice_u64(slice_str(text), &n) < 0 || n > max)
        return -1;
    *out = (unsigned)n;
    return 0;
}

static int parse_arguments(struct service *s, int argc, char **argv, struct err *e)
{
    int option;
    while ((option = getopt(argc, argv, "n:s:l:")) != -1) {
        if (option == 'n')
            s->name = optarg;
        else if (option == 's' && parse_unsigned(optarg, 65535, &s->slot) == 0)
            continue;
        else if (option == 'l' &&
                 parse_unsigned(optarg, SERVICE_LISTENERS_MAX, &s->listener_count) == 0)
            continue;
        else
            return err_set(e, "usage: %s -n NAME -s SLOT -l LISTENERS", argv[0]);
    }
    if (fcntl(SERVICE_FD_MASTER, F_GETFD) < 0 || fcntl(SERVICE_FD_CONFIG, F_GETFD) < 0)
        return err_set(e, "%s is started by Postern's master, not by hand", s->ops->program);
    for (unsigned i = 0; i < s->listener_count; i++)
        s->listeners[i] = SERVICE_FD_LISTENERS + (int)i;
    for (int fd = SERVICE_FD_MASTER; fd < SERVICE_FD_LISTENERS + (int)s->listener_count; fd++)
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
            return err_sys(e, "descriptor %d, which master should have opened", fd);
    return 0;
}

void service_log_name(const struct config *c, const char *program, char *out, size_t size)
{
    const char *prefix = c->syslog_name;
    if (c->compatible_log_names && strcmp(prefix, "postern") == 0)
        prefix = "postfix";
    if (c->compatible_log_names && strcmp(program, "relay") == 0)
        program = "smtp";
    snprintf(out, size, "%s/%s", prefix, program);
}

enum log_kind service_log_kind(const struct config *c, int fd)
{
    struct stat st;
    int type = 0;
    socklen_t len = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_DGRAM)
        return LOG_KIND_SYSLOG;
    if (strcmp(c->maillog_file, "stderr") == 0)
        return LOG_KIND_STDERR;
    /* without a system log master passes its standard error */
    bool file = *c->maillog_file || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode));
    return file ? LOG_KIND_FILE : LOG_KIND_STDERR;
}

void service_open_log(const struct service *s)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    static const enum log_level levels[] = {LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO,
                                            LOG_LEVEL_DEBUG};
    char name[64];
    service_log_name(s->config, s->ops->program, name, sizeof name);
    log_open(name, s->config->myhostname, service_log_kind(s->config, SERVICE_FD_LOG),
             SERVICE_FD_LOG);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(s->config->log_level, names[i]) == 0)
            log_set_level(levels[i]);
}

/* Called at every flush that fails: master is asked once a second. */
static void on_log_broken(void *arg)
{
    static int64_t asked;
    struct service *s = arg;
    int64_t now = clock_mono();
    if (!s->master || now - asked < CLOCK_SECOND)
        return;
    asked = now;
    ipc_log_broken_encode(channel_out(s->master), &(struct ipc_log_broken){.which = 0});
}

/* ---- life ------------------------------------------------------------------- */

static void on_heartbeat(evutil_socket_t fd, short what, void *arg)
{
    static uint64_t tick;
    struct service *s = arg;
    (void)fd;
    (void)what;
    if (s->master)
        ipc_heartbeat_encode(channel_out(s->master), &(struct ipc_heartbeat){.tick = ++tick});
}

void service_alive(struct service *s)
{
    static int64_t last;
    int64_t now = clock_mono();
    if (now - last < CLOCK_SECOND)
        return;
    last = now;
    on_heartbeat(-1, 0, s);
    channel_flush_all();
}

static void on_drain_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    log_warning("not everything under way was finished in time; ending now");
    service_stop(arg);
}

bool service_ask_connection(void *service, uint64_t tag, struct slice endpoint)
{
    struct service *s = service;
    if (!s->master)
        return false;
    ipc_connect_request_encode(channel_out(s->master),
                               &(struct ipc_connect_request){.tag = tag, .endpoint = endpoint});
    return true;
}

void service_stop(struct service *s)
{
    event_base_loopbreak(s->base);
    s->draining = true;
    s->stopped = true;
}

void service_drain(struct service *s, unsigned seconds, bool replaced)
{
    static struct event *deadline;
    bool news = !s->draining || (s->replaced && !replaced);
    s->replaced = replaced && (!s->draining || s->replaced);
    s->draining = true;
    if (!s->ops->drain || seconds == 0) {
        service_stop(s);
        return;
    }
    if (!deadline)
        deadline = evtimer_new(s->base, on_drain_over, s);
    const struct timeval wait = {seconds, 0};
    event_add(deadline, &wait);
    if (news)
        s->ops->drain(s, seconds);
}

static void ignore_signals(void)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigset_t none;
    /* ^C at a terminal reaches the whole group: master tells us how to end */
    sigaction(SIGINT, &ignore, NULL);
    sigaction(SIGHUP, &ignore, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Test builds only: see fault_share. */
static int share_faults(struct err *e)
{
#ifdef POSTERN_FAULTS
    const char *path = getenv("POSTERN_FAULT_FILE");
    if (path)
        return fault_share(path, e);
#endif
    (void)e;
    return 0;
}

static int set_up(struct service *s, int argc, char **argv, struct err *e)
{
    if (parse_arguments(s, argc, argv, e) < 0)
        return -1;
    s->config = config_read(SERVICE_FD_CONFIG, e);
    if (!s->config)
        return -1;
    close(SERVICE_FD_CONFIG);
    s->event_log = SERVICE_FD_EVENT_LOG;
    service_open_log(s);
    log_on_broken(on_log_broken, s);
    struct event_config *options = event_config_new();
    if (options) /* one thread runs the loop */
        event_config_set_flag(options, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV);
    s->base = options ? event_base_new_with_config(options) : NULL;
    event_config_free(options);
    if (!s->base)
        return err_set(e, "cannot make an event loop");
    service_control_open(s);
    s->privileged = geteuid() == 0;
    if (share_faults(e) < 0)
        return -1;
    if (s->ops->open && s->ops->open(s, e) < 0)
        return -1;
    if (jail_enter(s->ops, s->config, e) < 0)
        return -1;
    if (!s->privileged)
        log_info("not started as root: no change of user and root directory");
    return s->ops->start(s, e);
}

static void run(struct service *s)
{
    struct event *heartbeat = event_new(s->base, -1, EV_PERSIST, on_heartbeat, s);
    if (!heartbeat || event_add(heartbeat, &heartbeat_interval) < 0)
        panic("cannot make a timer");
    if (s->master)
        ipc_ready_encode(channel_out(s->master), &(struct ipc_ready){.pid = (uint32_t)getpid()});
    channel_flush_all();
    log_flush();
    while (!s->stopped) {
        if (event_base_loop(s->base, EVLOOP_ONCE) < 0)
            panic("the event loop failed");
        if (s->ops->turn)
            s->ops->turn(s);
        channel_flush_all();
        log_flush();
    }
    event_free(heartbeat);
}

int service_main(int argc, char **argv, const struct service_ops *ops)
{
    static struct service service;
    struct service *s = &service;
    struct err e = {0, ""};
    s->ops = ops;
    s->name = ops->program;
    umask(077);
    ignore_signals();
    if (set_up(s, argc, argv, &e) < 0) {
        log_fatal("%s", e.text);
        log_flush();
        return EXIT_FAILURE;
    }
    run(s);
    return EXIT_SUCCESS;
}

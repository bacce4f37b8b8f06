/* Members and their processes: start, watchdog, burial, restart. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/mem.h"
#include "master/master.h"

enum {
    DELAY_MAX = 60,        /* seconds between restarts in a crash loop (F19) */
    HEALTHY_SECONDS = 5,   /* a process that lived longer was no crash loop */
    ABORT_GRACE = 5,       /* seconds between SIGABRT and SIGKILL */
    DRAIN_GRACE = 5,       /* after its time a draining process may still write up */
    LATE_TICK_SECONDS = 5, /* we were stopped ourselves: everyone gets a new chance */
    TABLES_EVERY = 2,      /* ticks between looks at lookup tables */
    SYSLOG_EVERY = 5
};

/* ---- starting ----------------------------------------------------------------- */

static void start_later(struct member *member);

static void start(struct member *member)
{
    struct err e;
    if (spawn(member, &e) == 0)
        return;
    log_error("%s: cannot be started: %s", member->name, e.text);
    start_later(member);
}

static void on_restart(evutil_socket_t fd, short what, void *arg)
{
    struct member *member = arg;
    (void)fd;
    (void)what;
    const struct process *p = member->process;
    if (member->master->stopping || (p && p->generation == member->master->generation))
        return;
    member->restarts++;
    start(member);
}

/* Plans the next start, later each time while it keeps failing. */
static void start_later(struct member *member)
{
    int64_t base = member->service->config->service_restart_delay;
    struct timeval wait = {member->delay, member->delay ? 0 : 10000};
    if (!member->restart)
        member->restart = evtimer_new(member->master->base, on_restart, member);
    if (!member->restart || event_add(member->restart, &wait) < 0)
        panic("cannot make a timer");
    int64_t next = member->delay ? member->delay * 2 : 1;
    member->delay = next < DELAY_MAX ? next : DELAY_MAX;
    if (member->delay < base)
        member->delay = base;
}

void supervise_replace(struct member *member)
{
    start(member);
}

void supervise_drain(struct process *p, int64_t seconds, bool replaced)
{
    int64_t deadline = clock_mono() + (seconds + DRAIN_GRACE) * CLOCK_SECOND;
    bool news = p->state != PROCESS_DRAINING || (p->replaced && !replaced);
    bool sooner = !p->deadline || deadline < p->deadline;
    p->state = PROCESS_DRAINING;
    p->replaced = replaced;
    if (sooner)
        p->deadline = deadline;
    if ((news || sooner) && p->channel)
        ipc_drain_encode(channel_out(p->channel),
                         &(struct ipc_drain){.seconds = (uint32_t)seconds, .replaced = replaced});
}

/* ---- members -------------------------------------------------------------------- */

static struct member *find_member(struct master *m, const char *name, unsigned index)
{
    list_each(&m->members, n)
    {
        struct member *member = container_of(n, struct member, link);
        if (member->index == index && strcmp(member->name, name) == 0)
            return member;
    }
    return NULL;
}

static unsigned free_slot(const struct master *m, const struct command *command)
{
    for (unsigned slot = 0;; slot++) {
        bool taken = false;
        list_each(&m->members, n)
        {
            const struct member *member = container_of(n, struct member, link);
            taken = taken || (member->command == command && member->slot == slot);
        }
        if (!taken)
            return slot;
    }
}

static struct member *add_member(struct master *m, const struct plan_service *service,
                                 unsigned index)
{
    struct member *member = xcalloc(1, sizeof *member);
    member->master = m;
    member->name = xstrdup(service->line->name);
    member->index = index;
    member->command = service->line->command;
    member->slot = free_slot(m, member->command);
    list_push(&m->members, &member->link);
    return member;
}

static void remove_member(struct member *member)
{
    struct master *m = member->master;
    int64_t seconds = m->plan->config->service_drain_time;
    list_each(&m->processes, n)
    {
        struct process *p = container_of(n, struct process, link);
        if (p->member != member)
            continue;
        p->member = NULL;
        supervise_drain(p, seconds, true);
    }
    list_remove(&member->link);
    if (member->restart)
        event_free(member->restart);
    free(member->name);
    free(member);
}

void supervise_apply(struct master *m)
{
    list_each(&m->members, n) container_of(n, struct member, link)->kept = false;
    for (size_t i = 0; i < m->plan->count; i++) {
        const struct plan_service *service = &m->plan->services[i];
        for (unsigned k = 0; k < service->processes; k++) {
            struct member *member = find_member(m, service->line->name, k);
            if (member && member->command != service->line->command)
                member = NULL;
            if (!member)
                member = add_member(m, service, k);
            member->service = service;
            member->kept = true;
            member->delay = service->config->service_restart_delay;
        }
    }
    list_each_safe(&m->members, n)
    {
        struct member *member = container_of(n, struct member, link);
        if (!member->kept)
            remove_member(member);
        else if (!member->process)
            start(member);
    }
}

/* ---- messages -------------------------------------------------------------------- */

static void drain_older(struct process *fresh)
{
    int64_t seconds = fresh->master->plan->config->service_drain_time;
    list_each(&fresh->master->processes, n)
    {
        struct process *p = container_of(n, struct process, link);
        if (p != fresh && p->member == fresh->member && p->state != PROCESS_DRAINING)
            supervise_drain(p, seconds, true);
    }
}

static void became_ready(struct process *p)
{
    if (p->connected)
        return;
    p->connected = true;
    if (p->state == PROCESS_STARTING)
        p->state = PROCESS_READY;
    broker_connect(p);
    if (p->member)
        drain_older(p);
    life_ready(p->master);
}

static void log_broken(struct process *p)
{
    struct master *m = p->master;
    if (!*m->plan->config->maillog_file && logs_reconnect(&m->logs) == 0)
        logs_use(&m->logs, m->plan->config);
    else
        m->logs.degraded = !*m->plan->config->maillog_file;
    broker_logs(p);
}

static int take_frame(struct process *p, const struct ipc_frame *f, struct err *e)
{
    struct ipc_ready ready;
    struct ipc_heartbeat heartbeat;
    struct ipc_log_broken broken;
    struct ipc_status_request request;
    struct ipc_connect_request connection;
    struct ipc_key_taken taken;
    if (f->number == IPC_NUMBER_ipc_heartbeat && ipc_heartbeat_decode(f->body, &heartbeat) == 0)
        return 0;
    if (f->number == IPC_NUMBER_ipc_ready && ipc_ready_decode(f->body, &ready) == 0) {
        became_ready(p);
        return 0;
    }
    if (f->number == IPC_NUMBER_ipc_log_broken && ipc_log_broken_decode(f->body, &broken) == 0) {
        log_broken(p);
        return 0;
    }
    if (f->number == IPC_NUMBER_ipc_status_request && p->command == command_find(SLICE("qmgr")) &&
        ipc_status_request_decode(f->body, &request) == 0) {
        status_reply(p, request.tag);
        return 0;
    }
    if (f->number == IPC_NUMBER_ipc_connect_request && p->endpoints &&
        ipc_connect_request_decode(f->body, &connection) == 0) {
        connect_request(p, &connection);
        return 0;
    }
    if (f->number == IPC_NUMBER_ipc_key_taken && p->command == command_find(SLICE("keyd")) &&
        ipc_key_taken_decode(f->body, &taken) == 0) {
        keys_taken(p->master, taken.number, taken.error);
        return 0;
    }
    return err_set(e, "unexpected or malformed %s", ipc_name(f->number));
}

static int on_frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg, struct err *e)
{
    struct process *p = arg;
    (void)c;
    p->heard = clock_mono();
    if (fd >= 0)
        close(fd);
    int rc = take_frame(p, f, e);
    p->broke_rules = rc < 0;
    return rc;
}

/* EOF comes with the end of a process, or because it broke the protocol: then
 * it is ended (B89). */
static void on_closed(struct channel *c, const char *why, void *arg)
{
    struct process *p = arg;
    (void)c;
    p->channel = NULL;
    if (p->broke_rules)
        log_error("%s (process %d): channel closed: %s; the process will be ended", p->label,
                  (int)p->pid, why);
    else
        log_debug("%s (process %d): channel closed: %s", p->label, (int)p->pid, why);
    if (!p->deadline)
        p->deadline = clock_mono() + DRAIN_GRACE * CLOCK_SECOND;
}

const struct channel_ops supervise_channel_ops = {on_frame, on_closed};

/* ---- death ------------------------------------------------------------------------ */

static bool is_expected(const struct process *p, int status)
{
    return p->state == PROCESS_DRAINING && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void log_death(const struct process *p, int status)
{
    const struct member *member = p->member;
    bool again = member && member->process == p && !p->master->stopping;
    char how[64], then[64] = "";
    if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "was ended by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(how, sizeof how, "ended with status %d", WEXITSTATUS(status));
    if (again)
        snprintf(then, sizeof then, "; it is started again in %lld s", (long long)member->delay);
    log_warning("%s (process %d) %s%s", p->label, (int)p->pid, how, then);
}

static void bury(struct process *p, int status)
{
    struct master *m = p->master;
    struct member *member = p->member;
    bool current = member && member->process == p;
    int64_t age = (clock_mono() - p->born) / CLOCK_SECOND;
    if (current && p->connected && age > HEALTHY_SECONDS && age > 2 * member->delay)
        member->delay = member->service->config->service_restart_delay;
    if (!is_expected(p, status))
        log_death(p, status);
    if (current) {
        member->process = NULL;
        if (!m->stopping)
            start_later(member);
    }
    broker_clear_counts(p);
    list_remove(&p->link);
    channel_free(p->channel);
    free(p->name);
    free(p->label);
    free(p->endpoints);
    free(p);
}

void supervise_reap(struct master *m)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        list_each_safe(&m->processes, n)
        {
            struct process *p = container_of(n, struct process, link);
            if (p->pid == pid)
                bury(p, status);
        }
    if (m->stopping)
        life_stop_next(m);
}

/* ---- the watchdog (F18) ---------------------------------------------------------------- */

static void signal_process(struct process *p, int number, const char *why)
{
    if (p->signalled == SIGKILL)
        return;
    log_error("%s (process %d) %s; sending it signal %d", p->label, (int)p->pid, why, number);
    p->signalled = number;
    /* a stopped process takes no SIGABRT before it goes on */
    kill(p->pid, number);
    if (number != SIGKILL)
        kill(p->pid, SIGCONT);
}

static void watch(struct process *p, int64_t now)
{
    int64_t limit = p->master->plan->config->service_watchdog_timeout * CLOCK_SECOND;
    if (p->deadline && now > p->deadline) {
        signal_process(p, SIGKILL, "did not finish in time");
        return;
    }
    if (now - p->heard <= limit)
        return;
    if (!p->signalled)
        signal_process(p, SIGABRT, "does not respond");
    else if (now - p->heard > limit + ABORT_GRACE * CLOCK_SECOND)
        signal_process(p, SIGKILL, "does not respond");
}

static void watch_tables(struct master *m)
{
    const char *what = NULL;
    for (size_t i = 0; i < m->tables.count; i++)
        if (table_changed(&m->tables.list[i]))
            what = table_parameter(m->tables.list[i].use);
    if (!what)
        return;
    log_info("%s: a file has changed", what);
    list_each(&m->processes, n) broker_tables(container_of(n, struct process, link));
}

static void watch_syslog(struct master *m)
{
    if (!m->logs.degraded || logs_reconnect(&m->logs) < 0)
        return;
    logs_use(&m->logs, m->plan->config);
    log_info("the system log is back");
    list_each(&m->processes, n) broker_logs(container_of(n, struct process, link));
}

void supervise_tick(struct master *m)
{
    static unsigned ticks;
    int64_t now = clock_mono();
    bool late = now - m->last_tick > LATE_TICK_SECONDS * CLOCK_SECOND;
    m->last_tick = now;
    ticks++;
    list_each(&m->processes, n)
    {
        struct process *p = container_of(n, struct process, link);
        if (late)
            p->heard = now;
        watch(p, now);
    }
    if (ticks % TABLES_EVERY == 0)
        watch_tables(m);
    keys_tick(m);
    if (ticks % SYSLOG_EVERY == 0)
        watch_syslog(m);
}

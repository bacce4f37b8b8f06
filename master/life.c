/* Reload and stop. */
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/mem.h"
#include "master/master.h"

/* ---- ready ----------------------------------------------------------------------- */

void life_ready(struct master *m)
{
    if (m->ready || m->stopping)
        return;
    list_each(&m->members, n)
    {
        const struct member *member = container_of(n, struct member, link);
        if (!member->process || !member->process->connected)
            return;
    }
    m->ready = true;
    log_info("ready: version %s, configuration %s", POSTERN_VERSION, m->config_directory);
    sd_notify(0, "READY=1");
    if (m->ready_pipe >= 0) {
        if (write(m->ready_pipe, "R", 1) != 1)
            log_warning("nobody waits for the start any more");
        close(m->ready_pipe);
        m->ready_pipe = -1;
    }
}

/* ---- reload ---------------------------------------------------------------------- */

static const struct plan_service *resolve_service(const struct plan *plan)
{
    for (size_t i = 0; i < plan->count; i++)
        if (plan->services[i].line->command == command_find(SLICE("resolve")))
            return &plan->services[i];
    return &plan->services[0];
}

static void send_config(struct member *member)
{
    struct process *p = member->process;
    struct err e;
    int fd = spawn_config(member->service->config, &e);
    if (fd < 0) {
        log_error("%s keeps its old configuration: %s", member->name, e.text);
        return;
    }
    ipc_config_encode(channel_out(p->channel),
                      &(struct ipc_config){.generation = member->master->generation});
    channel_attach(p->channel, fd);
    close(fd);
    connect_permit(p, member->service->config);
    broker_tables(p);
}

/* What is needed to change over, all had before anything changes. */
struct change {
    struct plan *plan;
    struct list listeners;
    struct logs logs;
};

static int prepare_change(struct master *m, struct change *c, struct err *e)
{
    c->plan = plan_load(m->config_directory, m->privileged, e);
    if (!c->plan)
        return -1;
    if (plan_check_reload(m->plan, c->plan, e) == 0 &&
        listen_open(&c->listeners, &m->listeners, c->plan, m->privileged, e) == 0) {
        if (logs_open(&c->logs, c->plan->config, e) == 0)
            return 0;
        listen_close(&c->listeners);
    }
    plan_free(c->plan);
    return -1;
}

static void use_logs(struct master *m, const struct logs *fresh, const struct plan *plan)
{
    struct logs old = m->logs;
    m->logs = *fresh;
    logs_use(&m->logs, plan->config);
    logs_close(&old);
    /* also those that only finish their sessions: the old file may be rotated away */
    list_each(&m->processes, n) broker_logs(container_of(n, struct process, link));
}

static void change_over(struct master *m, struct change *c)
{
    struct plan *old = m->plan;
    m->plan = c->plan;
    use_logs(m, &c->logs, m->plan);
    prepare_check_addresses(m->plan);
    listen_close(&m->listeners);
    while (!list_empty(&c->listeners))
        list_push(&m->listeners, list_pop(&c->listeners));
    broker_forget_owners(m);
    tables_set(&m->tables, resolve_service(m->plan)->config);
    keys_adopt(m, m->plan);
    m->generation++;
    m->reloads++;
    supervise_apply(m);
    plan_free(old);
}

/* smtpd gets new processes: the old ones keep their sessions and their idea of
 * the configuration until they are done (F44). The others take it over. */
static void renew(struct master *m)
{
    list_each_safe(&m->members, n)
    {
        struct member *member = container_of(n, struct member, link);
        struct process *p = member->process;
        if (!p || p->generation == m->generation)
            continue;
        if (member->command->inet) {
            supervise_replace(member);
        } else if (p->channel) {
            send_config(member);
            p->generation = m->generation;
        }
    }
}

/* A rotated file must not be written to any more, whatever is wrong with main.cf. */
static void reopen_logs(struct master *m)
{
    struct logs fresh;
    struct err e;
    if (logs_open(&fresh, m->plan->config, &e) == 0)
        use_logs(m, &fresh, m->plan);
    else
        log_error("reload: %s; the old file is written on", e.text);
}

void life_reload(struct master *m)
{
    struct change c;
    struct err e;
    char notice[64];
    if (m->stopping)
        return;
    snprintf(notice, sizeof notice, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)clock_mono());
    sd_notify(0, notice);
    if (prepare_change(m, &c, &e) < 0) {
        reopen_logs(m);
        log_error("reload: %s; the old configuration stays", e.text);
    } else {
        change_over(m, &c);
        renew(m);
        log_info("reload: configuration %s is in effect", m->config_directory);
    }
    sd_notify(0, "READY=1");
}

/* ---- stop ------------------------------------------------------------------------- */

/* However long sessions took, qmgr, which has all results by then, writes them
 * down: a delivery that it forgets is made again. */
enum { STOP_REST_SECONDS = 10 };

/* Who is drained in a phase: those who talk to the world first, at the same time,
 * as each may need all the time there is; then those that both of them need. */
static bool is_due(const struct process *p, enum stop_phase phase)
{
    return phase == STOP_REST || p->command->inet || p->command == command_find(SLICE("relay"));
}

static int64_t time_left(const struct master *m)
{
    int64_t left = (m->stop_deadline - clock_mono()) / CLOCK_SECOND;
    int64_t least = m->stopping == STOP_REST ? STOP_REST_SECONDS : 0;
    if (m->stop_at_once)
        return 0;
    return left < least ? least : left;
}

static unsigned drain_phase(struct master *m, bool send)
{
    int64_t seconds = time_left(m);
    unsigned count = 0;
    list_each(&m->processes, n)
    {
        struct process *p = container_of(n, struct process, link);
        if (!m->stop_at_once && !is_due(p, m->stopping))
            continue;
        count++;
        if (send)
            supervise_drain(p, seconds, false);
    }
    return count;
}

void life_stop_next(struct master *m)
{
    if (m->stopping == STOP_EDGES && drain_phase(m, false) == 0) {
        m->stopping = STOP_REST;
        drain_phase(m, true);
    }
    if (list_empty(&m->processes))
        event_base_loopbreak(m->base);
}

void life_stop(struct master *m, bool again)
{
    int64_t limit = m->plan->config->service_stop_time;
    if (m->stopping && !again)
        return;
    if (!m->stopping) {
        log_info("stopping; sessions and deliveries under way may finish, for %lld s at most",
                 (long long)limit);
        sd_notify(0, "STOPPING=1");
        m->stopping = STOP_EDGES;
        m->stop_deadline = clock_mono() + limit * CLOCK_SECOND;
    } else if (!m->stop_at_once) {
        log_info("told to stop again: stopping at once");
        m->stop_at_once = true;
    }
    drain_phase(m, true);
    life_stop_next(m);
}

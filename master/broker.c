/* Who talks to whom: a star round qmgr; resolve tells smtpd clients' names, and
 * quota tells it whose mail it takes. */
#include <signal.h>
#include <unistd.h>

#include "core/mem.h"
#include "master/authorities.h"
#include "master/master.h"
#include "master/plans_file.h"
#include "master/providers.h"
#include "master/sources_file.h"
#include "service/client_counts.h"

static bool is_qmgr(const struct process *p)
{
    return p->command == command_find(SLICE("qmgr"));
}

static bool is_quota(const struct process *p)
{
    return p->command == command_find(SLICE("quota"));
}

/* smtpd asks quota who its clients are and what they may send. */
static bool asks_accounts(const struct process *smtpd, const struct process *quota)
{
    return smtpd->command == command_find(SLICE("smtpd")) && is_quota(quota);
}

static void send_peer(struct process *to, const struct process *peer, int fd)
{
    if (is_qmgr(to) && peer->owners_only)
        ipc_owners_only_encode(channel_out(to->channel),
                               &(struct ipc_owners_only){.pid = (uint32_t)peer->pid});
    ipc_peer_encode(channel_out(to->channel), &(struct ipc_peer){
                                                  .service = slice_str(peer->command->name),
                                                  .slot = peer->slot,
                                                  .pid = (uint32_t)peer->pid,
                                              });
    channel_attach(to->channel, fd);
}

static void introduce(struct process *a, struct process *b)
{
    struct err e;
    int pair[2];
    if (channel_pair(pair, &e) < 0) {
        /* without peers a process is of no use: the watchdog starts it again */
        log_error("%s and %s: no channel between them: %s", a->label, b->label, e.text);
        kill(b->pid, SIGTERM);
        return;
    }
    send_peer(a, b, pair[0]);
    send_peer(b, a, pair[1]);
    close(pair[0]);
    close(pair[1]);
}

/* smtpd processes are as old as their configuration: a reload replaces them. */
static bool asks_names(const struct process *smtpd, const struct process *resolve)
{
    return smtpd->asks_names && resolve->command == command_find(SLICE("resolve"));
}

static bool asks_keys(const struct process *smtpd, const struct process *keyd)
{
    return smtpd->asks_keys && keyd->command == command_find(SLICE("keyd"));
}

/* keyd has to do with smtpd alone. */
static bool is_star(const struct process *a, const struct process *b)
{
    const struct command *keyd = command_find(SLICE("keyd"));
    return is_qmgr(a) != is_qmgr(b) && a->command != keyd && b->command != keyd;
}

void broker_connect(struct process *p)
{
    list_each(&p->master->processes, n)
    {
        struct process *other = container_of(n, struct process, link);
        if (other == p || !other->connected || !other->channel)
            continue;
        if (is_star(p, other) || asks_keys(p, other) || asks_keys(other, p) ||
            asks_names(p, other) || asks_names(other, p) || asks_accounts(p, other) ||
            asks_accounts(other, p))
            introduce(other, p);
    }
}

static int free_region(const struct master *m)
{
    bool taken[CLIENT_COUNTS_REGIONS] = {false};
    list_each(&m->processes, n)
    {
        const struct process *p = container_of(n, struct process, link);
        if (p->region >= 0)
            taken[p->region] = true;
    }
    for (int i = 0; i < CLIENT_COUNTS_REGIONS; i++)
        if (!taken[i])
            return i;
    return -1;
}

void broker_client_counts(struct process *p)
{
    struct err e;
    struct master *m = p->master;
    if (p->command != command_find(SLICE("smtpd")))
        return;
    int region = free_region(m);
    if (region < 0)
        err_set(&e, "there are more than %d smtpd processes", CLIENT_COUNTS_REGIONS);
    if (region < 0 || client_counts_set(m->client_counts, (unsigned)region, true, &e) < 0) {
        log_warning("%s (process %d): the limits per client hold for it alone: %s", p->label,
                    (int)p->pid, e.text);
        return;
    }
    p->region = region;
    ipc_client_counts_encode(channel_out(p->channel),
                             &(struct ipc_client_counts){.region = (uint32_t)region});
    channel_attach(p->channel, m->client_counts);
}

void broker_clear_counts(struct process *p)
{
    struct err e;
    if (p->region < 0)
        return;
    if (client_counts_set(p->master->client_counts, (unsigned)p->region, false, &e) < 0)
        log_warning("%s (process %d): %s", p->label, (int)p->pid, e.text);
    p->region = -1;
}

/* To those that look at certificates of others. */
static void send_authorities(struct process *p)
{
    struct err e;
    const struct config *c = p->master->plan->config;
    int fd = authorities_open(c, &e);
    if (fd < 0) {
        log_error("%s; the certificate authorities that are known stay in use", e.text);
        return;
    }
    ipc_table_encode(channel_out(p->channel),
                     &(struct ipc_table){.parameter = SLICE("smtp_tls_CAfile"),
                                         .spec = slice_str(c->smtp_tls_CAfile)});
    channel_attach(p->channel, fd);
    close(fd);
}

/* Without mynetworks_account quota says of clients of mynetworks that they are nobody's, and
 * sessions of the processes that there are keep to that: also for a qmgr that comes later, when
 * it is set again. */
void broker_forget_owners(struct master *m)
{
    if (*m->plan->config->mynetworks_account)
        return;
    list_each(&m->processes, n) container_of(n, struct process, link)->owners_only = false;
}

/* plans.conf goes to quota as tables go to resolve. */
static void send_plans(struct process *p)
{
    struct err e;
    const char *path = p->master->plan->config->plans_file;
    int fd = *path ? plans_file_open(path, &e) : -1;
    if (fd < 0) {
        if (*path)
            log_error("%s; quota keeps the plans that it has", e.text);
        return;
    }
    ipc_table_encode(channel_out(p->channel), &(struct ipc_table){.parameter = SLICE("plans_file"),
                                                                  .spec = slice_str(path)});
    channel_attach(p->channel, fd);
    close(fd);
}

/* qmgr keeps the set that it has if this one cannot be had. */
static void broker_providers(struct process *p)
{
    const char *path = p->master->plan->config->provider_config_file;
    struct err e;
    if (!*path)
        return;
    int fd = providers_open(path, &e);
    if (fd < 0) {
        log_error("provider_config_file: %s", e.text);
        return;
    }
    ipc_table_encode(
        channel_out(p->channel),
        &(struct ipc_table){.parameter = SLICE("provider_config_file"), .spec = slice_str(path)});
    channel_attach(p->channel, fd);
    close(fd);
}

/* The same for the addresses to send from. */
static void send_sources(struct process *p)
{
    struct err e;
    const char *path = p->master->plan->config->source_config_file;
    int fd = *path ? sources_file_open(path, &e) : -1;
    if (fd < 0) {
        if (*path)
            log_error("%s; the sources stay as they are", e.text);
        return;
    }
    ipc_table_encode(
        channel_out(p->channel),
        &(struct ipc_table){.parameter = SLICE("source_config_file"), .spec = slice_str(path)});
    channel_attach(p->channel, fd);
    close(fd);
}

void broker_tables(struct process *p)
{
    struct tables *t = &p->master->tables;
    if (is_quota(p) && p->channel) {
        send_sources(p);
        send_plans(p);
    }
    if (p->command == command_find(SLICE("qmgr")) && p->channel) {
        broker_providers(p);
        send_sources(p);
    }
    bool resolve = p->command == command_find(SLICE("resolve"));
    if (!p->channel || (!resolve && p->command != command_find(SLICE("relay"))))
        return;
    send_authorities(p);
    for (size_t i = 0; i < t->count && resolve; i++) {
        struct err e;
        struct table *table = &t->list[i];
        if (!table->path || table->use == TABLE_AUTHORITIES)
            continue;
        int fd = table_open(table, &e);
        if (fd < 0) {
            log_error("%s", e.text);
            continue;
        }
        ipc_table_encode(channel_out(p->channel),
                         &(struct ipc_table){.parameter = slice_str(table_parameter(table->use)),
                                             .position = table->position,
                                             .spec = slice_str(table->spec)});
        channel_attach(p->channel, fd);
        close(fd);
    }
}

void broker_logs(struct process *p)
{
    const struct logs *l = &p->master->logs;
    if (!p->channel)
        return;
    ipc_log_fd_encode(channel_out(p->channel), &(struct ipc_log_fd){.which = 0});
    channel_attach(p->channel, l->log);
    ipc_log_fd_encode(channel_out(p->channel), &(struct ipc_log_fd){.which = 1});
    channel_attach(p->channel, l->event_log);
}

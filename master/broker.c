/* Who talks to whom: a star round qmgr. */
#include <signal.h>
#include <unistd.h>

#include "core/mem.h"
#include "master/master.h"

static bool is_qmgr(const struct process *p)
{
    return p->command == command_find(SLICE("qmgr"));
}

static void send_peer(struct process *to, const struct process *peer, int fd)
{
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

void broker_connect(struct process *p)
{
    list_each(&p->master->processes, n)
    {
        struct process *other = container_of(n, struct process, link);
        if (other != p && other->connected && other->channel && is_qmgr(other) != is_qmgr(p))
            introduce(other, p);
    }
}

void broker_tables(struct process *p)
{
    struct tables *t = &p->master->tables;
    if (p->command != command_find(SLICE("resolve")) || !p->channel)
        return;
    for (size_t i = 0; i < t->count; i++) {
        struct err e;
        struct table *table = &t->list[i];
        if (!table->path)
            continue;
        int fd = table_open(table, &e);
        if (fd < 0) {
            log_error("%s", e.text);
            continue;
        }
        ipc_table_encode(channel_out(p->channel),
                         &(struct ipc_table){.parameter = SLICE("transport_maps"),
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

/* The state of all services, for `postern status`. */
#include "core/clock.h"
#include "core/json.h"
#include "master/master.h"

enum { STATUS_MAX = 100 * 1024 };

static const char *state_name(const struct process *p)
{
    static const char *const names[] = {"starting", "ready", "draining"};
    return p ? names[p->state] : "down";
}

static void add_listeners(struct buf *b, const struct member *member)
{
    const struct plan_service *s = member->service;
    json_list(b, "listeners");
    for (unsigned i = 0; i < s->address_count; i++)
        if (listen_find(&member->master->listeners, s->addresses[i].text) >= 0)
            json_str(b, NULL, slice_str(s->addresses[i].text));
    json_list_end(b);
}

static void add_process(struct buf *b, const char *name, const struct command *command,
                        unsigned slot, const struct process *p, const struct member *member)
{
    json_begin(b);
    json_str(b, "name", slice_str(name));
    json_str(b, "program", slice_str(command->name));
    json_int(b, "slot", slot);
    json_int(b, "pid", p ? p->pid : 0);
    json_str(b, "state", slice_str(state_name(p)));
    json_int(b, "started", p ? p->started / CLOCK_SECOND : 0);
    json_int(b, "restarts", member ? member->restarts : 0);
    if (member)
        add_listeners(b, member);
    json_end(b);
}

void status_reply(struct process *asking, uint64_t tag)
{
    struct master *m = asking->master;
    struct buf b = BUF_INIT(STATUS_MAX);
    json_list(&b, NULL);
    list_each(&m->members, n)
    {
        const struct member *member = container_of(n, struct member, link);
        add_process(&b, member->name, member->command, member->slot, member->process, member);
    }
    list_each(&m->processes, n)
    {
        const struct process *p = container_of(n, struct process, link);
        if (!p->member || p->member->process != p)
            add_process(&b, p->name, p->command, p->slot, p, NULL);
    }
    json_list_end(&b);
    ipc_status_reply_encode(channel_out(asking->channel),
                            &(struct ipc_status_reply){.tag = tag, .json = buf_slice(&b)});
    buf_free(&b);
}

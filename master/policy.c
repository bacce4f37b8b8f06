/* Connections to policy servers: smtpd has no network of its own, so master makes
 * the sockets, to the servers that the process's own configuration names and to
 * no others. Master never waits for a connection and never reads from one. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "conf/restrictions.h"
#include "io/net.h"
#include "master/master.h"

/* Answers that a process may leave unread: each holds a descriptor of ours. */
enum {
    PENDING_MAX = 4096,
    RESTRICTIONS_TEXT_MAX = 1 << 20 /* six parameters of main.cf */
};

char *policy_restrictions(const struct config *config)
{
    struct buf all = BUF_INIT(RESTRICTIONS_TEXT_MAX);
    for (int i = 0; i < RESTRICTION_LISTS; i++) {
        buf_addstr(&all, restrictions_text(config, (enum restriction_list)i));
        buf_addc(&all, '\n');
    }
    buf_addc(&all, '\0');
    return all.data;
}

/* Whether one of the lists has this server. */
static bool is_named(const char *restrictions, struct slice endpoint)
{
    struct slice list = slice_str(restrictions);
    struct restriction r;
    while (restriction_next(&list, &r, NULL) == 1)
        if (r.kind == RESTRICTION_SERVICE && slice_eq(r.endpoint, endpoint))
            return true;
    return false;
}

static int connect_to(const struct process *p, struct slice endpoint, struct err *e)
{
    struct policy_endpoint to;
    bool connected;
    if (!is_named(p->restrictions, endpoint))
        return err_set(e, "it is not in the configuration");
    if (channel_pending(p->channel) > PENDING_MAX)
        return err_set(e, "too many connections at a time");
    if (policy_endpoint_parse(endpoint, p->master->plan->config->queue_directory, &to, e) < 0)
        return -1;
    int fd = net_connect(slice_make(to.address, to.len), to.port, SLICE(""), &connected);
    return fd < 0 ? err_set(e, "%s", strerror(errno)) : fd;
}

void policy_connect(struct process *p, const struct ipc_connect_request *m)
{
    struct err e = {0, ""};
    int fd = connect_to(p, m->endpoint, &e);
    if (fd < 0) {
        ipc_connect_failed_encode(
            channel_out(p->channel),
            &(struct ipc_connect_failed){.tag = m->tag, .text = slice_str(e.text)});
        return;
    }
    ipc_connecting_encode(channel_out(p->channel), &(struct ipc_connecting){.tag = m->tag});
    channel_attach(p->channel, fd);
    close(fd);
}

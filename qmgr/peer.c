#include "qmgr/peer.h"

#include <unistd.h>

#include "core/log.h"
#include "qmgr/qmgr.h"

static int on_frame(struct channel *channel, const struct ipc_frame *f, int fd, void *arg,
                    struct err *e)
{
    struct peer *p = arg;
    (void)channel;
    if (fd >= 0)
        close(fd); /* none of qmgr's peers sends one */
    queue_tick(p->q);
    int rc = p->ops->frame(p, f, e);
    p->broke_rules = rc < 0;
    return rc;
}

static void on_closed(struct channel *channel, const char *why, void *arg)
{
    struct peer *p = arg;
    queue_tick(p->q);
    if (p->broke_rules) {
        p->q->counters.bad_peers++;
        log_error("channel to %s closed: %s; if this comes again, the process should be looked at",
                  channel_name(channel), why);
    } else {
        log_info("channel to %s: %s", channel_name(channel), why);
    }
    p->broke_rules = false;
    p->channel = NULL;
    p->ops->gone(p);
}

void peer_open(struct peer *p, struct qmgr *q, int fd, const char *name, const struct peer_ops *ops)
{
    static const struct channel_ops channel_ops = {on_frame, on_closed};
    struct channel *old = p->channel;
    if (old) {
        on_closed(old, "replaced", p);
        channel_free(old);
    }
    p->q = q;
    p->ops = ops;
    p->channel = channel_new(q->s->base, fd, name, &channel_ops, p);
}

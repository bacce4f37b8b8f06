/* qmgr's end of a channel to another of our processes: the same rules for all of them. A
 * peer that breaks the rules is closed, counted and named (B89..B93); one that is gone
 * is waited for; a second one of a kind of which there is one takes the first one's place. */
#ifndef POSTERN_QMGR_PEER_H
#define POSTERN_QMGR_PEER_H

#include "ipc/channel.h"

struct qmgr;
struct peer;

struct peer_ops {
    /* One frame; its bytes are valid until the callback returns. 0, or -1 with *e set
     * if it breaks the rules: then the channel is closed. */
    int (*frame)(struct peer *p, const struct ipc_frame *f, struct err *e);
    /* The channel is closed, p->channel is NULL. May free what p is a part of. */
    void (*gone)(struct peer *p);
};

/* Part of what uses it; zeroed: no peer. */
struct peer {
    struct qmgr *q;
    const struct peer_ops *ops;
    struct channel *channel; /* NULL: it is away */
    bool broke_rules;        /* the frame of it that came last was refused */
};

/* Takes over fd, on which the peer `name` (copied) is. If *p has a channel that one is
 * closed first, with `gone`. */
void peer_open(struct peer *p, struct qmgr *q, int fd, const char *name,
               const struct peer_ops *ops);

#endif

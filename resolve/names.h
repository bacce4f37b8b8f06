/*
 * What clients are called. The address is looked up (PTR), and a name counts only
 * if it has the address in turn: else whoever runs the reverse zone could give
 * himself any name.
 *
 * Equal questions share one lookup, answers are kept for their TTL. What smtpd
 * can ask is bounded, whatever connects to it.
 */
#ifndef POSTERN_RESOLVE_NAMES_H
#define POSTERN_RESOLVE_NAMES_H

#include "ipc/channel.h"
#include "resolve/lookup.h"

struct names {
    const struct lookups *mail; /* its name servers and configuration are ours, too */
    struct cache cache;         /* by address */
    struct list active;         /* lookups: under way or waiting, oldest first */
    struct list waiting;        /* those that wait for a place */
    struct list requests;       /* of smtpd, that wait for a lookup */
    size_t running, queued, count;
    struct event *tick; /* deadlines; pending only while lookups are */
};

int names_init(struct names *all, struct event_base *base, const struct lookups *mail,
               struct err *e);
/* A question; exactly one answer goes to channel. 0, or -1 if it is malformed. */
int names_take(struct names *all, struct channel *channel, uint64_t tag, struct slice address);
/* The channel is gone: nobody wants its answers. */
void names_forget(struct names *all, const struct channel *channel);
/* After a reload: other servers may know other names. */
void names_clear(struct names *all);

/* The domain where the names of an address are: "4.3.2.1.in-addr.arpa". */
void names_reverse(struct slice address, struct domain *out);

#endif

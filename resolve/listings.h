/*
 * Whether addresses of ours are on block lists in the DNS (RFC 5782): qmgr asks about one
 * address and one list at a time. A list answers with addresses of 127.0.0.0/8; those of
 * 127.255.255.0/24 say that it does not talk to our resolver, which is no listing.
 */
#ifndef POSTERN_RESOLVE_LISTINGS_H
#define POSTERN_RESOLVE_LISTINGS_H

#include "ipc/channel.h"
#include "resolve/lookup.h"

struct listings {
    const struct lookups *mail; /* its name servers are ours, too */
    struct list open;
    size_t count;
};

void listings_init(struct listings *all, const struct lookups *mail);
/* A question; exactly one answer goes to channel. 0, or -1 if it is malformed. */
int listings_take(struct listings *all, struct channel *channel,
                  const struct ipc_listing_request *m);
/* The channel is gone: nobody wants its answers. */
void listings_forget(struct listings *all, const struct channel *channel);

/* "4.3.2.1.ZONE"; -1 if that is too long or no name, or the address is none. */
int listings_name(struct slice address, struct slice zone, struct domain *out);
/* What a list's answer says. */
enum listing_status listings_meaning(const struct dns_answer *a);

#endif

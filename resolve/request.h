/* qmgr's questions: each gets exactly one answer, at once if it is known. */
#ifndef POSTERN_RESOLVE_REQUEST_H
#define POSTERN_RESOLVE_REQUEST_H

#include "ipc/channel.h"
#include "resolve/lookup.h"
#include "resolve/route.h"
#include "resolve/tls_policy.h"

struct requests {
    struct routes *routes;
    struct cache *cache;
    struct lookups *lookups;
    struct tls_policies *tls;
    struct list open;   /* that wait for lookups */
    struct list asking; /* that wait for a table which is a server */
    struct list held;   /* that wait for tables to come */
    size_t count;       /* of all three */
    int64_t hold_until; /* clock_mono: then they are answered anyway */
    struct buf scratch;
};

void requests_init(struct requests *all, struct routes *routes, struct cache *cache,
                   struct lookups *lookups, struct tls_policies *tls);
/* A question; the answer goes to channel. */
void request_take(struct requests *all, struct channel *channel, uint64_t tag,
                  struct slice recipient);
/* The tables are about to change: nothing is asked of them any more, until
 * requests_unhold. */
void requests_hold(struct requests *all);
/* Answers the held ones if the tables have come or the time is over. */
void requests_unhold(struct requests *all);
/* The channel is gone: nobody wants its answers. */
void requests_forget(struct requests *all, const struct channel *channel);

#endif

/*
 * Where a recipient's mail goes, before any DNS: transport_maps, then
 * relayhost, then the recipient's own domain.
 *
 * transport_maps is searched as in Postfix: user@domain, domain, then .parent
 * for each parent domain, then "*"; each key in all tables before the next key;
 * pattern tables see user@domain only. The value is transport:nexthop:
 *   smtp: (or relay:, or nothing before the colon), lmtp:, discard:,
 *   error:[5.x.y] text, retry:[4.x.y] text
 * ":" alone means "as if no table had matched"; an empty nexthop behind a
 * transport means the recipient's domain.
 */
#ifndef POSTERN_RESOLVE_ROUTE_H
#define POSTERN_RESOLVE_ROUTE_H

#include "conf/config.h"
#include "resolve/cache.h"
#include "resolve/destination.h"
#include "tables/table.h"

struct routes {
    const struct config *config;
    struct table **tables; /* by position; NULL: has not come, or is unreadable */
    size_t table_count;
    struct destination relayhost[DESTINATIONS_MAX];
    int relayhost_count; /* 0: none */
    char *relayhost_problem;
    int64_t warned; /* clock_mono of the last complaint about a table's value */
};

struct route {
    uint8_t transport;      /* enum transport */
    bool individual;        /* other addresses of this domain may go elsewhere */
    uint32_t ttl;           /* seconds that the route may be remembered */
    struct verdict verdict; /* code != 0: decided, nothing to look up */
    int count;              /* destinations, in order; 0 if decided */
    struct destination destinations[DESTINATIONS_MAX];
    char nexthop[NEXTHOP_MAX + 1]; /* for people */
};

/* Takes a configuration, at start and after a reload. Tables whose spec and
 * position did not change are kept. */
void routes_configure(struct routes *r, const struct config *c);
/* The content of a table, at its position in transport_maps; takes over fd. A
 * new version that cannot be read leaves the old one in use. */
void routes_table(struct routes *r, unsigned position, struct slice spec, int fd);
/* Whether every table has come. */
bool routes_complete(const struct routes *r);
void route_find(struct routes *r, struct slice recipient, struct route *out);

#endif

/*
 * Where a recipient's mail goes, before any DNS: transport_maps, then
 * relayhost, then the recipient's own domain.
 *
 * transport_maps is searched as in Postfix: user@domain, domain, then .parent
 * for each parent domain, then "*"; each key in all tables before the next key;
 * pattern tables and those that are servers see user@domain only. The value is
 * transport:nexthop:
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
#include "resolve/server_table.h"
#include "smtp/address.h"

/* A table of the list: one of the two. Neither: it has not come, or is unreadable. */
struct route_table {
    struct table *file;
    struct server_table *server;
};

struct routes {
    const struct config *config;
    struct server_tables *servers;
    struct route_table *tables; /* by position */
    size_t table_count;
    struct destination relayhost[DESTINATIONS_MAX];
    int relayhost_count; /* 0: none */
    char *relayhost_problem;
    int64_t warned; /* clock_mono of the last complaint about a table */
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

/* A recipient whose route may need a server's answer. */
struct route_search {
    struct routes *routes;
    size_t next; /* the table that is asked */
    struct table_query query;
    size_t len;
    char recipient[ADDRESS_MAX]; /* in lower case */
    /* What came of it; the route is valid until this returns. */
    void (*found)(struct route_search *s, const struct route *route);
};

/* Takes a configuration, at start and after a reload. Tables whose spec did not
 * change are kept. No search may be under way. */
void routes_configure(struct routes *r, const struct config *c);
/* The content of a table, at its position in transport_maps; takes over fd. A
 * new version that cannot be read leaves the old one in use. */
void routes_table(struct routes *r, unsigned position, struct slice spec, int fd);
/* Whether every table has come. */
bool routes_complete(const struct routes *r);
/* Whether route_find may have to wait. */
bool routes_have_servers(const struct routes *r);
/* Finds the route of a recipient. true: it is in *out. false: a server is asked, and
 * s->found is called later, unless route_forget ends the search. */
bool route_find(struct routes *r, struct slice recipient, struct route_search *s,
                struct route *out);
/* The route is not wanted any more. Harmless if nothing is asked. */
void route_forget(struct route_search *s);

#endif

/* Routes: what resolve said about a domain, or about one address of a domain
 * whose addresses differ. The inside of sites.c and
 * sites_resolve.c, for these, site_show.c and what explains waiting. */
#ifndef POSTERN_QMGR_SITES_H
#define POSTERN_QMGR_SITES_H

#include "qmgr/qmgr.h"

enum { ROUTES_MAX = 200000 /* those of mail in line are looked at for each delivery */ };

enum route_state { ROUTE_NEW, ROUTE_UNSENT, ROUTE_ASKED, ROUTE_READY };

struct route_watcher {
    struct list link;
    void (*done)(struct route *r, void *arg);
    void *arg;
};

struct route {
    struct list lru;
    struct list unsent;    /* in sites.unsent while UNSENT */
    struct list waiting;   /* struct job */
    struct list watchers;  /* struct route_watcher */
    struct list queues;    /* struct queue: whose first job is of this route */
    struct job *open;      /* of the message that is being activated */
    struct site *site;     /* if OK and the transport delivers */
    struct tls_rules *tls; /* how its servers are spoken to */
    struct answer *answer; /* otherwise */
    char *nexthop;
    uint64_t tag;
    int64_t expires; /* monotonic */
    uint8_t state, status, transport;
    bool by_address; /* the domain's addresses have routes of their own */
    bool answering;  /* an answer is being worked in */
    uint16_t key_len, sample_len;
    char text[]; /* key, then the address that resolve is asked about */
};

static inline struct slice route_key(const struct route *r)
{
    return slice_make(r->text, r->key_len);
}
/* The route that a recipient's mail takes, if it is known; NULL: it has to be looked up. */
struct route *sites_route_known(const struct qmgr *q, struct slice address);
/* Calls back when the route is known; maybe at once. */
void route_watch(struct qmgr *q, struct route *r, void (*done)(struct route *r, void *arg),
                 void *arg);

/* Finds or makes one; an entry that is out of date is as new. `sample`: an address of it. */
struct route *route_get(struct qmgr *q, struct slice key, struct slice sample);
/* What resolve said of it before holds no more. */
void route_forget_answer(struct qmgr *q, struct route *r);
/* The job goes on as the route's answer says; it may be freed. */
void route_apply(struct qmgr *q, struct route *r, struct job *j);
/* A site: the servers of that name, for domains to which providers.conf gives the same place.
 * domain: one of them; own: as in struct group. */
struct site_id {
    uint8_t transport;
    bool own;
    struct slice name, domain;
};
/* Finds or makes one; the caller counts its reference. */
struct site *site_get(struct qmgr *q, const struct site_id *id);
/* Whether a site of that name (lower case, at most SITE_NAME_MAX) leads to the group. */
bool site_leads_to(const struct qmgr *q, struct slice name, const struct group *g);
/* Whose limits hold there: after its targets, or providers.conf, have changed. */
void site_regroup(struct qmgr *q, struct site *s);
/* Of a route's key, or an address. */
static inline struct slice domain_part(struct slice address)
{
    size_t at = slice_rchr(address, '@');
    return at < address.len ? slice_from(address, at + 1) : address;
}

/* ---- sites_resolve.c ---- */
void sites_resolve_init(struct qmgr *q);
/* Asks resolve about it, unless that was done. */
void route_ask(struct qmgr *q, struct route *r);

/* ---- sites_tls.c ---- */
/* The rules of a reply, a reference for the caller; NULL: it has none. -1: it is malformed. */
int sites_read_tls(const struct ipc_resolve_reply *in, struct tls_rules **out, struct err *e);
/* A report of resolve (ipc_tls_report): into the queue with it. */
int sites_tls_report(struct qmgr *q, struct slice body, struct err *e);

#endif

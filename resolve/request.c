#include "resolve/request.h"

#include "core/clock.h"
#include "core/mem.h"

struct place {
    struct waiter waiter;
    struct entry *entry;
    struct request *request;
};

struct request {
    struct list link;
    struct requests *all;
    struct channel *channel;
    uint64_t tag;
    int missing; /* lookups that are not over */
    struct route route;
    struct place places[DESTINATIONS_MAX];
};

/* Its recipient is in the search. */
struct asking {
    struct list link;
    struct requests *all;
    struct channel *channel;
    uint64_t tag;
    struct route_search search;
};

struct held {
    struct list link;
    struct channel *channel;
    uint64_t tag;
    size_t len;
    char recipient[];
};

/* ---- answers --------------------------------------------------------------- */

static void answer_verdict(struct channel *channel, uint64_t tag, const struct route *route,
                           const struct verdict *v, uint32_t ttl, const char *site)
{
    struct ipc_resolve_reply m = {.tag = tag,
                                  .status = v->code >= 500 ? RESOLVE_PERMANENT : RESOLVE_TEMPORARY,
                                  .scope = route->individual,
                                  .ttl = ttl,
                                  .transport = route->transport,
                                  .nexthop = slice_str(route->nexthop),
                                  .site = slice_str(site),
                                  .code = v->code,
                                  .enhanced = slice_str(v->enhanced),
                                  .text = slice_str(v->text)};
    ipc_resolve_reply_encode(channel_out(channel), &m);
}

static void answer_targets(struct channel *channel, uint64_t tag, const struct route *route,
                           uint32_t ttl, struct slice site, struct slice targets, struct slice tls,
                           struct slice tls_report)
{
    struct ipc_resolve_reply m = {.tag = tag,
                                  .status = RESOLVE_OK,
                                  .scope = route->individual,
                                  .ttl = ttl,
                                  .transport = route->transport,
                                  .nexthop = slice_str(route->nexthop),
                                  .site = site,
                                  .targets = targets,
                                  .tls = tls,
                                  .tls_report = tls_report};
    ipc_resolve_reply_encode(channel_out(channel), &m);
}

/* As if delivered; the text goes into the log. */
static void answer_discard(struct channel *channel, uint64_t tag, const struct route *route)
{
    struct ipc_resolve_reply m = {.tag = tag,
                                  .status = RESOLVE_OK,
                                  .scope = route->individual,
                                  .ttl = route->ttl,
                                  .transport = TRANSPORT_DISCARD,
                                  .nexthop = slice_str(route->nexthop),
                                  .code = 250,
                                  .enhanced = SLICE("2.0.0"),
                                  .text = route->nexthop[0]
                                              ? slice_str(route->nexthop)
                                              : SLICE("discarded, as transport_maps says")};
    ipc_resolve_reply_encode(channel_out(channel), &m);
}

/* Seconds that entry and route may be used from now on; at least one, so that
 * qmgr does not ask again for each message of a burst. */
static uint32_t remaining(const struct entry *e, const struct route *route, int64_t now)
{
    int64_t left = e->expires > now ? (e->expires - now) / CLOCK_SECOND : 0;
    if (left < 1)
        left = 1;
    return left < (int64_t)route->ttl ? (uint32_t)left : route->ttl;
}

static void answer_entry(const struct requests *all, struct channel *channel, uint64_t tag,
                         const struct route *route, const struct entry *e, int64_t now)
{
    const struct result *r = &e->result;
    uint32_t ttl = remaining(e, route, now);
    if (r->status != RESOLVE_OK) {
        answer_verdict(channel, tag, route, r->verdict, ttl, r->site);
        return;
    }
    struct buf tls = BUF_INIT(TLS_RULES_BYTES);
    tls_policies_rules(all->tls, &route->destinations[0], r->tls, buf_slice(&r->targets), false,
                       &tls);
    const struct domain *domain = &route->destinations[0].name;
    answer_targets(channel, tag, route, ttl, slice_str(r->site), buf_slice(&r->targets),
                   buf_slice(&tls), r->tls && r->tls->reports ? domain_slice(domain) : SLICE(""));
    buf_free(&tls);
}

/* ---- several next hops ------------------------------------------------------ */

/* The targets of one next hop behind those of the others: their preferences
 * begin where the ones before end. Returns where the next begin. */
static uint32_t append_targets(struct buf *out, struct slice targets, uint32_t base)
{
    struct ipc_cursor list = ipc_list_cursor(targets);
    struct ipc_target t;
    uint32_t highest = base;
    while (ipc_target_next(&list, &t) && out->max - out->len > 2u * DNS_NAME_MAX) {
        uint32_t preference = base + t.preference;
        t.preference = (uint16_t)(preference < UINT16_MAX ? preference : UINT16_MAX);
        highest = preference > highest ? preference : highest;
        ipc_target_add(out, &t);
    }
    return highest + 1;
}

static void answer_several(const struct request *q, int64_t now)
{
    struct buf targets = BUF_INIT(TARGETS_BYTES_MAX), site = BUF_INIT(NEXTHOP_MAX + 16);
    struct buf tls = BUF_INIT(TLS_RULES_BYTES);
    const struct entry *refused = NULL;
    uint32_t ttl = q->route.ttl, base = 0;
    for (int i = 0; i < q->route.count; i++) {
        const struct entry *e = q->places[i].entry;
        uint32_t left = remaining(e, &q->route, now);
        ttl = left < ttl ? left : ttl;
        if (e->result.status == RESOLVE_OK) {
            base = append_targets(&targets, buf_slice(&e->result.targets), base);
            tls_policies_rules(q->all->tls, &q->route.destinations[i], e->result.tls,
                               buf_slice(&e->result.targets), true, &tls);
        } else if (!refused || e->result.status == RESOLVE_TEMPORARY)
            refused = e;
    }
    (void)buf_printf(&site, "list:%s", q->route.nexthop); /* configured, so it can be trusted */
    if (targets.len)
        answer_targets(q->channel, q->tag, &q->route, ttl, buf_slice(&site), buf_slice(&targets),
                       buf_slice(&tls), SLICE(""));
    else
        answer_entry(q->all, q->channel, q->tag, &q->route, refused, now);
    buf_free(&tls);
    buf_free(&targets);
    buf_free(&site);
}

/* ---- waiting --------------------------------------------------------------- */

static void request_free(struct request *q)
{
    list_remove(&q->link);
    q->all->count--;
    for (int i = 0; i < q->route.count; i++) {
        list_remove(&q->places[i].waiter.link);
        entry_release(q->places[i].entry);
    }
    free(q);
}

static void answer_if_ready(struct request *q)
{
    if (q->missing)
        return;
    if (q->route.count == 1)
        answer_entry(q->all, q->channel, q->tag, &q->route, q->places[0].entry, clock_mono());
    else
        answer_several(q, clock_mono());
    request_free(q);
}

static void ready(struct waiter *w)
{
    struct request *q = container_of(w, struct place, waiter)->request;
    q->missing--;
    answer_if_ready(q);
}

static struct slice key_of(struct requests *all, const struct destination *d)
{
    buf_clear(&all->scratch);
    destination_key(d, &all->scratch);
    return buf_slice(&all->scratch);
}

static void wait_for_lookups(struct requests *all, struct channel *channel, uint64_t tag,
                             const struct route *route)
{
    struct request *q = xcalloc(1, sizeof *q);
    int64_t now = clock_mono();
    q->all = all;
    q->channel = channel;
    q->tag = tag;
    q->route = *route;
    q->missing = 1; /* until all are started: some may complete at once */
    list_push(&all->open, &q->link);
    all->count++;
    for (int i = 0; i < route->count; i++)
        list_init(&q->places[i].waiter.link);
    for (int i = 0; i < route->count; i++) {
        struct place *p = &q->places[i];
        struct slice key = key_of(all, &route->destinations[i]);
        p->request = q;
        p->waiter.ready = ready;
        p->entry = cache_find(all->cache, key, now);
        bool fresh = !p->entry;
        if (fresh)
            p->entry = cache_add(all->cache, key); /* with our reference */
        else
            entry_hold(p->entry);
        if (p->entry->done)
            continue;
        q->missing++;
        list_push(&p->entry->waiters, &p->waiter.link);
        if (fresh)
            lookup_start(all->lookups, p->entry, &route->destinations[i]);
    }
    q->missing--;
    answer_if_ready(q);
}

/* ---- questions ------------------------------------------------------------- */

static void refuse_busy(struct channel *channel, uint64_t tag, const struct route *route)
{
    struct verdict v;
    verdict_set(&v, 451, "4.3.2", "too many destinations are being looked up");
    answer_verdict(channel, tag, route, &v, BUSY_TTL, "");
}

/* What is to be found out about TLS with each next hop. A changed table takes effect
 * within seconds. */
static void ask_facts(struct requests *all, struct route *route)
{
    if (route->transport != TRANSPORT_SMTP)
        return;
    for (int i = 0; i < route->count; i++)
        route->destinations[i].facts = tls_policies_wants(all->tls, &route->destinations[i]);
    if (all->tls->table_count > 0 && route->ttl > TABLES_TTL)
        route->ttl = TABLES_TTL;
}

/* The route is known. */
static void follow(struct requests *all, struct channel *channel, uint64_t tag,
                   const struct route *found)
{
    static struct route with_facts; /* large, and used for one question only */
    const struct route *route = &with_facts;
    with_facts = *found;
    ask_facts(all, &with_facts);
    if (route->verdict.code) {
        answer_verdict(channel, tag, route, &route->verdict, route->ttl, "");
        return;
    }
    if (route->transport == TRANSPORT_DISCARD) {
        answer_discard(channel, tag, route);
        return;
    }
    int64_t now = clock_mono();
    const struct entry *e = route->count == 1
                                ? cache_find(all->cache, key_of(all, &route->destinations[0]), now)
                                : NULL;
    if (e && e->done)
        answer_entry(all, channel, tag, route, e, now);
    else if (all->count >= REQUESTS_MAX)
        refuse_busy(channel, tag, route);
    else
        wait_for_lookups(all, channel, tag, route);
}

static void asking_free(struct asking *a)
{
    route_forget(&a->search);
    list_remove(&a->link);
    a->all->count--;
    free(a);
}

static void route_found(struct route_search *search, const struct route *route)
{
    struct asking *a = container_of(search, struct asking, search);
    struct requests *all = a->all;
    struct channel *channel = a->channel;
    uint64_t tag = a->tag;
    asking_free(a);
    follow(all, channel, tag, route);
}

/* The route may need an answer from a server. */
static void ask_route(struct requests *all, struct channel *channel, uint64_t tag,
                      struct slice recipient, struct route *route)
{
    struct asking *a = xcalloc(1, sizeof *a);
    a->all = all;
    a->channel = channel;
    a->tag = tag;
    a->search.found = route_found;
    list_push(&all->asking, &a->link);
    all->count++;
    if (!route_find(all->routes, recipient, &a->search, route))
        return;
    asking_free(a);
    follow(all, channel, tag, route);
}

static void take(struct requests *all, struct channel *channel, uint64_t tag,
                 struct slice recipient)
{
    static struct route route; /* large, and used for one question only */
    static struct route_search search;
    if (!routes_have_servers(all->routes)) {
        (void)route_find(all->routes, recipient, &search, &route);
        follow(all, channel, tag, &route);
    } else if (all->count >= REQUESTS_MAX) {
        refuse_busy(channel, tag, &(struct route){.individual = true});
    } else {
        ask_route(all, channel, tag, recipient, &route);
    }
}

/* master hands tables over right after the start, but in no order with the
 * first question: without waiting that mail would be deferred for nothing. */
static bool holding(const struct requests *all)
{
    return (!routes_complete(all->routes) || !tls_policies_complete(all->tls)) &&
           clock_mono() < all->hold_until;
}

static void hold(struct requests *all, struct channel *channel, uint64_t tag,
                 struct slice recipient)
{
    struct held *h = xmalloc(sizeof *h + recipient.len);
    h->channel = channel;
    h->tag = tag;
    h->len = recipient.len;
    if (recipient.len)
        memcpy(h->recipient, recipient.ptr, recipient.len);
    list_push(&all->held, &h->link);
    all->count++;
}

void request_take(struct requests *all, struct channel *channel, uint64_t tag,
                  struct slice recipient)
{
    if (holding(all) && all->count < REQUESTS_MAX)
        hold(all, channel, tag, recipient);
    else
        take(all, channel, tag, recipient);
}

void requests_hold(struct requests *all)
{
    list_each_safe(&all->asking, n)
    {
        struct asking *a = container_of(n, struct asking, link);
        hold(all, a->channel, a->tag, slice_make(a->search.recipient, a->search.len));
        asking_free(a);
    }
    all->hold_until = clock_mono() + TABLES_WAIT * CLOCK_SECOND;
}

static void held_free(struct requests *all, struct held *h)
{
    list_remove(&h->link);
    all->count--;
    free(h);
}

void requests_unhold(struct requests *all)
{
    if (list_empty(&all->held) || holding(all))
        return;
    list_each_safe(&all->held, n)
    {
        struct held *h = container_of(n, struct held, link);
        take(all, h->channel, h->tag, slice_make(h->recipient, h->len));
        held_free(all, h);
    }
}

void requests_forget(struct requests *all, const struct channel *channel)
{
    list_each_safe(&all->open, n)
    {
        struct request *q = container_of(n, struct request, link);
        if (q->channel == channel)
            request_free(q);
    }
    list_each_safe(&all->asking, k)
    {
        struct asking *a = container_of(k, struct asking, link);
        if (a->channel == channel)
            asking_free(a);
    }
    list_each_safe(&all->held, m)
    {
        struct held *h = container_of(m, struct held, link);
        if (h->channel == channel)
            held_free(all, h);
    }
}

void requests_init(struct requests *all, struct routes *routes, struct cache *cache,
                   struct lookups *lookups, struct tls_policies *tls)
{
    *all = (struct requests){.routes = routes, .cache = cache, .lookups = lookups, .tls = tls};
    list_init(&all->open);
    list_init(&all->asking);
    list_init(&all->held);
    buf_init(&all->scratch, 1024);
    all->hold_until = clock_mono() + TABLES_WAIT * CLOCK_SECOND;
}

/*
 * Groups: what a provider sees as one destination. Domains have sites; sites that lead
 * to one provider, or to the same addresses by other names, share a group and so the
 * limits that are learned there. A group without an entry in providers.conf is known by the
 * MX names of its first site, and stays the same when their addresses change, as they do from
 * one DNS answer to the next where there are many of them.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/mem.h"
#include "qmgr/alerts.h"
#include "qmgr/brakes.h"
#include "qmgr/qmgr.h"
#include "qmgr/seats.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"
#include "rules/rules.h"
#include "rules/tally.h"

enum { HOSTS_MAX = 8, STABLE_TARGETS = 64 };

/* ---- which one ---------------------------------------------------------------------- */

static struct slice key_of(const void *value)
{
    return slice_str(((const struct group *)value)->key);
}

/* Limits that lanes share. They are few, and lanes may be millions. */
struct shared_limits {
    struct shaper_limits v; /* what lanes point at; its bytes are the key */
    size_t refs;
};

static struct slice at_of(const void *value)
{
    const struct group *g = value;
    return slice_make(&g->at, sizeof g->at);
}

static struct slice limits_key(const void *value)
{
    return slice_make(&((const struct shared_limits *)value)->v, sizeof(struct shaper_limits));
}

void groups_init(struct qmgr *q)
{
    map_init(&q->shaping.groups, key_of);
    map_init(&q->shaping.groups_at, at_of);
    map_init(&q->shaping.limits, limits_key);
    wholes_init(q);
    q->shaping.tallies = tallies_new();
}

/* Order does not count: sums of what is well mixed. */
uint64_t group_targets_sum(const struct site *s)
{
    struct ipc_cursor cursor = ipc_list_cursor(buf_slice(&s->targets));
    struct ipc_target t;
    uint64_t sum = 0;
    while (ipc_target_next(&cursor, &t)) {
        char text[64];
        size_t n = t.address.len < sizeof text - 2 ? t.address.len : sizeof text - 2;
        if (n)
            memcpy(text, t.address.ptr, n);
        text[n++] = (char)(t.port >> 8);
        text[n++] = (char)t.port;
        sum += map_hash(slice_make(text, n));
    }
    return sum;
}

static size_t hosts_of(const struct site *s, struct slice hosts[static HOSTS_MAX])
{
    struct ipc_cursor cursor = ipc_list_cursor(buf_slice(&s->targets));
    struct ipc_target t;
    size_t n = 0;
    while (n < HOSTS_MAX && ipc_target_next(&cursor, &t))
        if (n == 0 || !slice_eq(hosts[n - 1], t.host))
            hosts[n++] = t.host;
    return n;
}

static char *copy_of(const char *text)
{
    return text ? xstrdup(text) : NULL;
}

static bool has_entry(const struct rules_place *p)
{
    return p->domain || p->site || p->provider;
}

static char *make_key(const struct site *s, const struct rules_place *p, bool own)
{
    if (s->transport != TRANSPORT_SMTP)
        return slice_dup(slice_make(s->key, s->key_len));
    if (has_entry(p))
        return xasprintf("entry %s/%s/%s", p->provider ? p->provider : "", p->site ? p->site : "",
                         p->domain ? p->domain : "");
    return xasprintf("%s %.*s", own ? "next hop" : "servers", SLICE_ARG(site_name(s)));
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* As the key, but for the same addresses the same after a restart, whichever of their names
 * comes first then. Where the addresses have changed, what is kept is found by the name. */
static char *make_stable(const struct site *s, const struct group *g)
{
    struct ipc_cursor cursor = ipc_list_cursor(buf_slice(&s->targets));
    struct ipc_target t;
    uint64_t sums[STABLE_TARGETS];
    size_t n = 0;
    if (s->transport != TRANSPORT_SMTP || g->provider || g->site || g->domain)
        return xstrdup(g->key);
    while (n < STABLE_TARGETS && ipc_target_next(&cursor, &t))
        sums[n++] = XXH3_64bits_withSeed(t.address.ptr, t.address.len, t.port);
    qsort(sums, n, sizeof sums[0], compare);
    XXH128_hash_t all = XXH3_128bits(sums, n * sizeof sums[0]);
    return xasprintf("%s %016llx%016llx", g->own ? "next hop" : "addresses",
                     (unsigned long long)all.high64, (unsigned long long)all.low64);
}

/* The servers of a group's first site are there now; another group may have been there first. */
static void move_to(struct qmgr *q, struct group *g, uint64_t sum)
{
    if (g->met && g->at.sum == sum)
        return;
    if (g->met)
        map_remove(&q->shaping.groups_at, at_of(g));
    g->at.sum = sum;
    g->at.own = g->own;
    g->met = !map_get(&q->shaping.groups_at, at_of(g));
    if (g->met)
        map_put(&q->shaping.groups_at, g);
}

/* Of another name, but at the same addresses. */
static struct group *find_at(struct qmgr *q, uint64_t sum, bool own)
{
    struct group probe = {.at = {sum, own}};
    return map_get(&q->shaping.groups_at, at_of(&probe));
}

struct slice group_domain_entry(const struct qmgr *q, struct slice domain, char *out, size_t size)
{
    struct rules_place place = {0};
    if (q->shaping.rules)
        rules_place(q->shaping.rules, NULL, 0, domain, &place);
    if (place.domain)
        return slice_str(place.domain);
    if (!place.provider)
        return SLICE("");
    int n = snprintf(out, size, "@%s", place.provider);
    return slice_make(out, (size_t)n < size ? (size_t)n : size - 1);
}

struct group *group_get(struct qmgr *q, const struct site *s, struct slice domain, bool own)
{
    struct slice hosts[HOSTS_MAX];
    struct rules_place place = {0};
    if (q->shaping.rules && s->transport == TRANSPORT_SMTP)
        rules_place(q->shaping.rules, hosts, hosts_of(s, hosts), domain, &place);
    char *key = make_key(s, &place, own);
    struct group *g = map_get(&q->shaping.groups, slice_str(key));
    bool by_servers = s->transport == TRANSPORT_SMTP && !has_entry(&place), first = true;
    if (!g && by_servers && (g = find_at(q, s->sessions, own)))
        first = false;
    if (g) {
        free(key);
    } else {
        const char *name = place.domain ? place.domain : place.site ? place.site : place.provider;
        g = xcalloc(1, sizeof *g);
        *g = (struct group){.key = key,
                            .name = name ? xstrdup(name) : slice_dup(site_name(s)),
                            .provider = copy_of(place.provider),
                            .site = copy_of(place.site),
                            .domain = copy_of(place.domain),
                            .provider_index = place.provider_index,
                            .own = own};
        g->stable = make_stable(s, g);
        list_init(&g->lanes);
        list_init(&g->line);
        map_put(&q->shaping.groups, g);
        brakes_meet(q, g, site_name(s));
        whole_join(q, g);
    }
    if (by_servers && first)
        move_to(q, g, s->sessions);
    g->refs++;
    return g;
}

void group_unref(struct qmgr *q, struct group *g)
{
    if (!g || --g->refs > 0)
        return;
    map_remove(&q->shaping.groups, slice_str(g->key));
    if (g->met)
        map_remove(&q->shaping.groups_at, at_of(g));
    heap_remove(&q->dispatch.looks, &g->look);
    whole_leave(q, g);
    free(g->key);
    free(g->stable);
    free(g->name);
    free(g->provider);
    free(g->site);
    free(g->domain);
    free(g);
}

/* ---- limits ---------------------------------------------------------------------------- */

/* Of a source that warms up there: the stricter holds. */
static void apply_cold(const struct rules_limits *from, double divisor, struct shaper_limits *to)
{
    double rate = from->cold_message_rate * divisor;
    if (rate > 0 && (to->rate <= 0 || rate < to->rate))
        to->rate = rate;
    if (from->cold_daily_cap && (!to->daily_cap || from->cold_daily_cap < to->daily_cap)) {
        to->daily_cap = from->cold_daily_cap;
        to->own_cap = from->own_cold_daily_cap;
    }
}

/* What providers.conf says goes before main.cf. */
static void apply(const struct rules_limits *from, double divisor, bool cold,
                  struct shaper_limits *to)
{
    if (from->connections)
        to->concurrency = from->connections;
    if (from->start_connections)
        to->initial = from->start_connections;
    if (from->message_rate > 0)
        to->rate = from->message_rate * divisor; /* so much a second of real time */
    if (from->start_rate > 0)
        to->start_rate = from->start_rate;
    if (from->connection_rate > 0)
        to->connection_rate = from->connection_rate * divisor;
    to->account_connections = from->account_connections;
    to->account_connections_max = from->account_connections_max;
    to->account_message_rate = from->account_message_rate * divisor;
    to->messages = from->messages_per_connection;
    to->daily_cap = from->daily_cap;
    to->own_cap = from->own_daily_cap;
    if (cold)
        apply_cold(from, divisor, to);
    to->recipients = from->recipients_per_message;
    to->idle_seconds = (uint32_t)((from->idle_time + CLOCK_SECOND - 1) / CLOCK_SECOND);
    to->tls = (uint8_t)from->tls;
}

/* What is usual elsewhere is no bound of the operator's own next hop: it says when it is too
 * much. */
static void own_next_hop(struct rules_limits *l)
{
    l->start_rate = l->message_rate = l->connection_rate = 0;
    l->total_message_rate = l->total_connection_rate = 0;
    l->total_connections = 0;
}

/* What providers.conf says of this address (bytes; NULL: none is known). */
static void limits_of(const struct qmgr *q, const struct group *g, int family, const void *address,
                      struct rules_limits *out)
{
    struct rules_place place = {g->provider, g->provider_index, g->site, g->domain};
    char text[INET6_ADDRSTRLEN] = "";
    if (address)
        inet_ntop(family, address, text, sizeof text);
    rules_limits(q->shaping.rules, &place, slice_str(text), out);
}

/* *out was zeroed with its padding, so that the same limits are the same bytes. */
static void find_limits(const struct qmgr *q, const struct group *g, const struct source *s,
                        bool cold, struct shaper_limits *out)
{
    const struct config *c = q->s->config;
    out->concurrency = (uint32_t)c->default_destination_concurrency_limit;
    out->initial = (uint32_t)c->initial_destination_concurrency;
    out->cohorts = (uint32_t)c->default_destination_concurrency_failed_cohort_limit;
    out->rate_delay = c->destination_rate_delay * CLOCK_SECOND;
    out->suspend = c->destination_suspend_time * CLOCK_SECOND;
    out->suspend_max = c->maximal_backoff_time * CLOCK_SECOND;
    /* one knock is cheap, and new mail waits for it: as long as Postfix remembers */
    out->unreachable_max = c->minimal_backoff_time * CLOCK_SECOND;
    shaper_times_init(&out->times, (unsigned)c->shaping_time_divisor);
    if (!q->shaping.rules || g->key[0] == '0' + TRANSPORT_LMTP)
        return;
    struct rules_limits limits, other;
    limits_of(q, g, s && s->has_v4 ? AF_INET : AF_INET6,
              !s          ? NULL
              : s->has_v4 ? (const void *)s->v4
                          : s->v6,
              &limits);
    if (s && s->has_v4 && s->has_v6) {
        limits_of(q, g, AF_INET6, s->v6, &other);
        rules_limits_stricter(&limits, &other);
    }
    if (g->own && !g->provider && !g->site && !g->domain)
        own_next_hop(&limits);
    apply(&limits, (double)c->shaping_time_divisor, cold, out);
}

const struct shaper_limits *group_limits(struct qmgr *q, const struct group *g,
                                         const struct source *from, bool cold)
{
    struct shared_limits wanted;
    memset(&wanted, 0, sizeof wanted);
    find_limits(q, g, from, cold, &wanted.v);
    struct shared_limits *l = map_get(&q->shaping.limits, limits_key(&wanted));
    if (!l) {
        l = xmalloc(sizeof *l);
        memcpy(l, &wanted, sizeof *l);
        map_put(&q->shaping.limits, l);
    }
    l->refs++;
    return &l->v;
}

void limits_unref(struct qmgr *q, const struct shaper_limits *l)
{
    struct shared_limits *shared = map_get(&q->shaping.limits, slice_make(l, sizeof *l));
    if (--shared->refs > 0)
        return;
    map_remove(&q->shaping.limits, limits_key(shared));
    free(shared);
}

/* A lane whose rate was what the bound before allowed begins as one that is new where the bound
 * is higher now; and does not wait for the time that the old one gave it, which may be an hour. */
static void bound_lifted(struct shaper *s, double before, int64_t now)
{
    static const double FREE = 1e6;
    const struct shaper_limits *l = s->limits;
    double bound = l->rate > 0 ? l->rate : FREE;
    double start = l->start_rate > 0 && l->start_rate < bound ? l->start_rate : bound;
    if (before <= 0 || s->rate < before || bound <= before)
        return;
    if (s->failed_rate <= 0 && start > s->rate)
        s->rate = start;
    if (s->next_start > now)
        s->next_start = now;
}

void lane_limits(struct qmgr *q, struct lane *l)
{
    const struct shaper_limits *before = l->shaper.limits;
    l->cold = record_is_cold(q, l->record);
    l->shaper.limits = group_limits(q, l->group, l->from, l->cold);
    lane_count_cap(q, l);
    if (!before)
        return;
    bound_lifted(&l->shaper, before->rate, q->now);
    limits_unref(q, before);
}

void groups_reload(struct qmgr *q)
{
    wholes_reload(q);
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        lane_limits(q, l);
        shaper_end_trial(&l->shaper);
    }
    seats_reload(q);
    sources_recheck(q);
}

static void on_costly(const struct rule *rule, void *arg)
{
    alerts_costly(arg, rule);
}

/* Counts begin anew, for rules have other numbers now. */
static void count_anew(struct qmgr *q)
{
    struct shaping *s = &q->shaping;
    tallies_clear(s->tallies);
    s->counted_scopes = tallies_scopes(s->rules);
}

void groups_set_rules(struct qmgr *q, struct rules *rules)
{
    struct rules *before = q->shaping.rules;
    size_t cursor = 0;
    struct group *g;
    q->shaping.rules = rules;
    rules_on_costly(rules, on_costly, q);
    count_anew(q);
    while ((g = map_next(&q->shaping.groups, &cursor)))
        g->provider_index = g->provider ? rules_provider_index(rules, g->provider) : 0;
    list_each(&q->dispatch.lanes, n)
    {
        struct shaper *s = &container_of(n, struct lane, all)->shaper;
        for (unsigned i = 0; before && i < SHAPER_EVENTS; i++)
            s->events[i].rule = 0; /* numbers of another set */
    }
    rules_free(before);
    groups_reload(q);
    sites_regroup(q);
    sites_renew(q);
    dispatch_reload(q);
}

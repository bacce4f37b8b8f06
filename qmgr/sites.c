/* Where mail goes: routes by domain, kept for as long as resolve allows; sites,
 * which domains with the same MX set share. */
#include "qmgr/sites.h"

#include <stdio.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "qmgr/moves.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"

enum { ENTRY_MAX = 1024 /* of a name in providers.conf */ };

static struct slice map_route_key(const void *value)
{
    return route_key(value);
}

static struct slice map_site_key(const void *value)
{
    const struct site *s = value;
    return slice_make(s->key, s->key_len);
}

void sites_init(struct qmgr *q)
{
    map_init(&q->sites.routes, map_route_key);
    sites_resolve_init(q);
    map_init(&q->sites.sites, map_site_key);
    list_init(&q->sites.lru);
    list_init(&q->sites.all);
    q->sites.deferred =
        answer_new(0, SLICE("4.3.2"), SLICE("deferred transport"), SLICE(""), SLICE(""));
    q->sites.deferred->local = true;
    sites_reload(q);
}

bool sites_reload(struct qmgr *q)
{
    struct slice list = slice_str(q->s->config->defer_transports), name;
    uint8_t bits = 0, before = q->sites.deferred_transports;
    while (config_list_next(&list, &name)) {
        if (slice_eq(name, SLICE("smtp")))
            bits |= 1u << TRANSPORT_SMTP;
        else if (slice_eq(name, SLICE("lmtp")))
            bits |= 1u << TRANSPORT_LMTP;
    }
    q->sites.deferred_transports = bits;
    return bits != before;
}

/* ---- sites -------------------------------------------------------------------------- */

void site_unref(struct qmgr *q, struct site *s)
{
    if (!s || --s->refs > 0)
        return;
    map_remove(&q->sites.sites, map_site_key(s));
    list_remove(&s->all);
    group_unref(q, s->group);
    buf_free(&s->targets);
    free(s->tls);
    free(s->domain);
    free(s->key);
    free(s);
}

enum { KEY_MAX = SITE_NAME_MAX + ENTRY_MAX + 4 };

/* As much of it as there is room for. A name is a peer's word: it may have NUL bytes. */
static void put(char key[static KEY_MAX], size_t *len, struct slice part)
{
    size_t n = part.len < KEY_MAX - *len ? part.len : KEY_MAX - *len;
    if (n)
        memcpy(key + *len, part.ptr, n);
    *len += n;
}

/* The name, and what no name has in it: domains with the same servers have the same site, but
 * those to which providers.conf gives another place by their own name, and next hops that a table
 * names, have one of their own. */
static struct slice make_key(uint8_t transport, struct slice name, bool own, struct slice entry,
                             char key[static KEY_MAX])
{
    char kind = (char)('0' + transport);
    size_t len = 0;
    put(key, &len, slice_make(&kind, 1));
    put(key, &len, name);
    put(key, &len, own || entry.len ? SLICE("\n") : SLICE(""));
    put(key, &len, own ? SLICE(">") : SLICE(""));
    put(key, &len, entry);
    return slice_make(key, len);
}

struct site *site_get(struct qmgr *q, const struct site_id *id)
{
    char text[KEY_MAX], entry[ENTRY_MAX];
    struct slice name = slice_first(id->name, SITE_NAME_MAX), by = SLICE("");
    bool smtp = id->transport == TRANSPORT_SMTP;
    if (smtp)
        by = group_domain_entry(q, id->domain, entry, sizeof entry);
    struct slice key = make_key(id->transport, name, smtp && id->own, by, text);
    struct site *s = map_get(&q->sites.sites, key);
    if (s)
        return s;
    s = xcalloc(1, sizeof *s);
    s->key_len = key.len;
    s->key = slice_dup(key);
    s->name_len = name.len;
    s->domain = slice_dup(id->domain);
    s->own = id->own;
    s->transport = id->transport;
    buf_init(&s->targets, TARGET_BYTES_MAX);
    list_push(&q->sites.all, &s->all);
    map_put(&q->sites.sites, s);
    return s;
}

bool site_leads_to(const struct qmgr *q, struct slice name, const struct group *g)
{
    char text[KEY_MAX], provider[ENTRY_MAX];
    (void)snprintf(provider, sizeof provider, "@%s", g->provider ? g->provider : "");
    const struct slice entries[] = {slice_str(g->domain ? g->domain : ""), slice_str(provider)};
    size_t count = g->provider && !g->domain ? 2 : 1;
    const struct site *s =
        map_get(&q->sites.sites, make_key(TRANSPORT_LMTP, name, false, SLICE(""), text));
    if (s && s->group == g)
        return true;
    for (size_t i = 0; i < 2 * count; i++) {
        s = map_get(&q->sites.sites, make_key(TRANSPORT_SMTP, name, i % 2, entries[i / 2], text));
        if (s && s->group == g)
            return true;
    }
    return false;
}

/* `at_once`: what is in line at the group that it leaves is gone through without a pause. */
static void regroup(struct qmgr *q, struct site *s, bool at_once)
{
    struct group *before = s->group;
    s->sessions = group_targets_sum(s);
    s->group = group_get(q, s, slice_str(s->domain), s->own);
    if (before && before != s->group)
        moves_look(q, before, at_once);
    group_unref(q, before);
}

void site_regroup(struct qmgr *q, struct site *s)
{
    regroup(q, s, false);
}

/* The route's domain has another place by its name than it had, or none any more. */
static void move_route(struct qmgr *q, struct route *r)
{
    struct site *before = r->site;
    struct site *s = site_get(q, &(struct site_id){.transport = before->transport,
                                                   .own = before->own,
                                                   .name = site_name(before),
                                                   .domain = domain_part(route_key(r))});
    if (s == before)
        return;
    s->refs++;
    if (s->targets.len == 0) {
        (void)buf_adds(&s->targets, buf_slice(&before->targets));
        s->families = before->families;
    }
    r->site = s;
    moves_look(q, before->group, true);
    site_unref(q, before);
}

void sites_regroup(struct qmgr *q)
{
    list_each(&q->sites.lru, n)
    {
        struct route *r = container_of(n, struct route, lru);
        if (r->site)
            move_route(q, r);
    }
    list_each(&q->sites.all, n) regroup(q, container_of(n, struct site, all), true);
}

/* ---- routes ---------------------------------------------------------------------------- */

void route_forget_answer(struct qmgr *q, struct route *r)
{
    site_unref(q, r->site);
    r->site = NULL;
    answer_unref(r->answer);
    r->answer = NULL;
    tls_rules_unref(r->tls);
    r->tls = NULL;
    xfree(&r->nexthop);
}

static bool in_use(const struct route *r)
{
    return r->open || r->answering || !list_empty(&r->waiting) || !list_empty(&r->watchers) ||
           !list_empty(&r->queues) || r->state == ROUTE_ASKED || r->state == ROUTE_UNSENT;
}

static void route_free(struct qmgr *q, struct route *r)
{
    route_forget_answer(q, r);
    map_remove(&q->sites.routes, route_key(r));
    list_remove(&r->lru);
    free(r);
}

/* Makes room: the least recently used that nothing waits for. While resolve is
 * away all may be in use; then there are more for a while. */
static void evict(struct qmgr *q)
{
    enum { STEPS = 64 };
    for (int i = 0; i < STEPS && q->sites.routes.count >= ROUTES_MAX; i++) {
        struct route *r = container_of(q->sites.lru.next, struct route, lru);
        if (!in_use(r)) {
            route_free(q, r);
            continue;
        }
        list_remove(&r->lru);
        list_push(&q->sites.lru, &r->lru);
    }
}

struct route *route_get(struct qmgr *q, struct slice key, struct slice sample)
{
    struct route *r = map_get(&q->sites.routes, key);
    if (!r) {
        if (q->sites.routes.count >= ROUTES_MAX)
            evict(q);
        r = xcalloc(1, sizeof *r + key.len + sample.len);
        r->key_len = (uint16_t)key.len;
        r->sample_len = (uint16_t)sample.len;
        memcpy(r->text, key.ptr, key.len);
        memcpy(r->text + key.len, sample.ptr, sample.len);
        list_init(&r->waiting);
        list_init(&r->watchers);
        list_init(&r->queues);
        list_init(&r->unsent);
        list_init(&r->lru);
        map_put(&q->sites.routes, r);
    }
    list_remove(&r->lru);
    list_push(&q->sites.lru, &r->lru);
    if (r->state == ROUTE_READY && r->expires <= q->now && !r->open) {
        r->state = ROUTE_NEW;
        r->by_address = false;
    }
    return r;
}

/* Local part as it is, domain in lower case. Returns where the domain begins. */
static size_t normalize(struct slice address, char out[static DOMAIN_MAX])
{
    size_t at = slice_rchr(address, '@');
    for (size_t i = 0; i < address.len; i++) {
        char c = address.ptr[i];
        out[i] = i > at && c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    return at < address.len ? at + 1 : 0;
}

struct route *sites_route(struct qmgr *q, struct slice address)
{
    char text[DOMAIN_MAX];
    address = slice_first(address, DOMAIN_MAX);
    size_t domain = normalize(address, text);
    struct slice all = slice_make(text, address.len);
    struct route *r = route_get(q, slice_from(all, domain), all);
    return r->by_address && r->state == ROUTE_READY ? route_get(q, all, all) : r;
}

struct job *route_open_job(const struct route *r)
{
    return r->open;
}

void route_set_open_job(struct route *r, struct job *j)
{
    r->open = j;
}

/* The routes of the address's domain and of the address itself, or NULL. */
static void find_routes(const struct qmgr *q, struct slice address, struct route *found[2])
{
    char text[DOMAIN_MAX];
    address = slice_first(address, DOMAIN_MAX);
    size_t domain = normalize(address, text);
    found[0] = map_get(&q->sites.routes, slice_from(slice_make(text, address.len), domain));
    found[1] = map_get(&q->sites.routes, slice_make(text, address.len));
}

struct route *sites_route_known(const struct qmgr *q, struct slice address)
{
    struct route *found[2];
    find_routes(q, address, found);
    /* a domain whose addresses had routes of their own may have one for all of them since */
    bool whole = found[0] && found[0]->state == ROUTE_READY && !found[0]->by_address;
    return found[1] && !whole ? found[1] : found[0];
}

void sites_forget(struct qmgr *q, struct slice address)
{
    struct route *found[2];
    find_routes(q, address, found);
    for (int i = 0; i < 2; i++)
        if (found[i])
            found[i]->expires = 0;
}

void sites_unsuspend(struct qmgr *q, struct slice address)
{
    struct route *found[2];
    find_routes(q, address, found);
    for (int i = 0; i < 2; i++)
        if (found[i] && found[i]->site)
            list_each(&found[i]->site->group->lanes, n)
            {
                struct lane *l = container_of(n, struct lane, of_group);
                shaper_unsuspend(&l->shaper);
                whole_resume(q, l);
            }
}

void sites_renew(struct qmgr *q)
{
    enum { RELOAD_SECONDS = 2 };
    int64_t soon = q->now + RELOAD_SECONDS * CLOCK_SECOND;
    list_each(&q->sites.lru, n)
    {
        struct route *r = container_of(n, struct route, lru);
        if (r->expires > soon)
            r->expires = soon;
    }
}

/* ---- jobs that have a route ---------------------------------------------------------------- */

static void end_job(struct qmgr *q, struct route *r, struct job *j)
{
    struct attempt t = {.sent = q->now};
    enum resolve_status status = r->status;
    if (status == RESOLVE_OK && r->transport == TRANSPORT_RETRY)
        status = RESOLVE_TEMPORARY;
    if (status == RESOLVE_OK && r->transport == TRANSPORT_ERROR)
        status = RESOLVE_PERMANENT;
    if (status == RESOLVE_OK)
        outcome_sent(q, j->m, j->rcpts, j->count, r->answer, &t);
    else if (status == RESOLVE_PERMANENT)
        outcome_failed(q, j->m, j->rcpts, j->count, r->answer, &t);
    else
        outcome_deferred(q, j->m, j->rcpts, j->count, r->answer, &t, 0, true);
    job_free(q, j);
}

/* Waits until it is flushed or the list changes; looked at again now and then. */
static void hold_up(struct qmgr *q, struct job *j)
{
    struct attempt t = {.sent = q->now};
    int64_t again = q->now + q->s->config->maximal_backoff_time * CLOCK_SECOND;
    outcome_deferred(q, j->m, j->rcpts, j->count, q->sites.deferred, &t, again, false);
    job_free(q, j);
}

void route_apply(struct qmgr *q, struct route *r, struct job *j)
{
    j->route = NULL;
    if (r->site && (q->sites.deferred_transports & 1u << r->transport) && !j->m->env->forced)
        hold_up(q, j);
    else if (r->site) {
        tls_rules_unref(j->tls);
        j->tls = tls_rules_ref(r->tls);
        sources_submit(q, r->site, j);
    } else
        end_job(q, r, j);
}

void sites_submit(struct qmgr *q, struct job *j)
{
    struct route *r = j->route;
    if (r->state == ROUTE_READY && !r->by_address) {
        route_apply(q, r, j);
        return;
    }
    list_push(&r->waiting, &j->link);
    route_ask(q, r);
}

void route_watch(struct qmgr *q, struct route *r, void (*done)(struct route *r, void *arg),
                 void *arg)
{
    if (r->state == ROUTE_READY) {
        done(r, arg);
        return;
    }
    struct route_watcher *w = xmalloc(sizeof *w);
    *w = (struct route_watcher){.done = done, .arg = arg};
    list_push(&r->watchers, &w->link);
    route_ask(q, r);
}

/* ---- now and then ---------------------------------------------------------------------- */

void sites_sweep(struct qmgr *q)
{
    enum { SWEEP_ROUTES = 2000 };
    int seen = 0;
    list_each_safe(&q->sites.lru, n)
    {
        struct route *r = container_of(n, struct route, lru);
        if (++seen > SWEEP_ROUTES)
            return;
        if (r->expires <= q->now && !in_use(r))
            route_free(q, r);
    }
}

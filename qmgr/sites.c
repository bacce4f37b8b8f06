/* Where mail goes: routes by domain, kept for as long as resolve allows; sites,
 * which domains with the same MX set share; the channel to resolve. */
#include "qmgr/sites.h"

#include <stdio.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "qmgr/sources.h"

enum {
    ROUTES_MAX = 50000,
    OUTSTANDING_MAX = 512, /* questions without an answer */
    TTL_MAX = 24 * 3600,
    TARGETS_MAX = 100
};

static struct slice map_route_key(const void *value)
{
    return route_key(value);
}

static struct slice map_tag_key(const void *value)
{
    const struct route *r = value;
    return slice_make(&r->tag, sizeof r->tag);
}

static struct slice map_site_key(const void *value)
{
    const struct site *s = value;
    return slice_make(s->key, s->key_len);
}

void sites_init(struct qmgr *q)
{
    map_init(&q->sites.routes, map_route_key);
    map_init(&q->sites.asked, map_tag_key);
    map_init(&q->sites.sites, map_site_key);
    list_init(&q->sites.lru);
    list_init(&q->sites.all);
    list_init(&q->sites.unsent);
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
    free(s->key);
    free(s);
}

static struct site *site_get(struct qmgr *q, uint8_t transport, struct slice name)
{
    char key[SITE_NAME_MAX + 1];
    name = slice_first(name, SITE_NAME_MAX);
    key[0] = (char)('0' + transport);
    if (name.len)
        memcpy(key + 1, name.ptr, name.len);
    struct site *s = map_get(&q->sites.sites, slice_make(key, name.len + 1));
    if (s)
        return s;
    s = xcalloc(1, sizeof *s);
    s->key_len = name.len + 1;
    s->key = slice_dup(slice_make(key, s->key_len));
    s->transport = transport;
    buf_init(&s->targets, TARGET_BYTES_MAX);
    list_push(&q->sites.all, &s->all);
    map_put(&q->sites.sites, s);
    return s;
}

/* Keeps as many targets as fit, in resolve's order. -1: malformed or none. */
static int set_targets(struct site *s, struct slice list)
{
    struct ipc_cursor cursor = ipc_list_cursor(list);
    struct ipc_target t;
    struct buf fresh = BUF_INIT(TARGET_BYTES_MAX);
    int count = 0;
    uint8_t families = 0;
    while (ipc_target_next(&cursor, &t)) {
        size_t need = 12 + t.host.len + t.address.len;
        if (count < TARGETS_MAX && fresh.len + need <= TARGET_BYTES_MAX) {
            ipc_target_add(&fresh, &t);
            families |= t.address.len == 4 ? 1 : t.address.len == 16 ? 2 : 0;
            count++;
        }
    }
    if (cursor.failed || count == 0) {
        buf_free(&fresh);
        return -1;
    }
    buf_free(&s->targets);
    s->targets = fresh;
    s->families = families;
    return 0;
}

/* ---- routes ---------------------------------------------------------------------------- */

static void forget_answer(struct qmgr *q, struct route *r)
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
    return r->open || !list_empty(&r->waiting) || !list_empty(&r->watchers) ||
           r->state == ROUTE_ASKED || r->state == ROUTE_UNSENT;
}

static void route_free(struct qmgr *q, struct route *r)
{
    forget_answer(q, r);
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

static struct route *route_get(struct qmgr *q, struct slice key, struct slice sample)
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
    return found[1] ? found[1] : found[0];
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
                shaper_unsuspend(&container_of(n, struct lane, of_group)->shaper);
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

static void apply(struct qmgr *q, struct route *r, struct job *j)
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

static void ask(struct qmgr *q, struct route *r)
{
    if (r->state != ROUTE_NEW)
        return;
    r->state = ROUTE_UNSENT;
    list_push(&q->sites.unsent, &r->unsent);
}

void sites_submit(struct qmgr *q, struct job *j)
{
    struct route *r = j->route;
    if (r->state == ROUTE_READY && !r->by_address) {
        apply(q, r, j);
        return;
    }
    list_push(&r->waiting, &j->link);
    ask(q, r);
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
    ask(q, r);
}

/* ---- resolve ------------------------------------------------------------------------------------
 */

void sites_turn(struct qmgr *q)
{
    struct sites *s = &q->sites;
    while (s->channel && s->outstanding < OUTSTANDING_MAX && !list_empty(&s->unsent)) {
        struct route *r = container_of(list_pop(&s->unsent), struct route, unsent);
        r->state = ROUTE_ASKED;
        r->tag = ++s->next_tag;
        map_put(&s->asked, r);
        s->outstanding++;
        ipc_resolve_request_encode(
            channel_out(s->channel),
            &(struct ipc_resolve_request){
                .tag = r->tag, .recipient = slice_make(r->text + r->key_len, r->sample_len)});
    }
}

/* The targets may have changed, and with them whose limits hold. */
static void regroup(struct qmgr *q, struct site *s, struct slice key, struct slice nexthop)
{
    struct group *before = s->group;
    size_t at = slice_rchr(key, '@');
    struct slice domain = at < key.len ? slice_from(key, at + 1) : key;
    s->sessions = group_targets_sum(s);
    s->group = group_get(q, s, domain, !slice_caseeq(domain, nexthop));
    group_unref(q, before);
}

/* Takes the answer over into r. -1: the reply makes no sense. */
static int learn(struct qmgr *q, struct route *r, const struct ipc_resolve_reply *in, struct err *e)
{
    struct site *site = NULL;
    bool delivers = in->status == RESOLVE_OK &&
                    (in->transport == TRANSPORT_SMTP || in->transport == TRANSPORT_LMTP);
    if (in->status > RESOLVE_PERMANENT || in->transport > TRANSPORT_DISCARD)
        return err_set(e, "RESOLVE_REPLY with an undeclared status or transport");
    if (delivers) {
        if (in->site.len == 0 || in->site.len > SITE_NAME_MAX)
            return err_set(e, "RESOLVE_REPLY without a usable site name");
        site = site_get(q, in->transport, in->site);
        site->refs++;
        if (set_targets(site, in->targets) < 0) {
            site_unref(q, site);
            return err_set(e, "RESOLVE_REPLY without usable targets");
        }
        regroup(q, site, route_key(r), in->nexthop);
    }
    forget_answer(q, r);
    if (sites_learn_tls(r, in, e) < 0) {
        site_unref(q, site);
        return -1;
    }
    r->site = site;
    r->status = in->status;
    r->transport = in->transport;
    r->nexthop = slice_dup(slice_first(in->nexthop, SITE_NAME_MAX));
    uint32_t ttl = in->ttl < 1 ? 1 : in->ttl < TTL_MAX ? in->ttl : TTL_MAX;
    r->expires = q->now + ttl * CLOCK_SECOND;
    if (!delivers) {
        r->answer = answer_new(in->code, in->enhanced, in->text, SLICE(""), SLICE(""));
        r->answer->local = true;
    }
    r->state = ROUTE_READY;
    return 0;
}

/* The addresses of this domain differ: what was said holds for the address that
 * was asked about; everything that waits for the domain is routed anew. */
static struct route *split_by_address(struct qmgr *q, struct route *domain, struct list *again)
{
    struct slice sample = slice_make(domain->text + domain->key_len, domain->sample_len);
    domain->by_address = true;
    domain->state = ROUTE_READY;
    domain->expires = q->now + TTL_MAX * CLOCK_SECOND;
    struct list *n;
    while ((n = list_pop(&domain->waiting)))
        list_push(again, n);
    return route_get(q, sample, sample);
}

static void route_anew(struct qmgr *q, struct list *again)
{
    struct list *n;
    while ((n = list_pop(again))) {
        struct job *j = container_of(n, struct job, link);
        struct message *m = j->m;
        for (uint32_t k = 0; k < j->count; k++)
            recipient_waits(m, j->rcpts[k], 0);
        m->env->queued -= j->count;
        job_free(q, j);
        message_activate(q, m);
    }
}

static void release_waiting(struct qmgr *q, struct route *r)
{
    struct list *n;
    while ((n = list_pop(&r->watchers))) {
        struct route_watcher *w = container_of(n, struct route_watcher, link);
        w->done(r, w->arg);
        free(w);
    }
    while ((n = list_pop(&r->waiting))) {
        struct job *j = container_of(n, struct job, link);
        struct message *m = j->m;
        apply(q, r, j);
        message_settle(q, m);
    }
}

static int on_reply(struct qmgr *q, struct slice body, struct err *e)
{
    struct ipc_resolve_reply in;
    struct list again;
    list_init(&again);
    if (ipc_resolve_reply_decode(body, &in) < 0)
        return err_set(e, "malformed RESOLVE_REPLY");
    struct route *r = map_get(&q->sites.asked, slice_make(&in.tag, sizeof in.tag));
    if (!r)
        return err_set(e, "RESOLVE_REPLY to a question that was not asked");
    map_remove(&q->sites.asked, map_tag_key(r));
    q->sites.outstanding--;
    r->state = ROUTE_NEW;
    struct route *target = r;
    bool whole_domain = r->key_len != r->sample_len;
    if (in.scope == 1 && whole_domain)
        target = split_by_address(q, r, &again);
    if (learn(q, target, &in, e) < 0) {
        struct list *n;
        while ((n = list_pop(&again)))
            list_push(&r->waiting, n);
        r->by_address = false;
        r->state = ROUTE_NEW;
        ask(q, r); /* the next resolve process is asked again */
        return -1;
    }
    if (target != r) {
        /* the domain's entry lives as long as what it stands for */
        r->expires = target->expires;
        release_waiting(q, r);
    }
    release_waiting(q, target);
    route_anew(q, &again);
    return 0;
}

static int take_frame(struct qmgr *q, const struct ipc_frame *f, struct err *e)
{
    if (f->number == IPC_NUMBER_ipc_resolve_reply)
        return on_reply(q, f->body, e);
    if (f->number == IPC_NUMBER_ipc_tls_report)
        return sites_tls_report(q, f->body, e);
    if (f->number == IPC_NUMBER_ipc_listing_reply)
        return sources_listing(q, f->body, e);
    return err_set(e, "%s is not for qmgr", ipc_name(f->number));
}

static int on_frame(struct channel *channel, const struct ipc_frame *f, int fd, void *arg,
                    struct err *e)
{
    struct qmgr *q = arg;
    (void)channel;
    if (fd >= 0)
        close(fd);
    queue_tick(q);
    int rc = take_frame(q, f, e);
    q->sites.broke_rules = rc < 0;
    return rc;
}

/* F33: what was asked waits for the next resolve process. */
static void on_closed(struct channel *channel, const char *why, void *arg)
{
    struct qmgr *q = arg;
    if (q->sites.channel != channel)
        return;
    peer_gone(q, channel, why, q->sites.broke_rules);
    q->sites.broke_rules = false;
    q->sites.channel = NULL;
    sources_lists_reset(q);
    size_t cursor = 0;
    struct route *r;
    while ((r = map_next(&q->sites.asked, &cursor))) {
        r->state = ROUTE_UNSENT;
        list_push(&q->sites.unsent, &r->unsent);
    }
    map_clear(&q->sites.asked, NULL);
    q->sites.outstanding = 0;
}

void sites_peer(struct qmgr *q, int fd)
{
    static const struct channel_ops ops = {on_frame, on_closed};
    struct channel *old = q->sites.channel;
    if (old) {
        on_closed(old, "replaced", q);
        channel_free(old);
    }
    q->sites.channel = channel_new(q->s->base, fd, "resolve", &ops, q);
}

/* ---- now and then
 * -------------------------------------------------------------------------------- */

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

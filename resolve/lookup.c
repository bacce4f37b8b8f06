#include "resolve/lookup.h"

#include <arpa/inet.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "ipc/ipc.h"
#include "resolve/targets.h"

struct lookup {
    struct list link;
    struct lookups *all;
    struct dns *dns; /* for the whole lookup: another one may know other zones */
    struct entry *entry;
    struct destination destination;
    int64_t deadline;
    struct list questions; /* open ones */
    struct mx_host *hosts;
    size_t host_count;
    struct host_address *addresses;
    size_t address_count, address_capacity;
    uint32_t ttl;
    bool implicit; /* no MX record: the domain's own addresses (RFC 5321 5.1) */
    bool failed;   /* a question had no answer */
    bool timed_out;
};

/* What was found to be wrong with addresses. */
struct objections {
    struct domain host;
    struct host_address address; /* the first that is not allowed */
    bool forbidden, own;
};

/* ---- the end of a lookup --------------------------------------------------- */

static void lookup_free(struct lookup *l)
{
    list_remove(&l->link);
    dns_abandon(&l->questions);
    entry_release(l->entry);
    free(l->hosts);
    free(l->addresses);
    free(l);
}

/* Between resolver_min_ttl and resolver_max_ttl. */
static int64_t clamp_ttl(const struct lookup *l, uint32_t ttl)
{
    const struct config *c = l->all->config;
    int64_t t = (int64_t)ttl;
    if (t > c->resolver_max_ttl)
        t = c->resolver_max_ttl;
    if (t < c->resolver_min_ttl)
        t = c->resolver_min_ttl;
    return t * CLOCK_SECOND;
}

static void complete(struct lookup *l, int64_t ttl)
{
    struct entry *e = l->entry;
    entry_hold(e);
    lookup_free(l);
    entry_complete(e, clock_mono(), ttl);
    entry_release(e);
}

/* A refusal. What is wrong with a next hop that the operator configured is the
 * operator's to repair: it delays mail, it does not return it. */
static void refuse(struct lookup *l, const struct verdict *v, int64_t ttl)
{
    struct result *r = &l->entry->result;
    r->verdict = xmalloc(sizeof *r->verdict);
    *r->verdict = *v;
    if (l->destination.configured && v->code >= 500)
        verdict_set(r->verdict, 451, "4.4.4", "configured next hop: %.400s", v->text);
    r->status = r->verdict->code >= 500 ? RESOLVE_PERMANENT : RESOLVE_TEMPORARY;
    if (r->status == RESOLVE_TEMPORARY && ttl > FAILURE_TTL * CLOCK_SECOND)
        ttl = FAILURE_TTL * CLOCK_SECOND;
    struct buf site = BUF_INIT(2 * SITE_NAME_MAX);
    destination_print(&l->destination, (uint16_t)l->all->config->smtp_tcp_port, &site);
    r->site = slice_dup(buf_slice(&site));
    buf_free(&site);
    complete(l, ttl);
}

static void refuse_unanswered(struct lookup *l, const char *what)
{
    struct verdict v;
    const char *name = l->destination.name.text;
    if (l->timed_out)
        verdict_set(&v, 451, "4.4.3", "DNS lookup of %s for %s timed out after %lld s", what, name,
                    (long long)l->all->config->resolver_timeout);
    else
        verdict_set(&v, 451, "4.4.3", "DNS lookup of %s for %s failed (no usable answer)", what,
                    name);
    refuse(l, &v, FAILURE_TTL * CLOCK_SECOND);
}

static void refuse_loop(struct lookup *l)
{
    struct verdict v;
    verdict_set(&v, 550, "5.4.6", "mail for %s loops back to this relay: it is the best MX host",
                l->destination.name.text);
    refuse(l, &v, clamp_ttl(l, l->ttl));
}

/* ---- rules about addresses (B63) ------------------------------------------- */

static void strike_from(struct lookup *l, uint16_t preference)
{
    for (size_t i = 0; i < l->address_count; i++)
        if (l->hosts[l->addresses[i].host].preference >= preference)
            l->addresses[i].len = 0;
}

/* Takes forbidden addresses off the list. If one is our own, hosts that are no
 * better than that host go too: they would send the mail back (RFC 5321 5.1). */
static void apply_policy(struct lookup *l, struct objections *found)
{
    uint32_t own_preference = UINT32_MAX;
    for (size_t i = 0; i < l->address_count && !l->destination.configured; i++) {
        struct host_address *a = &l->addresses[i];
        enum address_verdict verdict = policy_check(l->all->policy, slice_make(a->raw, a->len));
        if (verdict == ADDRESS_FINE)
            continue;
        if (!found->forbidden && !found->own) {
            found->host = l->hosts[a->host].name;
            found->address = *a;
        }
        if (verdict == ADDRESS_OWN) {
            found->own = true;
            if (l->hosts[a->host].preference < own_preference)
                own_preference = l->hosts[a->host].preference;
        } else
            found->forbidden = true;
        a->len = 0;
    }
    if (own_preference <= UINT16_MAX)
        strike_from(l, (uint16_t)own_preference);
}

static void refuse_address(struct lookup *l, const struct objections *found)
{
    struct verdict v;
    char text[INET6_ADDRSTRLEN];
    inet_ntop(found->address.len == 4 ? AF_INET : AF_INET6, found->address.raw, text, sizeof text);
    const char *why = found->own ? "this relay itself" : "no public address";
    if (l->destination.kind == DESTINATION_ADDRESS)
        verdict_set(&v, 550, "5.4.6", "[%s] is %s", text, why);
    else
        verdict_set(&v, 550, "5.4.6", "mail for %s would go to %s[%s], which is %s",
                    l->destination.name.text, found->host.text, text, why);
    refuse(l, &v, clamp_ttl(l, l->ttl));
}

static void refuse_no_address(struct lookup *l)
{
    struct verdict v;
    const char *name = l->destination.name.text;
    if (l->implicit)
        verdict_set(&v, 550, "5.1.2", "domain %s has neither MX nor address records", name);
    else if (l->destination.kind == DESTINATION_HOST)
        verdict_set(&v, 550, "5.1.2", "host %s has no address", name);
    else
        verdict_set(&v, 550, "5.4.4", "none of the MX hosts of %s has an address", name);
    refuse(l, &v, clamp_ttl(l, l->ttl < DNS_NEGATIVE_TTL_MAX ? l->ttl : DNS_NEGATIVE_TTL_MAX));
}

/* ---- addresses ------------------------------------------------------------- */

static enum family_order family_order(const struct lookups *all)
{
    const char *preference = all->config->smtp_address_preference;
    if (strcmp(preference, "ipv4") == 0)
        return FAMILY_IPV4_FIRST;
    if (strcmp(preference, "ipv6") == 0)
        return FAMILY_IPV6_FIRST;
    /* A host without an IPv6 address fails there at once; do not begin with it. */
    return all->policy->has_ipv6 ? FAMILY_ANY : FAMILY_IPV4_FIRST;
}

static bool any_left(const struct lookup *l)
{
    for (size_t i = 0; i < l->address_count; i++)
        if (l->addresses[i].len)
            return true;
    return false;
}

/* All questions are answered, or the time is over. */
static void finish(struct lookup *l)
{
    const struct config *c = l->all->config;
    struct objections found = {0};
    struct result *r = &l->entry->result;
    apply_policy(l, &found);
    if (!any_left(l)) {
        if (l->failed)
            refuse_unanswered(l, "addresses");
        else if (found.forbidden || found.own)
            refuse_address(l, &found);
        else
            refuse_no_address(l);
        return;
    }
    struct target_settings settings = {.port = l->destination.port,
                                       .limit = (size_t)c->resolver_address_limit,
                                       .order = family_order(l->all)};
    struct buf site = BUF_INIT(2 * SITE_NAME_MAX);
    targets_add(l->hosts, l->addresses, l->address_count, &settings, &r->targets);
    site_of_hosts(l->hosts, l->host_count, &l->destination, (uint16_t)c->smtp_tcp_port, &site);
    r->site = slice_dup(buf_slice(&site));
    buf_free(&site);
    r->status = RESOLVE_OK;
    /* A host whose lookup failed may be the best one: ask again soon. */
    uint32_t ttl = l->failed && l->ttl > FAILURE_TTL ? FAILURE_TTL : l->ttl;
    complete(l, clamp_ttl(l, ttl));
}

static int by_bytes(const void *a, const void *b)
{
    const struct dns_record *x = *(const struct dns_record *const *)a,
                            *y = *(const struct dns_record *const *)b;
    return memcmp(x->address, y->address, sizeof x->address);
}

/* The first ADDRESSES_PER_HOST_MAX in the order of their bytes: whatever order
 * the server gave, the same ones (B65). */
static void keep_addresses(struct lookup *l, const struct dns_answer *a, uint16_t host)
{
    static const struct dns_record *sorted[DNS_RECORDS_MAX];
    size_t n = a->count < DNS_RECORDS_MAX ? a->count : DNS_RECORDS_MAX;
    for (size_t i = 0; i < n; i++)
        sorted[i] = &a->records[i];
    qsort(sorted, n, sizeof *sorted, by_bytes);
    for (size_t i = 0; i < n && i < ADDRESSES_PER_HOST_MAX; i++) {
        if (l->address_count == l->address_capacity) {
            l->address_capacity = l->address_capacity ? 2 * l->address_capacity : 4;
            l->addresses = xreallocarray(l->addresses, l->address_capacity, sizeof *l->addresses);
        }
        struct host_address *out = &l->addresses[l->address_count++];
        out->host = host;
        out->len = sorted[i]->address_len;
        memcpy(out->raw, sorted[i]->address, sizeof out->raw);
    }
}

static void note_ttl(struct lookup *l, const struct dns_answer *a)
{
    if (a->result != DNS_FAILED && a->ttl < l->ttl)
        l->ttl = a->ttl;
}

static void address_answered(const struct dns_answer *a, unsigned host, void *arg)
{
    struct lookup *l = arg;
    if (a->result == DNS_FAILED)
        l->failed = true;
    else if (a->result == DNS_FOUND)
        keep_addresses(l, a, (uint16_t)host);
    note_ttl(l, a);
    if (list_empty(&l->questions))
        finish(l);
}

static void ask_addresses(struct lookup *l)
{
    const char *protocols = l->all->config->inet_protocols;
    for (size_t i = 0; i < l->host_count; i++) {
        const char *name = l->hosts[i].name.text;
        if (strcmp(protocols, "ipv6") != 0)
            dns_ask(l->dns, name, DNS_TYPE_A, &l->questions, (unsigned)i, address_answered, l);
        if (strcmp(protocols, "ipv4") != 0)
            dns_ask(l->dns, name, DNS_TYPE_AAAA, &l->questions, (unsigned)i, address_answered, l);
    }
}

static void use_own_name(struct lookup *l)
{
    l->hosts = xcalloc(1, sizeof *l->hosts);
    l->hosts[0].name = l->destination.name;
    l->host_count = 1;
}

/* ---- MX -------------------------------------------------------------------- */

/* Copies what is usable; the number of null records in *null. */
static void keep_hosts(struct lookup *l, const struct dns_answer *a, size_t *null)
{
    l->hosts = xcalloc(a->count ? a->count : 1, sizeof *l->hosts);
    *null = 0;
    for (size_t i = 0; i < a->count; i++) {
        if (a->records[i].host.text[0] == '\0') {
            ++*null;
            continue;
        }
        struct mx_host *h = &l->hosts[l->host_count++];
        h->name = a->records[i].host;
        h->preference = a->records[i].preference;
    }
    l->host_count = mx_hosts_sort(l->hosts, l->host_count);
    /* of a thousand that a domain may have, few are kept, and for a while */
    l->hosts = xreallocarray(l->hosts, l->host_count ? l->host_count : 1, sizeof *l->hosts);
}

/* Hosts that are no better than ourselves by name. */
static void drop_loops(struct lookup *l)
{
    struct slice own = slice_str(l->all->config->myhostname);
    for (size_t i = 0; i < l->host_count; i++) {
        if (!slice_caseeq(domain_slice(&l->hosts[i].name), own))
            continue;
        uint16_t preference = l->hosts[i].preference;
        while (i > 0 && l->hosts[i - 1].preference == preference)
            i--;
        l->host_count = i;
        return;
    }
}

static void mx_found(struct lookup *l, const struct dns_answer *a)
{
    struct verdict v;
    size_t null;
    keep_hosts(l, a, &null);
    if (l->host_count == 0 && null > 0 && a->dropped == 0) {
        verdict_set(&v, 556, "5.1.10", "domain %s accepts no mail (null MX)",
                    l->destination.name.text);
        refuse(l, &v, clamp_ttl(l, l->ttl));
        return;
    }
    if (l->host_count == 0) {
        refuse_unanswered(l, "MX");
        return;
    }
    drop_loops(l);
    if (l->host_count == 0)
        refuse_loop(l);
    else
        ask_addresses(l);
}

static void mx_answered(const struct dns_answer *a, unsigned tag, void *arg)
{
    struct lookup *l = arg;
    struct verdict v;
    (void)tag;
    note_ttl(l, a);
    switch (a->result) {
    case DNS_FOUND:
        mx_found(l, a);
        break;
    case DNS_NODATA:
        l->implicit = true;
        use_own_name(l);
        ask_addresses(l);
        break;
    case DNS_NXDOMAIN:
        verdict_set(&v, 550, "5.1.2", "domain %s does not exist", l->destination.name.text);
        refuse(l, &v, clamp_ttl(l, l->ttl));
        break;
    case DNS_FAILED:
        refuse_unanswered(l, "MX");
        break;
    }
}

/* ---- start and time -------------------------------------------------------- */

/* An address or a UNIX socket needs no questions. */
static void take_literal(struct lookup *l)
{
    struct destination *d = &l->destination;
    uint16_t usual_port = (uint16_t)l->all->config->smtp_tcp_port;
    struct buf text = BUF_INIT(256);
    struct result *r = &l->entry->result;
    char printed[INET6_ADDRSTRLEN] = "";
    if (d->kind == DESTINATION_ADDRESS) {
        struct slice raw = slice_make(d->address, d->address_len);
        struct objections found = {.address = {.len = d->address_len}};
        memcpy(found.address.raw, d->address, sizeof d->address);
        enum address_verdict verdict =
            d->configured ? ADDRESS_FINE : policy_check(l->all->policy, raw);
        found.own = verdict == ADDRESS_OWN;
        if (verdict != ADDRESS_FINE) {
            refuse_address(l, &found);
            return;
        }
        inet_ntop(d->address_len == 4 ? AF_INET : AF_INET6, d->address, printed, sizeof printed);
    }
    /* a socket is on this host, as Postfix's log lines say it too */
    struct ipc_target t = {
        .host = slice_str(d->kind == DESTINATION_UNIX ? l->all->config->myhostname : printed),
        .address = d->kind == DESTINATION_UNIX ? domain_slice(&d->name)
                                               : slice_make(d->address, d->address_len),
        .port = d->port};
    ipc_target_add(&r->targets, &t);
    site_of_destination(d, usual_port, &text);
    r->site = slice_dup(buf_slice(&text));
    buf_free(&text);
    r->status = RESOLVE_OK;
    complete(l, DECIDED_TTL * CLOCK_SECOND);
}

static void start_tick(struct lookups *all)
{
    struct timeval tick = {0, DEADLINE_TICK_MS * 1000};
    if (!event_pending(all->tick, EV_TIMEOUT, NULL))
        event_add(all->tick, &tick);
}

void lookup_start(struct lookups *all, struct entry *e, const struct destination *d)
{
    struct lookup *l = xcalloc(1, sizeof *l);
    struct verdict v;
    l->all = all;
    l->dns = all->dns;
    l->entry = e;
    l->destination = *d;
    l->ttl = UINT32_MAX;
    l->deadline = clock_mono() + all->config->resolver_timeout * CLOCK_SECOND;
    entry_hold(e);
    list_init(&l->questions);
    list_push(&all->active, &l->link);
    if (d->kind == DESTINATION_ADDRESS || d->kind == DESTINATION_UNIX) {
        take_literal(l);
        return;
    }
    if (all->config->disable_dns_lookups && !d->configured) {
        verdict_set(&v, 451, "4.3.5",
                    "DNS lookups are disabled, and no next hop is configured for %s", d->name.text);
        refuse(l, &v, FAILURE_TTL * CLOCK_SECOND);
        return;
    }
    if (dns_is_busy(l->dns)) {
        verdict_set(&v, 451, "4.4.3", "too many DNS lookups at a time; %s is looked up later",
                    d->name.text);
        refuse(l, &v, FAILURE_TTL * CLOCK_SECOND);
        return;
    }
    start_tick(all);
    if (d->kind == DESTINATION_MX)
        dns_ask(l->dns, d->name.text, DNS_TYPE_MX, &l->questions, 0, mx_answered, l);
    else {
        use_own_name(l);
        ask_addresses(l);
    }
}

/* What is known by now decides. */
static void time_out(struct lookup *l)
{
    bool mx_known = l->host_count > 0;
    dns_abandon(&l->questions);
    l->failed = l->timed_out = true;
    if (mx_known)
        finish(l);
    else
        refuse_unanswered(l, "MX");
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct lookups *all = arg;
    int64_t now = clock_mono();
    (void)fd;
    (void)what;
    while (!list_empty(&all->active)) {
        struct lookup *l = container_of(all->active.next, struct lookup, link);
        if (now < l->deadline)
            break;
        time_out(l);
    }
    if (!list_empty(&all->active))
        start_tick(all);
}

int lookups_init(struct lookups *all, struct event_base *base, struct err *e)
{
    list_init(&all->active);
    all->tick = evtimer_new(base, on_tick, all);
    return all->tick ? 0 : err_set(e, "no timer");
}

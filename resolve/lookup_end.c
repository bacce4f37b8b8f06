/* How lookups end: refusals, rules about addresses, results. */
#include <arpa/inet.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "ipc/ipc.h"
#include "resolve/lookup_private.h"
#include "resolve/sts.h"
#include "resolve/tlsrpt.h"

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
    sts_forget(l->policy);
    dane_free(&l->dane);
    entry_release(l->entry);
    free(l->hosts);
    free(l->addresses);
    free(l);
}

int64_t lookup_ttl(const struct lookup *l, uint32_t ttl)
{
    const struct config *c = l->all->config;
    int64_t t = (int64_t)ttl;
    if (t > c->resolver_max_ttl)
        t = c->resolver_max_ttl;
    if (t < c->resolver_min_ttl)
        t = c->resolver_min_ttl;
    return t * CLOCK_SECOND;
}

void lookup_complete(struct lookup *l, int64_t ttl)
{
    struct entry *e = l->entry;
    entry_hold(e);
    lookup_free(l);
    entry_complete(e, clock_mono(), ttl);
    entry_release(e);
}

void lookup_refuse(struct lookup *l, const struct verdict *v, int64_t ttl)
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
    lookup_complete(l, ttl);
}

void lookup_refuse_unanswered(struct lookup *l, const char *what)
{
    struct verdict v;
    const char *name = l->destination.name.text;
    if (l->timed_out)
        verdict_set(&v, 451, "4.4.3", "DNS lookup of %s for %s timed out after %lld s", what, name,
                    (long long)l->all->config->resolver_timeout);
    else
        verdict_set(&v, 451, "4.4.3", "DNS lookup of %s for %s failed (no usable answer)", what,
                    name);
    lookup_refuse(l, &v, FAILURE_TTL * CLOCK_SECOND);
}

void lookup_refuse_loop(struct lookup *l)
{
    struct verdict v;
    verdict_set(&v, 550, "5.4.6", "mail for %s loops back to this relay: it is the best MX host",
                l->destination.name.text);
    lookup_refuse(l, &v, lookup_ttl(l, l->ttl));
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
    lookup_refuse(l, &v, lookup_ttl(l, l->ttl));
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
    lookup_refuse(l, &v,
                  lookup_ttl(l, l->ttl < DNS_NEGATIVE_TTL_MAX ? l->ttl : DNS_NEGATIVE_TTL_MAX));
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

void lookup_refuse_literal(struct lookup *l, enum address_verdict verdict)
{
    const struct destination *d = &l->destination;
    struct objections found = {.address = {.len = d->address_len}, .own = verdict == ADDRESS_OWN};
    memcpy(found.address.raw, d->address, sizeof d->address);
    refuse_address(l, &found);
}

/* What was found out about TLS. */
static void keep_facts(struct lookup *l)
{
    struct result *r = &l->entry->result;
    if (!l->destination.facts)
        return;
    r->tls = tls_facts_new();
    r->tls->mx_secure = l->mx_secure;
    r->tls->reports = l->reports;
    dane_facts(&l->dane, l->hosts, &r->tls->hosts);
    if (l->destination.facts & TLS_WANT_STS)
        sts_result(l->all->sts, domain_slice(&l->destination.name), r->tls);
    if (l->reports)
        tlsrpt_facts(l->all->tlsrpt, domain_slice(&l->destination.name), r->tls,
                     l->destination.port);
}

void lookup_finish(struct lookup *l)
{
    const struct config *c = l->all->config;
    struct objections found = {0};
    struct result *r = &l->entry->result;
    apply_policy(l, &found);
    if (!any_left(l)) {
        if (l->failed)
            lookup_refuse_unanswered(l, "addresses");
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
    keep_facts(l);
    /* A host whose lookup failed may be the best one: ask again soon. */
    uint32_t ttl = l->failed && l->ttl > FAILURE_TTL ? FAILURE_TTL : l->ttl;
    int64_t holds = lookup_ttl(l, ttl);
    if (r->tls && r->tls->sts_holds < holds)
        holds = r->tls->sts_holds; /* no rule may outlive the policy that it comes from */
    lookup_complete(l, holds);
}

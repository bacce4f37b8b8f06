#include "resolve/lookup.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "core/clock.h"
#include "core/mem.h"
#include "ipc/ipc.h"
#include "resolve/lookup_private.h"
#include "resolve/sts.h"

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

/* ---- TLS: DANE, then MTA-STS ------------------------------------------------ */

static void dane_answer(const struct dns_answer *a, unsigned host, void *arg);

static void ask_dane(struct lookup *l, size_t host)
{
    struct dane_question q;
    if (dane_next(&l->dane, host, &l->hosts[host].name, l->destination.port, &q))
        dns_ask(l->dns, q.name, q.type, &l->questions, (unsigned)host, dane_answer, l);
}

/* TLSA records of hosts whose name and addresses are beyond doubt (RFC 7672 section
 * 2.2): what the domain's own zone or the operator says. */
static void ask_tlsa(struct lookup *l)
{
    l->asked_tlsa = true;
    if (!(l->destination.facts & TLS_WANT_DANE) ||
        (!l->mx_secure && l->destination.kind == DESTINATION_MX))
        return;
    for (size_t i = 0; i < l->host_count; i++)
        ask_dane(l, i);
}

/* Goes on when a round of questions is over. */
static void advance(struct lookup *l)
{
    if (!list_empty(&l->questions))
        return;
    if (!l->asked_tlsa)
        ask_tlsa(l);
    if (list_empty(&l->questions) && !l->policy)
        lookup_finish(l);
}

static void dane_answer(const struct dns_answer *a, unsigned host, void *arg)
{
    struct lookup *l = arg;
    dane_answered(&l->dane, host, a);
    note_ttl(l, a);
    ask_dane(l, host);
    advance(l);
}

static void policy_found(void *arg)
{
    struct lookup *l = arg;
    l->policy = NULL;
    if (l->host_count > 0)
        advance(l);
}

static void report_answered(const struct dns_answer *a, unsigned tag, void *arg)
{
    struct lookup *l = arg;
    (void)tag;
    l->reports = tlsrpt_record(l->all->tlsrpt, domain_slice(&l->destination.name), a);
    if (l->host_count > 0)
        advance(l);
}

/* What can be asked beside the MX records. */
static void ask_policies(struct lookup *l)
{
    struct slice name = domain_slice(&l->destination.name);
    if (l->destination.facts & TLS_WANT_STS)
        l->policy = sts_find(l->all->sts, l->dns, name, policy_found, l);
    char report[DNS_NAME_MAX + 1];
    if ((l->destination.facts & TLS_WANT_REPORT) &&
        snprintf(report, sizeof report, "_smtp._tls.%s", l->destination.name.text) <= DNS_NAME_MAX)
        dns_ask(l->dns, report, DNS_TYPE_TXT, &l->questions, 0, report_answered, l);
}

static void address_answered(const struct dns_answer *a, unsigned host, void *arg)
{
    struct lookup *l = arg;
    if (a->result == DNS_FAILED)
        l->failed = true;
    else if (a->result == DNS_FOUND)
        keep_addresses(l, a, (uint16_t)host);
    if (l->destination.facts & TLS_WANT_DANE)
        dane_address(&l->dane, host, &l->hosts[host].name, a);
    note_ttl(l, a);
    advance(l);
}

static void ask_addresses(struct lookup *l)
{
    if (l->destination.facts & TLS_WANT_DANE)
        dane_init(&l->dane, l->host_count);
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
        lookup_refuse(l, &v, lookup_ttl(l, l->ttl));
        return;
    }
    if (l->host_count == 0) {
        lookup_refuse_unanswered(l, "MX");
        return;
    }
    drop_loops(l);
    if (l->host_count == 0)
        lookup_refuse_loop(l);
    else
        ask_addresses(l);
}

static void mx_answered(const struct dns_answer *a, unsigned tag, void *arg)
{
    struct lookup *l = arg;
    struct verdict v;
    (void)tag;
    note_ttl(l, a);
    l->mx_secure = a->secure;
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
        lookup_refuse(l, &v, lookup_ttl(l, l->ttl));
        break;
    case DNS_FAILED:
        lookup_refuse_unanswered(l, "MX");
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
        enum address_verdict verdict =
            d->configured ? ADDRESS_FINE : policy_check(l->all->policy, raw);
        if (verdict != ADDRESS_FINE) {
            lookup_refuse_literal(l, verdict);
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
    lookup_complete(l, DECIDED_TTL * CLOCK_SECOND);
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
        lookup_refuse(l, &v, FAILURE_TTL * CLOCK_SECOND);
        return;
    }
    if (dns_is_busy(l->dns)) {
        verdict_set(&v, 451, "4.4.3", "too many DNS lookups at a time; %s is looked up later",
                    d->name.text);
        lookup_refuse(l, &v, FAILURE_TTL * CLOCK_SECOND);
        return;
    }
    start_tick(all);
    ask_policies(l);
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
    bool mx_known = l->host_count > 0, answered = mx_known && list_empty(&l->questions);
    dns_abandon(&l->questions);
    /* of DNS; an MTA-STS policy that does not come is no reason to ask again soon */
    l->failed = l->timed_out = !answered;
    sts_forget(l->policy);
    l->policy = NULL;
    if (mx_known)
        lookup_finish(l);
    else
        lookup_refuse_unanswered(l, "MX");
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

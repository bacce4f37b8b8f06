#include "resolve/dane.h"

#include <stdio.h>

#include "core/mem.h"
#include "tls/tlsa.h"

enum {
    DANE_BYTES_PER_HOST = 6 * 1024, /* of usable records: more does not fit into the rules */
    RULE_BYTES = 64
};
_Static_assert((int)TLS_FACTS_BYTES - (int)TLS_FACTS_RECORDS >=
                   (int)MX_HOSTS_MAX * ((int)RULE_BYTES + (int)DNS_NAME_MAX),
               "every host has room for a rule without records");

void dane_init(struct dane *d, size_t hosts)
{
    *d = (struct dane){.hosts = hosts ? xcalloc(hosts, sizeof *d->hosts) : NULL, .count = hosts};
    for (size_t i = 0; i < hosts; i++)
        buf_init(&d->hosts[i].records, DANE_BYTES_PER_HOST);
}

void dane_free(struct dane *d)
{
    for (size_t i = 0; i < d->count; i++)
        buf_free(&d->hosts[i].records);
    xfree(&d->hosts);
    d->count = 0;
}

void dane_address(struct dane *d, size_t host, const struct dns_answer *a)
{
    if (host >= d->count || a->result != DNS_FOUND)
        return;
    if (a->secure)
        d->hosts[host].secure = true;
    else
        d->hosts[host].insecure = true;
}

bool dane_wants(struct dane *d, size_t host)
{
    struct dane_host *h = &d->hosts[host];
    h->asked = h->secure && !h->insecure;
    return h->asked;
}

int dane_name(const struct domain *host, uint16_t port, char out[DNS_NAME_MAX + 1])
{
    int len = snprintf(out, DNS_NAME_MAX + 1, "_%u._tcp.%s", port, host->text);
    return len <= DNS_NAME_MAX ? 0 : -1;
}

static void keep(struct dane_host *h, const struct dns_answer *a)
{
    unsigned usable = 0;
    for (size_t i = 0; i < a->count; i++) {
        struct tlsa t;
        if (tlsa_parse(a->records[i].data, &t) < 0 || !tlsa_usable(&t))
            continue;
        if (usable == TLSA_RECORDS_MAX || h->records.max - h->records.len < RULE_BYTES + t.data.len)
            continue;
        usable++;
        ipc_tlsa_add(&h->records, &(struct ipc_tlsa){.usage = t.usage,
                                                     .selector = t.selector,
                                                     .matching = t.matching,
                                                     .data = t.data});
    }
    h->state = usable ? DANE_RECORDS : DANE_UNUSABLE;
}

/* B67: records that DNSSEC does not vouch for are none; a lookup that fails, by a
 * forged answer too, leaves the host out: to go on without would be the downgrade
 * that DANE prevents (RFC 7672 section 2.1.2). */
void dane_answered(struct dane *d, size_t host, const struct dns_answer *a)
{
    struct dane_host *h = &d->hosts[host];
    h->asked = false;
    if (a->result == DNS_FAILED)
        h->state = DANE_FAILED;
    else if (a->result == DNS_FOUND && a->secure)
        keep(h, a);
    else
        h->state = DANE_NONE;
}

void dane_facts(const struct dane *d, const struct mx_host *hosts, struct buf *out)
{
    for (size_t i = 0; i < d->count; i++) {
        const struct dane_host *h = &d->hosts[i];
        uint8_t state = h->asked ? (uint8_t)DANE_FAILED : h->state;
        struct ipc_tls_rule r = {.host = domain_slice(&hosts[i].name),
                                 .level = state,
                                 .tlsa =
                                     state == DANE_RECORDS ? buf_slice(&h->records) : SLICE("")};
        if (state == DANE_NONE)
            continue;
        if (out->len + RULE_BYTES + r.host.len + r.tlsa.len > TLS_FACTS_RECORDS) {
            /* without its records it cannot be checked; without a word it would not be */
            r.level = DANE_FAILED;
            r.tlsa = SLICE("");
        }
        ipc_tls_rule_add(out, &r);
    }
}

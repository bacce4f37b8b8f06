#include "resolve/dane.h"

#include <openssl/err.h>
#include <openssl/x509.h>
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

void dane_address(struct dane *d, size_t host, const struct domain *name,
                  const struct dns_answer *a)
{
    if (host >= d->count || a->result != DNS_FOUND)
        return;
    struct dane_host *h = &d->hosts[host];
    if (a->secure)
        h->secure = true;
    else
        h->insecure = true;
    if (a->owner.text[0] && strcmp(a->owner.text, name->text) != 0)
        h->expanded = a->owner;
}

/* RFC 7672 section 2.2.2. Aliases that are beyond doubt to their end: TLSA records there
 * go before those of the host's own name. If only the first alias is, those of the own
 * name count. */
static enum dane_step first_step(const struct dane_host *h)
{
    bool alias = h->expanded.text[0] != '\0';
    if (h->secure && !h->insecure)
        return alias ? DANE_ASK_EXPANDED : DANE_ASK_OWN;
    return h->insecure && alias ? DANE_ASK_CNAME : DANE_END;
}

bool dane_next(struct dane *d, size_t host, const struct domain *name, uint16_t port,
               struct dane_question *out)
{
    struct dane_host *h = &d->hosts[host];
    if (h->step == DANE_BEGIN)
        h->step = (uint8_t)first_step(h);
    const struct domain *base = h->step == DANE_ASK_EXPANDED ? &h->expanded : name;
    out->type = h->step == DANE_ASK_CNAME ? DNS_TYPE_CNAME : DNS_TYPE_TLSA;
    if (h->step == DANE_END)
        return false;
    if (h->step == DANE_ASK_CNAME) {
        snprintf(out->name, sizeof out->name, "%s", name->text);
        return true;
    }
    if (snprintf(out->name, sizeof out->name, "_%u._tcp.%s", port, base->text) <= DNS_NAME_MAX)
        return true;
    dane_answered(d, host, &(struct dns_answer){.result = DNS_NXDOMAIN}); /* too long to exist */
    return dane_next(d, host, name, port, out);
}

/* Whether a whole certificate or key (matching type 0) is one, with nothing behind it, as relay's
 * OpenSSL will want it. A digest can be of anything. A record that is broken cannot be used, like
 * one of an unknown sort (RFC 7671 section 4.1): where all are, TLS is required and no certificate
 * is, rather than that mail waits for a server that nothing could match. */
static bool is_sound(const struct tlsa *t)
{
    if (t->matching != TLSA_FULL)
        return true;
    const unsigned char *at = (const unsigned char *)t->data.ptr, *begin = at;
    long len = (long)t->data.len; /* TLSA_DATA_MAX at most */
    bool sound = false;
    ERR_set_mark();
    if (t->selector == 0) {
        X509 *certificate = d2i_X509(NULL, &at, len);
        sound = certificate && at == begin + len && X509_get0_pubkey(certificate);
        X509_free(certificate);
    } else {
        EVP_PKEY *key = d2i_PUBKEY(NULL, &at, len);
        sound = key && at == begin + len;
        EVP_PKEY_free(key);
    }
    ERR_pop_to_mark(); /* of no concern to the next one who asks OpenSSL for errors */
    return sound;
}

static void keep(struct dane_host *h, const struct dns_answer *a)
{
    unsigned usable = 0;
    for (size_t i = 0; i < a->count; i++) {
        struct tlsa t;
        if (tlsa_parse(a->records[i].data, &t) < 0 || !tlsa_usable(&t) || !is_sound(&t))
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
    enum dane_step step = (enum dane_step)h->step;
    bool found = a->result == DNS_FOUND && a->secure;
    h->step = DANE_END;
    if (a->result == DNS_FAILED) {
        h->state = DANE_FAILED;
    } else if (step == DANE_ASK_CNAME) {
        if (found)
            h->step = DANE_ASK_OWN;
    } else if (found) {
        h->from_expanded = step == DANE_ASK_EXPANDED;
        keep(h, a);
    } else if (step == DANE_ASK_EXPANDED) {
        h->step = DANE_ASK_OWN;
    }
}

void dane_facts(const struct dane *d, const struct mx_host *hosts, struct buf *out)
{
    for (size_t i = 0; i < d->count; i++) {
        const struct dane_host *h = &d->hosts[i];
        bool open = h->step != DANE_BEGIN && h->step != DANE_END;
        uint8_t state = open ? (uint8_t)DANE_FAILED : h->state;
        struct ipc_tls_rule r = {.host = domain_slice(&hosts[i].name),
                                 .level = state,
                                 .names = h->from_expanded ? domain_slice(&h->expanded) : SLICE(""),
                                 .tlsa =
                                     state == DANE_RECORDS ? buf_slice(&h->records) : SLICE("")};
        if (state == DANE_NONE)
            continue;
        if (out->len + RULE_BYTES + r.host.len + r.names.len + r.tlsa.len > TLS_FACTS_RECORDS) {
            /* without its records it cannot be checked; without a word it would not be */
            r.level = DANE_FAILED;
            r.names = r.tlsa = SLICE("");
        }
        ipc_tls_rule_add(out, &r);
    }
}

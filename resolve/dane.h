/* DANE for the hosts of one destination (RFC 7672): which of them have TLSA records
 * that DNSSEC vouches for. */
#ifndef POSTERN_RESOLVE_DANE_H
#define POSTERN_RESOLVE_DANE_H

#include "resolve/dns_answer.h"
#include "resolve/targets.h"
#include "resolve/tls_facts.h"

struct dane_host {
    uint8_t state;      /* enum dane_state */
    bool insecure;      /* an address record that DNSSEC does not vouch for */
    bool secure;        /* one that it does */
    bool asked;         /* for TLSA records, and not answered yet */
    struct buf records; /* encoded ipc_tlsa */
};

struct dane {
    struct dane_host *hosts;
    size_t count;
};

void dane_init(struct dane *d, size_t hosts);
void dane_free(struct dane *d);
/* An answer with the addresses of a host. */
void dane_address(struct dane *d, size_t host, const struct dns_answer *a);
/* Whether its TLSA records are to be asked for: else it has no DANE (RFC 7672
 * section 2.2.2). True marks it as asked. */
bool dane_wants(struct dane *d, size_t host);
/* "_25._tcp.mx.example.com" into out; -1 if that is too long to exist. */
int dane_name(const struct domain *host, uint16_t port, char out[DNS_NAME_MAX + 1]);
void dane_answered(struct dane *d, size_t host, const struct dns_answer *a);
/* What was found, as struct tls_facts.hosts has it. What was asked and not answered
 * counts as failed. */
void dane_facts(const struct dane *d, const struct mx_host *hosts, struct buf *out);

#endif

/* DANE for the hosts of one destination (RFC 7672): which of them have TLSA records
 * that DNSSEC vouches for. */
#ifndef POSTERN_RESOLVE_DANE_H
#define POSTERN_RESOLVE_DANE_H

#include "resolve/dns_answer.h"
#include "resolve/targets.h"
#include "resolve/tls_facts.h"

/* What is asked about a host (RFC 7672 section 2.2.2). */
enum dane_step {
    DANE_BEGIN,
    DANE_ASK_CNAME,    /* its addresses are not beyond doubt: is the alias itself? */
    DANE_ASK_EXPANDED, /* for TLSA records where its aliases end */
    DANE_ASK_OWN,      /* for those of its own name */
    DANE_END
};

struct dane_host {
    uint8_t state;          /* enum dane_state */
    uint8_t step;           /* enum dane_step: what is asked and not answered yet */
    bool insecure;          /* an address record that DNSSEC does not vouch for */
    bool secure;            /* one that it does */
    struct domain expanded; /* where its aliases end; empty: it is none */
    bool from_expanded;     /* the records are those of that name */
    struct buf records;     /* encoded ipc_tlsa */
};

/* A question to DNS. */
struct dane_question {
    char name[DNS_NAME_MAX + 1];
    enum dns_type type;
};

struct dane {
    struct dane_host *hosts;
    size_t count;
};

void dane_init(struct dane *d, size_t hosts);
void dane_free(struct dane *d);
/* An answer with the addresses of the host. */
void dane_address(struct dane *d, size_t host, const struct domain *name,
                  const struct dns_answer *a);
/* When its addresses are known, and after each dane_answered: the next question about
 * the host, whose name is `name`. False: there is none. */
bool dane_next(struct dane *d, size_t host, const struct domain *name, uint16_t port,
               struct dane_question *out);
void dane_answered(struct dane *d, size_t host, const struct dns_answer *a);
/* What was found, as struct tls_facts.hosts has it. What was asked and not answered
 * counts as failed. */
void dane_facts(const struct dane *d, const struct mx_host *hosts, struct buf *out);

#endif

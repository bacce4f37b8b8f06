/* What a destination itself says about TLS with its servers: by DNSSEC and TLSA
 * records (DANE, RFC 7672), by an MTA-STS policy (RFC 8461), by the wish to get
 * reports (RFC 8460). */
#ifndef POSTERN_RESOLVE_TLS_FACTS_H
#define POSTERN_RESOLVE_TLS_FACTS_H

#include "core/buf.h"
#include "ipc/ipc.h"
#include "tls/mta_sts.h"

/* What is looked up. */
enum tls_wanted_fact { TLS_WANT_DANE = 1, TLS_WANT_STS = 2, TLS_WANT_REPORT = 4 };

/* What DANE says of one host. */
enum dane_state {
    DANE_NONE,     /* no TLSA records, or nothing that DNSSEC vouches for: no DANE */
    DANE_FAILED,   /* its TLSA records exist or not, nobody can tell: it must not be used */
    DANE_UNUSABLE, /* records, but none that can be used: TLS, whoever it is (RFC 7672 2.2) */
    DANE_RECORDS
};

enum {
    TLS_FACTS_BYTES = 4 * TLS_RULES_BYTES,
    TLS_FACTS_RECORDS = 2 * TLS_RULES_BYTES /* beyond this hosts come without their records */
};

struct tls_facts {
    bool mx_secure;    /* DNSSEC vouches for the names of the hosts */
    bool sts, reports; /* there is an MTA-STS policy; the domain wants reports */
    enum mta_sts_mode sts_mode;
    uint32_t sts_max_age; /* s, as the policy says, at least STS_CHECK_MIN */
    int64_t sts_holds;    /* microseconds that what is said about it may be used */
    struct buf sts_mx;    /* its patterns, see mta_sts.h */
    struct buf hosts;     /* ipc_tls_rule records with a name, TLSA records and `level`: an enum
                           * dane_state; for hosts that are not DANE_NONE. `names` is the name
                           * that the records are of, if the host is an alias of it */
};

struct tls_facts *tls_facts_new(void);
/* May be NULL. */
void tls_facts_free(struct tls_facts *f);
/* For the cache's count. */
size_t tls_facts_bytes(const struct tls_facts *f);

#endif

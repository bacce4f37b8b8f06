/* A lookup under way; inside of lookup*.c. */
#ifndef POSTERN_RESOLVE_LOOKUP_PRIVATE_H
#define POSTERN_RESOLVE_LOOKUP_PRIVATE_H

#include "resolve/dane.h"
#include "resolve/lookup.h"
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
    struct dane dane;          /* if destination.facts asks for it */
    bool mx_secure;            /* DNSSEC vouches for the answer about MX records */
    bool reports;              /* the domain wants reports about TLS */
    bool asked_tlsa;           /* the second round of questions has begun */
    struct sts_waiter *policy; /* the MTA-STS policy is being looked up; or NULL */
};

/* ---- lookup_end.c: each of these ends the lookup and frees it. ---- */

/* Between resolver_min_ttl and resolver_max_ttl, in microseconds. */
int64_t lookup_ttl(const struct lookup *l, uint32_t ttl);
void lookup_complete(struct lookup *l, int64_t ttl);
/* A refusal. What is wrong with a next hop that the operator configured is the
 * operator's to repair: it delays mail, it does not return it. */
void lookup_refuse(struct lookup *l, const struct verdict *v, int64_t ttl);
void lookup_refuse_unanswered(struct lookup *l, const char *what);
void lookup_refuse_loop(struct lookup *l);
/* An address literal that is not public. */
void lookup_refuse_literal(struct lookup *l, enum address_verdict verdict);
/* All questions are answered, or the time is over. */
void lookup_finish(struct lookup *l);

#endif

/* Finds the addresses of a destination: MX, then A and AAAA of each host, then
 * the rules about what may be used. */
#ifndef POSTERN_RESOLVE_LOOKUP_H
#define POSTERN_RESOLVE_LOOKUP_H

#include "conf/config.h"
#include "resolve/cache.h"
#include "resolve/destination.h"
#include "resolve/dns.h"
#include "resolve/policy.h"
#include "resolve/sts.h"
#include "resolve/tlsrpt.h"

struct lookups {
    struct dns *dns;
    const struct config *config;
    const struct policy *policy;
    struct sts *sts;
    struct tlsrpt *tlsrpt;
    struct list active; /* of struct lookup, oldest first */
    struct event *tick; /* deadlines; pending only while lookups are */
};

int lookups_init(struct lookups *all, struct event_base *base, struct err *e);
/* Starts to find d; completes `e`, perhaps at once. */
void lookup_start(struct lookups *all, struct entry *e, const struct destination *d);

#endif

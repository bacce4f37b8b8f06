/* Which addresses DNS may send mail to (B63): none of our own, none of
 * loopback, private, link-local, documentation, multicast or reserved ranges.
 * Else anyone could point an MX record at the relay's own network. */
#ifndef POSTERN_RESOLVE_POLICY_H
#define POSTERN_RESOLVE_POLICY_H

#include "conf/nets.h"
#include "resolve/limits.h"

enum address_verdict {
    ADDRESS_FINE,
    ADDRESS_FORBIDDEN, /* a range that is not on the public Internet */
    ADDRESS_OWN        /* of this host's interfaces: mail would come back */
};

struct own_address {
    uint8_t len, raw[16];
};

struct policy {
    struct nets permit, forbidden;
    struct own_address *own;
    size_t own_count;
    bool has_ipv6; /* an interface has a routable IPv6 address */
};

/* Reads the interfaces' addresses; before the jail. */
int policy_open(struct policy *p, struct err *e);
/* resolver_permit_networks: networks that are fine all the same. On error the
 * old list stays. */
int policy_permit(struct policy *p, const char *networks, struct err *e);
enum address_verdict policy_check(const struct policy *p, struct slice address);
void policy_close(struct policy *p);

#endif

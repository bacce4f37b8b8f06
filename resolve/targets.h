/* From MX hosts and their addresses to the list that relay tries in order, and
 * to the site's name. */
#ifndef POSTERN_RESOLVE_TARGETS_H
#define POSTERN_RESOLVE_TARGETS_H

#include "core/buf.h"
#include "resolve/destination.h"
#include "resolve/dns_answer.h"

struct mx_host {
    struct domain name;
    uint16_t preference;
};

struct host_address {
    uint16_t host; /* index of its mx_host */
    uint8_t len;   /* 4 or 16; 0: struck off the list */
    uint8_t raw[16];
};

enum family_order { FAMILY_ANY, FAMILY_IPV4_FIRST, FAMILY_IPV6_FIRST };

struct target_settings {
    uint16_t port;
    size_t limit; /* addresses at most (B65) */
    enum family_order order;
};

/* Sorts by preference and name, drops repeated names and everything past
 * MX_HOSTS_MAX. Returns how many are left. The same records in any order give
 * the same list (B65). */
size_t mx_hosts_sort(struct mx_host *hosts, size_t count);

/* Appends ipc_target records: by preference, at random among equals (RFC 5321
 * 5.1), families as `order` says, alternating for FAMILY_ANY. What the limit
 * leaves out does not depend on chance. Sorts `addresses`. */
void targets_add(const struct mx_host *hosts, struct host_address *addresses, size_t count,
                 const struct target_settings *settings, struct buf *out);

/*
 * The site's name. Domains whose mail goes to the same set of hosts have the
 * same site, and share queues, limits and sessions. Because they share sessions
 * the name must tell different sets apart beyond doubt: else a domain could
 * publish a set that passes for another's, and get its mail. So it is the list
 * itself, sorted, without preferences: "mx1.example.net,mx2.example.net", with
 * ":port" behind it if that is not usual_port and "lmtp:" before it for LMTP. A
 * list too long for SITE_NAME_MAX is replaced by "mx:" and the domain: such
 * domains share with no other.
 */
void site_of_hosts(const struct mx_host *hosts, size_t count, const struct destination *d,
                   uint16_t usual_port, struct buf *out);
/* The same for an address or a UNIX socket. */
void site_of_destination(const struct destination *d, uint16_t usual_port, struct buf *out);

#endif

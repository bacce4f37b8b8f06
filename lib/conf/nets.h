/* Lists of networks, as in mynetworks: 127.0.0.0/8 192.0.2.1 [::1]/128
 * 2001:db8::/32, also !pattern to exclude; the first that matches decides. */
#ifndef POSTERN_CONF_NETS_H
#define POSTERN_CONF_NETS_H

#include <sys/socket.h>

#include "core/network.h"

enum { NETS_MAX = 10000 }; /* elements of a list */

struct net {
    struct network network;
    bool exclude;
};

struct nets {
    struct net *list;
    size_t count;
};

/* Parses a list into *n, which the caller frees with nets_free. Bits beyond the
 * prefix must be zero. */
int nets_parse(struct nets *n, const char *text, struct err *e);
void nets_free(struct nets *n);
/* Whether an address of 4 or 16 bytes in network order is in the list. An
 * IPv4-mapped IPv6 address counts as the IPv4 one. */
bool nets_match(const struct nets *n, struct slice address);
bool nets_match_sockaddr(const struct nets *n, const struct sockaddr *address);

#endif

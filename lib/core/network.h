/* An IP network, as in 192.0.2.0/24 or [2001:db8::]/32, and addresses in it. */
#ifndef POSTERN_CORE_NETWORK_H
#define POSTERN_CORE_NETWORK_H

#include "core/err.h"
#include "core/slice.h"

struct network {
    unsigned char address[16]; /* IPv4 as ::ffff:a.b.c.d */
    unsigned char bits;        /* of the 128 that count */
};

/* An address literal, IPv4, or IPv6 with or without brackets, to 4 or 16 bytes
 * in network order; their number, or -1. */
int network_address(struct slice text, unsigned char out[16]);
/* An address, or a network with its prefix length. Bits beyond that must be zero. 0, or -1 with
 * *e, which quotes the text. */
int network_parse(struct slice text, struct network *n, struct err *e);
/* Whether an address of 4 or 16 bytes in network order is in it. An IPv4-mapped IPv6 address
 * counts as the IPv4 one; no network of one family has addresses of the other. */
bool network_has(const struct network *n, struct slice address);

#endif

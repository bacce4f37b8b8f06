/*
 * Whose a domain is: the name that somebody registered under a public suffix, which has as many
 * subdomains as its owner likes. By the Public Suffix List (https://publicsuffix.org), as libpsl
 * brings it: no file is read. No I/O here.
 */
#ifndef POSTERN_DOMAIN_ORGANISATION_H
#define POSTERN_DOMAIN_ORGANISATION_H

#include "core/slice.h"

enum { DOMAIN_NAME_MAX = 255 /* bytes; RFC 1035, 2.3.4 */ };

/* The organisational domain (RFC 7489, 3.2) of `domain`, bytes of a peer: "news.shop.co.uk" is of
 * "shop.co.uk". A name under no suffix of the list has its last two labels; a public suffix, a
 * single label and what is no name of a host, such as an address literal, stand for themselves.
 * In lower case and A-labels (RFC 5890), so that a name that is written in another way is the same;
 * one that has no such form keeps its bytes. Cut to DOMAIN_NAME_MAX bytes. The bytes are in `out`.
 */
struct slice domain_organisation(struct slice domain, char out[static DOMAIN_NAME_MAX + 1]);
/* Such a name as a whole, in the same spelling. */
struct slice domain_spelled(struct slice domain, char out[static DOMAIN_NAME_MAX + 1]);

#endif

/*
 * Whose a domain is: the name that somebody registered under a public suffix, which has as many
 * subdomains as its owner likes. By the Public Suffix List (https://publicsuffix.org), as libpsl
 * brings it: no file is read. No I/O here.
 */
#ifndef POSTERN_DOMAIN_ORGANISATION_H
#define POSTERN_DOMAIN_ORGANISATION_H

#include "core/slice.h"

enum { DOMAIN_NAME_MAX = 255 /* bytes; RFC 1035, 2.3.4 */ };

/* Whose what is no name is: of all address literals, and of labels that no name can have. */
#define DOMAIN_NO_NAME "[]"

/* The organisational domain (RFC 7489, 3.2) of `domain`, bytes of a peer: "news.shop.co.uk" is of
 * "shop.co.uk". A name under no suffix of the list has its last two labels; a public suffix and a
 * single label stand for themselves. In the spelling of domain_spelled. Labels that no name of a
 * host has are left out with all before them, or whoever has a domain would have as many as he
 * likes; where nothing remains it is DOMAIN_NO_NAME. The bytes are in `out`, or constant. */
struct slice domain_organisation(struct slice domain, char out[static DOMAIN_NAME_MAX + 1]);
/* Such a name as a whole: in lower case, without a final dot, and in A-labels (RFC 5890), so that a
 * name that is written in another way is the same; a label that has no such form keeps its bytes.
 * Cut to DOMAIN_NAME_MAX bytes, and where A-labels make it longer, to the last of its labels. The
 * bytes are in `out`, with a NUL behind them. */
struct slice domain_spelled(struct slice domain, char out[static DOMAIN_NAME_MAX + 1]);

#endif

/* Domain names before they are used for anything (B68). */
#ifndef POSTERN_RESOLVE_DOMAIN_H
#define POSTERN_RESOLVE_DOMAIN_H

#include "core/slice.h"
#include "resolve/limits.h"

/* A name as DNS takes it: lower case, A-labels, no final dot, NUL-terminated. */
struct domain {
    char text[DNS_NAME_MAX + 1];
};

/* Turns what a peer or an operator wrote into a name for DNS: U-labels become
 * A-labels (IDNA2008), one final dot is dropped. Returns 0; or -1 for anything
 * that is not a host name: NUL, space, slash, empty or overlong labels, a
 * number as last label. */
int domain_parse(struct slice s, struct domain *out);

static inline struct slice domain_slice(const struct domain *d)
{
    return slice_str(d->text);
}

#endif

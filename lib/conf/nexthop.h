/* Next hops in main.cf: whether they are written as resolve reads them. */
#ifndef POSTERN_CONF_NEXTHOP_H
#define POSTERN_CONF_NEXTHOP_H

#include "core/err.h"

/* Whether `text` is a list of next hops, by commas or white space: a domain, a host or
 * address in brackets, each with :port if wanted. 0, or -1 and *e. What it lets pass may
 * still be no domain (resolve has the last word); it is there for slips. */
int nexthops_check(const char *text, struct err *e);

#endif

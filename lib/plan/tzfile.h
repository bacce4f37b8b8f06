/* The rule in a tzfile (RFC 8536): its last line. */
#ifndef POSTERN_PLAN_TZFILE_H
#define POSTERN_PLAN_TZFILE_H

#include "core/slice.h"

enum { TZFILE_MAX = 65536 };
/* The rule of the file's content; empty if it has none. */
struct slice tzfile_rule(struct slice content);
/* The rule of a zone's name, read from /usr/share/zoneinfo. 0 or -1. A
 * plan_zone_lookup; arg is not used. */
int tzfile_lookup(const char *name, char *out, size_t size, void *arg);

#endif

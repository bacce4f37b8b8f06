/*
 * tzfiles (RFC 8536): the rule in the last line of one, and the changes before that which it does
 * not say, as zone.h has them. Countries that have summer time but in Ramadan have such.
 */
#ifndef POSTERN_PLAN_TZFILE_H
#define POSTERN_PLAN_TZFILE_H

#include "core/slice.h"

enum { TZFILE_MAX = 65536 };
/* The text for zone_parse of the file's content, of less than `size` bytes (ZONE_TEXT_MAX is
 * enough for any). 0, or -1: it has no rule, or is damaged. */
int tzfile_rule(struct slice content, char *out, size_t size);
/* The same of a zone's name, read from /usr/share/zoneinfo. 0 or -1. A plan_zone_lookup; arg is not
 * used. */
int tzfile_lookup(const char *name, char *out, size_t size, void *arg);

#endif

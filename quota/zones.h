/* The system's time zones by name, read before the jail. */
#ifndef POSTERN_QUOTA_ZONES_H
#define POSTERN_QUOTA_ZONES_H

#include <stddef.h>

struct zones;
/* Reads the rules of all zones in /usr/share/zoneinfo; there may be none. */
struct zones *zones_load(void);
/* A plan_zone_lookup; arg is a struct zones. */
int zones_lookup(const char *name, char *out, size_t size, void *arg);

#endif

/*
 * Destinations as providers see them, the unit of limits: which site belongs to which, by
 * providers.conf or by its servers, and the limits of their lanes.
 */
#ifndef POSTERN_QMGR_GROUPS_H
#define POSTERN_QMGR_GROUPS_H

#include "qmgr/qmgr.h"

void groups_init(struct qmgr *q);
/* The group of a site with these targets; `domain` of the recipients, `own` as in the
 * struct. Counts a reference. */
struct group *group_get(struct qmgr *q, const struct site *s, struct slice domain, bool own);
/* The name of what providers.conf has for a domain by its own name, whatever its servers: its
 * section, or in `out` '@' and the provider that names it; "": nothing. */
struct slice group_domain_entry(const struct qmgr *q, struct slice domain, char *out, size_t size);
void group_unref(struct qmgr *q, struct group *g);
/* A lane's limits from main.cf and providers.conf; of a source with two addresses the stricter
 * ones. Lanes whose limits are the same share them: counts a reference. */
const struct shaper_limits *group_limits(struct qmgr *q, const struct group *g,
                                         const struct source *from, bool cold);
/* The limits that hold for a lane now: takes them over. */
void lane_limits(struct qmgr *q, struct lane *l);
void limits_unref(struct qmgr *q, const struct shaper_limits *l);
/* A sum of the targets' addresses, the same for sites that have the same. */
uint64_t group_targets_sum(const struct site *s);
/* main.cf has changed: limits of all lanes. */
void groups_reload(struct qmgr *q);
/* Takes over a set of rules. */
void groups_set_rules(struct qmgr *q, struct rules *rules);

#endif

/*
 * Accounts whose plan is not in plans_file: it was taken out, or renamed, while they had it.
 * What they may send is not known, so their mail gets 451 (gate.c). Mail that was taken
 * before goes on, counted and limited by the plan as it was, as long as this process
 * lives. The log, `status` and the lists tell which accounts these are.
 */
#ifndef POSTERN_QUOTA_MISSING_H
#define POSTERN_QUOTA_MISSING_H

#include "quota/quota.h"

/* plans_file was read: of the plans before it, those that it does not have are kept. */
void missing_keep(struct quota *q, const struct plans *old);
/* Looks at all accounts, in slices; the first at once. `tell`: each that is found is logged. */
void missing_count(struct quota *q, bool tell);
/* Accounts were changed: their number may be another. */
void missing_changed(struct quota *q);
void missing_tick(struct quota *q);
void missing_free(struct quota *q);

#endif

/* What has changed in plans_file since it was read last, for the audit log: whoever may edit the
 * file changes what customers have and pay. */
#ifndef POSTERN_QUOTA_PLAN_CHANGES_H
#define POSTERN_QUOTA_PLAN_CHANGES_H

#include "quota/quota.h"

/* After q->plans were read from this file, at a start or reload: an audit record for each plan that
 * is new, differs or is gone, with quota's own user. The database remembers what the plans were;
 * the first time, and while it is empty, they are remembered and nothing is recorded. */
void plan_changes_note(struct quota *q, const char *path);

#endif

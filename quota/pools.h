/* The names of source pools (sources.conf), so that one that is misspelt in a plan or an account
 * is told at once. Which addresses they have is qmgr's business. */
#ifndef POSTERN_QUOTA_POOLS_H
#define POSTERN_QUOTA_POOLS_H

#include "quota/quota.h"

/* sources.conf, which master has checked. */
void pools_read(struct quota *q, struct slice text, const char *path);
/* Fills *out with a sentence if there is no such pool; else it is empty. */
void pools_wrong(const struct quota *q, const char *pool, struct buf *out);
/* The same for each plan, into the log. */
void pools_check_plans(const struct quota *q);

#endif

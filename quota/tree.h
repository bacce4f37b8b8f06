/* Accounts below accounts: how deep, and in no circle. */
#ifndef POSTERN_QUOTA_TREE_H
#define POSTERN_QUOTA_TREE_H

#include "quota/quota.h"

/* `parents` has the accounts that change or are new, each with the name of the one above it
 * ("": none); the others are as the database has them. 0, or -1 with a sentence: one would be
 * below itself, or it or one below it deeper than CHARGE_LEVELS_MAX. */
int tree_check(struct quota *q, json_t *parents, struct err *e);
/* Which accounts an account has below it: `name` leaves `before` and comes to `after` (each
 * may be empty, or the same). */
void tree_index(struct buf *batch, const char *name, const char *before, const char *after);

#endif

/* One letter to an account's owner: for letters.c and reports.c. */
#ifndef POSTERN_QUOTA_LETTER_H
#define POSTERN_QUOTA_LETTER_H

#include "quota/quota.h"

/* A letter to the reference address with this text, whose lines end in \n, and a list
 * (CSV, lines end in CRLF) attached under this file name unless it is empty. It is
 * written with the next book_apply, in one transaction with what it tells of; an owner
 * without an address gets none. */
void letter_write(struct quota *q, const struct account *a, const char *subject, struct slice text,
                  const char *file, struct slice csv);
/* Appends what was used of the plan in a period. */
void letter_figures(struct buf *out, const struct account *a, const struct plan_usage *u);

#endif

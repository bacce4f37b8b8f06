/* Which accounts own a sending domain or address: an index of T_IDENTITY the other way. */
#ifndef POSTERN_QUOTA_OWNERS_H
#define POSTERN_QUOTA_OWNERS_H

#include "quota/quota.h"

/* The account gets it, or gives it up: into the batch. Names as they are kept. */
void owners_put(struct buf *batch, const char *account, const char *identity);
void owners_remove(struct buf *batch, const char *account, const char *identity);
/* Fills *out with a sentence if the identity, or the domain of that address, or an address in
 * that domain, is another account's, which is neither above nor below this one; else it is empty.
 * Two accounts with one domain are no error (one that moves, an agency and its customer), so
 * nothing is refused, but mostly a mistake. */
void owners_others(struct quota *q, const char *account, const char *identity, struct buf *out);
/* Makes the index of a database that has none yet. 0 or -1. */
int owners_begin(struct quota *q, struct err *e);

#endif

/* What is counted, in export and import: usage, rates, what is held for a rate, charges. */
#ifndef POSTERN_QUOTA_TRANSFER_COUNTS_H
#define POSTERN_QUOTA_TRANSFER_COUNTS_H

#include "quota/quota.h"

/* A record of one of these tables as JSON (without "type"), or NULL. Rates and charges are
 * their binary records in hexadecimal digits: what a version counts comes back as it was. */
json_t *counts_show(enum table t, struct slice key, struct slice value);
/* The other way: key and value of the table; 0, or -1 and why. */
int counts_read(enum table t, const json_t *in, struct key *key, struct buf *value, struct err *e);
/* The record of a grant as 'grant add' makes them, with what became of it; the caller decrefs.
 * NULL, and why. */
json_t *grant_of_export(const json_t *in, struct err *e);

#endif

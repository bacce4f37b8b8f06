/*
 * Tables as they were at one moment, read in slices while others go on to change them.
 *
 * What is not read yet is looked at before each change: the record that was there (or that
 * there was none) is kept in memory until it was read. So the one who reads sees the moment,
 * the others see the present, nobody waits, and it costs nothing while nobody reads; the
 * memory is that of what changes meanwhile, once for each key.
 */
#ifndef POSTERN_QUOTA_FROZEN_H
#define POSTERN_QUOTA_FROZEN_H

#include "quota/quota.h"

enum {
    FROZEN_MAX = 4,                       /* at the same time */
    FROZEN_BYTES_MAX = 256 * 1024 * 1024, /* that one keeps */
    FROZEN_TABLES_MAX = T_COUNT
};

struct frozen;

/* These tables as they are now, in the order in which they will be read. NULL: there are too
 * many already. The caller frees it. */
struct frozen *frozen_new(struct quota *q, const enum table *tables, unsigned count);
void frozen_free(struct frozen *f);
/* Up to `max` records more, of one table: `each` gets the table's place in the list. A table's
 * records come in the order of their keys, then those that were deleted since. 1: there may be
 * more; 0: that was all; -1: *e says why it cannot go on. */
int frozen_read(struct frozen *f, unsigned max,
                void (*each)(unsigned place, struct slice key, struct slice value, void *arg),
                void *arg, struct err *e);
/* Whether the record of a table that is still being read was there and was not read yet; then
 * *value is what it was. */
bool frozen_get(struct frozen *f, unsigned place, struct slice key, struct buf *value);

/* Before a batch is applied. */
void frozen_note(struct quota *q, struct slice batch);

#endif

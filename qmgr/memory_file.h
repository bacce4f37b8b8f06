/* The file of memory.h: its format, and reading. */
#ifndef POSTERN_QMGR_MEMORY_FILE_H
#define POSTERN_QMGR_MEMORY_FILE_H

#include "core/buf.h"
#include "core/err.h"

#define MEMORY_FILE "shaping.learned"

/* Calls `entry` for each. 0; 1: there is no file; -1: it is damaged, was kept aside, and
 * `entry` was not called. */
int memory_file_read(void (*entry)(struct slice object, void *arg), void *arg, struct err *e);
/* What comes before the entries and after them. */
void memory_file_begin(struct buf *out);
void memory_file_end(struct buf *out, size_t entries);

#endif

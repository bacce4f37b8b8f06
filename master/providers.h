/* providers.conf: master reads it with what it includes, validates the whole, and passes
 * it to qmgr. */
#ifndef POSTERN_MASTER_PROVIDERS_H
#define POSTERN_MASTER_PROVIDERS_H

#include "core/err.h"

/* Reads and validates; the empty path is fine. 0, or -1 with file and line. */
int providers_check(const char *path, struct err *e);
/* The same into a memory file, for qmgr: its descriptor, or -1. */
int providers_open(const char *path, struct err *e);

#endif

/* plans.conf (plans_file): checked by master, read by quota. */
#ifndef POSTERN_MASTER_PLANS_FILE_H
#define POSTERN_MASTER_PLANS_FILE_H

#include "core/err.h"

/* A descriptor, or -1 with the reason. */
int plans_file_open(const char *path, struct err *e);
/* Checks it, and that its time zones are known. */
int plans_file_check(const char *path, struct err *e);

#endif

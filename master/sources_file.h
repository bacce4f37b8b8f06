/* sources.conf: master validates it and passes it to qmgr. */
#ifndef POSTERN_MASTER_SOURCES_FILE_H
#define POSTERN_MASTER_SOURCES_FILE_H

#include "core/err.h"

/* Opens the file if its owner and mode can be trusted: a descriptor, or -1. */
int sources_file_open(const char *path, struct err *e);
/* Reads and validates the whole; the empty path is fine. 0, or -1 with file and line. */
int sources_file_check(const char *path, struct err *e);

#endif

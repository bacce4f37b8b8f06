/*
 * Named fault points, for tests only: with -DPOSTERN_FAULTS=ON a test can make
 * an operation fail with an errno value, or the process die, at a named place.
 * In a normal build fault_point is 0 and the compiler removes it.
 */
#ifndef POSTERN_CORE_FAULT_H
#define POSTERN_CORE_FAULT_H

#include <stdint.h>

#include "core/err.h"

enum { FAULT_KILL = -1 /* SIGKILL to ourselves */ };

#ifdef POSTERN_FAULTS
/* The errno value that the operation shall fail with, or 0. May be called from
 * any thread. */
int fault_point(const char *name);
/* From the (skip+1)-th visit on, `count` visits of the point get the action: an
 * errno value or FAULT_KILL. NULL forgets all faults. */
void fault_set(const char *name, int action, unsigned skip, unsigned count);
/* How many seconds the clock of this name ("clock.wall", "clock.mono") is set off;
 * the entry's action, for as long as it is there. */
int64_t fault_shift(const char *name);
/* Takes the faults from this file from now on: a test sets them while the
 * service runs, and one that killed the process does not kill its successor.
 * The file is an array of FAULTS_MAX struct fault (fault.c). */
int fault_share(const char *path, struct err *e);
#else
static inline int fault_point(const char *name)
{
    (void)name;
    return 0;
}
static inline int64_t fault_shift(const char *name)
{
    (void)name;
    return 0;
}
#endif

#endif

/*
 * Time. Timers use the monotonic clock, which a stepped wall clock does not
 * disturb; wall time is only for people, headers and what is kept on disk.
 */
#ifndef POSTERN_CORE_CLOCK_H
#define POSTERN_CORE_CLOCK_H

#include <stdint.h>

/* Microseconds of CLOCK_MONOTONIC. */
int64_t clock_mono(void);
/* Microseconds since 1970, UTC. */
int64_t clock_wall(void);

#define CLOCK_SECOND INT64_C(1000000)

/* Tenths of a second, for what must be small: up to 13 years after the machine's start. */
static inline uint32_t clock_tenths(int64_t mono)
{
    return (uint32_t)(mono / (CLOCK_SECOND / 10));
}

#endif

#include "core/clock.h"

#include <time.h>

#include "core/fault.h"

static int64_t microseconds(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * CLOCK_SECOND + t.tv_nsec / 1000;
}

int64_t clock_mono(void)
{
    return microseconds(CLOCK_MONOTONIC) + fault_shift("clock.mono") * CLOCK_SECOND;
}

int64_t clock_wall(void)
{
    return microseconds(CLOCK_REALTIME) + fault_shift("clock.wall") * CLOCK_SECOND;
}

#include "core/clock.h"

#include <time.h>

static int64_t microseconds(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * CLOCK_SECOND + t.tv_nsec / 1000;
}

int64_t clock_mono(void)
{
    return microseconds(CLOCK_MONOTONIC);
}

int64_t clock_wall(void)
{
    return microseconds(CLOCK_REALTIME);
}

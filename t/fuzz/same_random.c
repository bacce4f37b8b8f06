/*
 * In place of the kernel's random numbers, in fuzz targets: the same ones each time. The keys of
 * hash tables come from them (lib/core/map.c), and with other keys other slots are looked at, so
 * that one seed of the fuzzer would lead to other inputs in each run.
 */
#include <stdint.h>
#include <string.h>
#include <sys/random.h>

/* splitmix64 */
static uint64_t next(void)
{
    static uint64_t state;
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

ssize_t getrandom(void *buffer, size_t length, unsigned flags)
{
    (void)flags;
    for (size_t done = 0; done < length;) {
        uint64_t number = next();
        size_t n = length - done < sizeof number ? length - done : sizeof number;
        memcpy((char *)buffer + done, &number, n);
        done += n;
    }
    return (ssize_t)length;
}

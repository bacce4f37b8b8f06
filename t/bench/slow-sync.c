/*
 * A library for LD_PRELOAD or /etc/ld.so.preload that makes the disk slow: every
 * fsync, fdatasync and syncfs takes 5 ms longer (SLOW_SYNC_US microseconds, where
 * the environment has that). Calls side by side wait side by side, as with a disk
 * that takes several flushes at a time.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_US = 5000, SECOND_US = 1000000 };

typedef int sync_call(int fd);

static long extra(void)
{
    static long us = -1;
    const char *set = us < 0 ? getenv("SLOW_SYNC_US") : NULL;
    if (us < 0)
        us = set ? atol(set) : DEFAULT_US;
    return us;
}

static int slowly(const char *name, sync_call **real, int fd)
{
    if (!*real)
        *(void **)real = dlsym(RTLD_NEXT, name);
    int rc = (*real)(fd), number = errno;
    struct timespec wait = {extra() / SECOND_US, extra() % SECOND_US * 1000};
    while (nanosleep(&wait, &wait) < 0 && errno == EINTR)
        ;
    errno = number;
    return rc;
}

int fsync(int fd)
{
    static sync_call *real;
    return slowly("fsync", &real, fd);
}

int fdatasync(int fd)
{
    static sync_call *real;
    return slowly("fdatasync", &real, fd);
}

int syncfs(int fd)
{
    static sync_call *real;
    return slowly("syncfs", &real, fd);
}

#include "core/fault.h"

#ifdef POSTERN_FAULTS

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FAULTS_MAX = 16, FAULT_NAME_MAX = 48 };

/* Also the format of a shared file, which t/e2e/postern.py writes. */
struct fault {
    char name[FAULT_NAME_MAX];
    int32_t action;
    uint32_t skip, count, unused;
};

static struct fault own[FAULTS_MAX];
static struct fault *faults = own;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

int fault_point(const char *name)
{
    int action = 0;
    pthread_mutex_lock(&mutex);
    for (struct fault *f = faults; f < faults + FAULTS_MAX && action == 0; f++) {
        if (f->count == 0 || strncmp(f->name, name, FAULT_NAME_MAX) != 0)
            continue;
        if (f->skip > 0) {
            f->skip--;
            continue;
        }
        f->count--;
        action = f->action;
    }
    pthread_mutex_unlock(&mutex);
    if (action == FAULT_KILL)
        raise(SIGKILL); /* the filter of a service refuses kill(2) */
    return action;
}

/* Read at each look at the clock, so without the lock: an entry is made with its
 * count last, as is one in a shared file. */
int64_t fault_shift(const char *name)
{
    for (const struct fault *f = faults; f < faults + FAULTS_MAX; f++)
        if (f->count > 0 && strncmp(f->name, name, FAULT_NAME_MAX) == 0)
            return f->action;
    return 0;
}

void fault_set(const char *name, int action, unsigned skip, unsigned count)
{
    pthread_mutex_lock(&mutex);
    if (name == NULL)
        memset(faults, 0, FAULTS_MAX * sizeof *faults);
    for (struct fault *f = faults; name && f < faults + FAULTS_MAX; f++) {
        if (f->count == 0) {
            *f = (struct fault){.action = action, .skip = skip, .count = count};
            snprintf(f->name, sizeof f->name, "%s", name);
            break;
        }
    }
    pthread_mutex_unlock(&mutex);
}

int fault_share(const char *path, struct err *e)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "open %s", path);
    void *map = mmap(NULL, FAULTS_MAX * sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return err_sys(e, "mmap %s", path);
    faults = map;
    return 0;
}

#else
typedef int fault_unused; /* ISO C wants a declaration */
#endif

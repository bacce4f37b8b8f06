#include "core/fault.h"

#ifdef POSTERN_FAULTS

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FAULTS_MAX = 16 };

struct fault {
    const char *name;
    int action;
    unsigned skip, count;
};

static struct fault faults[FAULTS_MAX];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

int fault_point(const char *name)
{
    int action = 0;
    pthread_mutex_lock(&mutex);
    for (struct fault *f = faults; f < faults + FAULTS_MAX && action == 0; f++) {
        if (f->name == NULL || f->count == 0 || strcmp(f->name, name) != 0)
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
        kill(getpid(), SIGKILL);
    return action;
}

void fault_set(const char *name, int action, unsigned skip, unsigned count)
{
    pthread_mutex_lock(&mutex);
    if (name == NULL)
        memset(faults, 0, sizeof faults);
    for (struct fault *f = faults; name && f < faults + FAULTS_MAX; f++) {
        if (f->name == NULL || f->count == 0) {
            *f = (struct fault){name, action, skip, count};
            break;
        }
    }
    pthread_mutex_unlock(&mutex);
}

int fault_parse(char *spec, struct err *e)
{
    static const struct {
        const char *name;
        int action;
    } actions[] = {{"kill", FAULT_KILL},
                   {"EIO", EIO},
                   {"ENOSPC", ENOSPC},
                   {"EROFS", EROFS},
                   {"EDQUOT", EDQUOT}};
    char *rest = spec, *name = strsep(&rest, ":"), *action = strsep(&rest, ":");
    for (size_t i = 0; action && i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(action, actions[i].name) == 0) {
            fault_set(name, actions[i].action, rest ? (unsigned)strtoul(rest, NULL, 10) : 0, 1);
            return 0;
        }
    }
    return err_set(e, "fault: expected NAME:ACTION[:SKIP] with a known action");
}

#else
typedef int fault_unused; /* ISO C wants a declaration */
#endif

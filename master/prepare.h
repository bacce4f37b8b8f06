/* What must be there before services start: directories with the right owners,
 * and the pid file that makes master one. */
#ifndef POSTERN_MASTER_PREPARE_H
#define POSTERN_MASTER_PREPARE_H

#include "master/plan.h"

struct pid_file {
    char *path;
    int fd; /* holds the lock */
};

/* Creates missing directories and repairs owners and modes (as root), saying so
 * in the log. */
int prepare_directories(const struct plan *plan, bool privileged, struct err *e);
/* Whether prepare_directories would refuse one that is there. Changes nothing. */
int prepare_check(const struct plan *plan, bool privileged, struct err *e);
/* Creates and locks pid_directory/master.pid. Fails if another master runs. */
int prepare_pid_file(struct pid_file *f, const struct config *config, struct err *e);
void prepare_remove_pid_file(struct pid_file *f);
/* As root: room for many thousand connections. */
void prepare_limits(void);
/* Warns of addresses to send from that are not the machine's: one may come later, with an
 * interface that is not up yet, so it is no reason not to take mail. */
void prepare_check_addresses(const struct plan *p);

#endif

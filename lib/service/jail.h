/* Takes away from a process everything that its service does not need. */
#ifndef POSTERN_SERVICE_JAIL_H
#define POSTERN_SERVICE_JAIL_H

#include "service/service.h"

/* Looks the user up and changes into the jail for good: chroot, user, no
 * capabilities, no new privileges, no core dumps, system call filter. Without
 * root (development) it keeps user and root directory. 0, or -1: then the
 * process must end, it may be half jailed. */
int jail_enter(const struct service_ops *ops, const struct config *config, struct err *e);
/* The system call filter alone. */
int jail_filter(bool network, bool threads, struct err *e);

#endif

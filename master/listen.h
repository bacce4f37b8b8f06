/* Listening sockets: opened by master, inherited by smtpd, kept over reloads. */
#ifndef POSTERN_MASTER_LISTEN_H
#define POSTERN_MASTER_LISTEN_H

#include "core/list.h"
#include "master/plan.h"

struct listener {
    struct list link;
    char text[64];
    int fd;
};

/* Fills `fresh` with a socket for each address of the plan; those that `current`
 * has are shared by duplication. On an error `fresh` is empty. An address family
 * that the system lacks is left out if the address is optional. */
int listen_open(struct list *fresh, const struct list *current, const struct plan *plan,
                struct err *e);
void listen_close(struct list *listeners);
/* The socket for an address, or -1. */
int listen_find(const struct list *listeners, const char *text);
/* The control socket: queue_directory/public/control. A descriptor, or -1. */
int listen_control(const struct plan *plan, bool privileged, struct err *e);
/* Takes its name away, at the end. */
void listen_remove_control(const struct plan *plan, bool privileged);

#endif

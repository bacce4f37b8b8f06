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
                bool privileged, struct err *e);
void listen_close(struct list *listeners);
/* The socket for an address, or -1. */
int listen_find(const struct list *listeners, const char *text);
/* Sockets in queue_directory/public that clients on this machine connect to. */
enum public_access {
    PUBLIC_GROUP,   /* root and control_group */
    PUBLIC_EVERYONE /* every local user */
};
/* Opens the socket of that name. A descriptor, or -1. */
int listen_public(const struct plan *plan, const char *name, enum public_access access,
                  bool privileged, struct err *e);
/* Takes the names of all of them away, at the end. */
void listen_remove_public(const struct plan *plan, bool privileged);

#endif

/*
 * A plan is everything that the configuration asks for, read and checked, with
 * nothing of the system changed yet: a start or a reload either has a whole
 * good plan or leaves things as they are.
 */
#ifndef POSTERN_MASTER_PLAN_H
#define POSTERN_MASTER_PLAN_H

#include <sys/socket.h>
#include <sys/types.h>

#include "conf/config.h"
#include "conf/master_cf.h"
#include "master/keys.h"
#include "service/service.h"

struct plan_address {
    struct sockaddr_storage address;
    socklen_t len;
    char text[64];           /* "127.0.0.1:25", "[::]:25", "unix:submit" */
    const char *public_name; /* a socket in queue_directory/public, or NULL */
    bool optional;           /* from all or loopback-only: a missing address family is no error */
};

struct plan_service {
    const struct master_cf_service *line;
    struct config *config; /* with the line's -o */
    unsigned processes;
    struct plan_address addresses[SERVICE_LISTENERS_MAX];
    unsigned address_count;
    struct service_tls *tls; /* of smtpd with TLS, or NULL */
};

struct plan {
    struct config *config;
    struct master_cf *master_cf;
    struct plan_service *services; /* one for each line of master_cf that is wanted */
    size_t count;
    uid_t queue_uid; /* as root: owner of the spool */
    uid_t quota_uid; /* the same of the accounts */
    gid_t control_gid;
};

/* Reads main.cf and master.cf of a directory and checks all there is to check
 * without changing anything. The caller frees with plan_free. */
struct plan *plan_load(const char *directory, bool privileged, struct err *e);
void plan_free(struct plan *p);
/* Whether a running master can change from one to the other. */
int plan_check_reload(const struct plan *from, const struct plan *to, struct err *e);

#endif

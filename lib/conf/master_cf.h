/*
 * master.cf: the services, in Postfix's columns
 *
 *   service type private unpriv chroot wakeup maxproc command [-o name=value]...
 *
 * service   inet: port, or host:port, [v6]:port; the port a number or a name;
 *           unix: a name; of smtpd: a socket in queue_directory/public
 * maxproc   number of processes; '-' is default_process_limit
 * private, unpriv, chroot, wakeup are checked and otherwise ignored: every
 * service of Postern is private, unprivileged and chrooted.
 *
 * qmgr, relay, resolve and bounce run whether or not they have a line; quota too
 * if accounts_enable is on, and otherwise not at all.
 */
#ifndef POSTERN_CONF_MASTER_CF_H
#define POSTERN_CONF_MASTER_CF_H

#include "core/err.h"
#include "core/slice.h"

enum {
    MASTER_CF_SERVICES_MAX = 64,
    MASTER_CF_NAME_MAX = 40,       /* of a unix service */
    MASTER_CF_OVERRIDES_MAX = 100, /* -o of one service */
    MASTER_CF_PROCESSES_MAX = 64   /* of one service */
};

/* A program that can be a service. */
struct command {
    const char *name; /* of the program */
    const char *user; /* that it runs as */
    bool inet;        /* it has listeners, inet or unix; otherwise it is internal */
    bool single;      /* exactly one process */
};
extern const struct command commands[];
extern const size_t command_count;
/* NULL if there is no such command. */
const struct command *command_find(struct slice name);

struct master_cf_service {
    char *name; /* first column */
    const struct command *command;
    char *host;       /* inet: address to listen on, or "" for inet_interfaces */
    unsigned port;    /* inet */
    bool local;       /* unix: of smtpd, its name is that of its socket */
    unsigned count;   /* of processes; 0: default_process_limit */
    char **overrides; /* "name=value" */
    size_t override_count;
    unsigned line; /* in master.cf; 0: built in */
    char *where;   /* "master.cf:12" or "built-in" */
};

struct master_cf {
    struct master_cf_service *services;
    size_t count;
};

/* Reads the file; the caller frees with master_cf_free. */
struct master_cf *master_cf_load(const char *path, struct err *e);
/* The same from memory; `file` goes into errors. */
struct master_cf *master_cf_parse(struct slice text, const char *file, struct err *e);
void master_cf_free(struct master_cf *m);

#endif

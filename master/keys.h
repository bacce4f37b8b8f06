/*
 * What TLS needs, on its way from files to processes: private keys to keyd,
 * certificates to smtpd, keys of session tickets to all smtpd processes of one
 * service. master reads the files at start and reload and when they change; it
 * keeps private keys in memory files only, for a keyd that is started again.
 */
#ifndef POSTERN_MASTER_KEYS_H
#define POSTERN_MASTER_KEYS_H

#include "certs/certs.h"
#include "io/tls.h"

struct master;
struct plan;
struct plan_service;
struct process;

/* Of a plan_service that speaks TLS. */
struct service_tls {
    struct certs certs; /* without the private keys, once they were taken over */
    int bundle;         /* memory file of ipc_tls_identity, or -1 */
    bool changing;      /* a file differed at the last look */
    char *error;        /* nothing could be read again, and why; NULL: no */
    int64_t told;       /* monotonic: when the log last said what is wrong with certificates */
};

/* A private key that was handed to keyd. */
struct key {
    unsigned char id[CERTS_KEY_ID];
    uint32_t number;
    int fd;          /* memory file with its PEM */
    bool wanted;     /* a present certificate has it */
    int64_t dropped; /* monotonic: since when it is not; sessions may still need it */
};

/* Tickets of a service, whose key changes. */
struct ticket_keys {
    char *service;
    struct tls_ticket_key list[TLS_TICKET_KEYS];
    size_t count;
    int64_t made; /* monotonic: the newest */
};

struct keys {
    struct key *list;
    size_t count;
    uint32_t next_number;
    struct ticket_keys *tickets;
    size_t ticket_count;
    uint32_t generation; /* of bundles */
    bool pending;        /* keyd has not confirmed all keys: bundles wait */
    uint32_t awaited;    /* number of the key that it has to confirm last */
};

/* Reads what a service's configuration names; NULL on an error. */
struct service_tls *keys_load(const struct config *config, struct err *e);
void keys_service_free(struct service_tls *t);
/* A plan is in effect: takes its private keys over and makes its bundles. */
void keys_adopt(struct master *m, struct plan *plan);
/* To a process that has just been started. */
void keys_send(struct process *p);
/* keyd has a key, or cannot use it. */
void keys_taken(struct master *m, uint32_t number, struct slice error);
/* Every second: changed files, ticket keys, keys that nobody needs any more. */
void keys_tick(struct master *m);

#endif

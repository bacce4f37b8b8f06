/*
 * The certificates and private keys that smtpd's parameters name, read and
 * checked: smtpd_tls_chain_files, smtpd_tls_cert_file and its like,
 * tls_server_sni_maps, smtpd_tls_CAfile. For whoever may read these files: master
 * and 'postern check'.
 */
#ifndef POSTERN_CERTS_CERTS_H
#define POSTERN_CERTS_CERTS_H

#include <sys/stat.h>
#include <time.h>

#include "conf/config.h"

enum {
    CERTS_FILE_MAX = 1 << 20,                /* bytes of one file */
    CERTS_TOTAL_MAX = 64 << 20,              /* of all certificates of a service */
    CERTS_KEY_ID = 32,                       /* SHA-256 of a public key */
    CERTS_FINGERPRINT = 3 * CERTS_KEY_ID - 1 /* letters of "AA:BB:..." */
};

struct certs_key {
    unsigned char id[CERTS_KEY_ID];
    char *pem; /* NULL once it was forgotten */
};

/* A certificate with its chain, for one name. */
struct certs_identity {
    char *name;  /* of SNI; "": for all other names */
    char *path;  /* of its file, for messages */
    char *table; /* of tls_server_sni_maps that names it, or NULL */
    char *chain; /* PEM */
    size_t key;  /* index in keys */
    time_t not_before, not_after;
};

/* A file that was read, to see when it changes. */
struct certs_file {
    char *path;
    struct stat seen;
};

struct certs {
    struct certs_identity *identities;
    struct certs_key *keys;
    struct certs_file *files;
    char **problems; /* what certs_renew could not use, in words, each with its file */
    size_t count, key_count, file_count, problem_count;
    size_t total;            /* bytes of all chains */
    char *authorities;       /* PEM, or NULL */
    const struct certs *old; /* while certs_renew reads */
    const char *table;       /* while a table is read: its path */
};

/* Whether a service with this configuration speaks TLS. */
bool certs_wanted(const struct config *config);
/* Reads and checks all of them: that each is there, belongs to its key, and that
 * nobody else can read the key (B85, B86). -1: the error names parameter or file
 * and says what to do; *c is empty. */
int certs_load(struct certs *c, const struct config *config, struct err *e);
/* The same for files that `old` was read from. One that cannot be used does not stand in the
 * way of the others: what old has from it is kept (its key without PEM, if that was
 * forgotten), a host name that is new goes without a certificate of its own, and
 * c->problems says so. The same holds for a line of tls_server_sni_maps; of a table that cannot
 * be read all names stay, with their files read again; and for smtpd_tls_CAfile. -1: the
 * certificates for all other names cannot be read, and nothing of old is there to be kept. */
int certs_renew(struct certs *c, const struct config *config, const struct certs *old,
                struct err *e);
void certs_free(struct certs *c);
/* The SHA-256 fingerprint of the first certificate in a PEM file, or of its public key,
 * which stays the same when the certificate is renewed for it. 0, or -1: the error names
 * the file. */
int certs_fingerprint(const char *path, bool of_key, char out[static CERTS_FINGERPRINT + 1],
                      struct err *e);
/* Wipes the private keys. */
void certs_forget_keys(struct certs *c);
/* Whether a file differs from what was read; sees a missing one as the same. */
bool certs_changed(const struct certs *c);

#endif

/* The lookup tables of transport_maps and smtp_tls_policy_maps, and the files of
 * certificate authorities: master opens them, services get descriptors; a changed
 * file is opened and handed over again. */
#ifndef POSTERN_MASTER_TABLES_H
#define POSTERN_MASTER_TABLES_H

#include <sys/stat.h>

#include "conf/config.h"
#include "core/buf.h"
#include "core/err.h"

enum {
    TABLES_MAX = 100,
    TABLE_SOCKETS_MAX = 16 * 1024 /* bytes of the paths of one table */
};

/* What a table is for. */
enum table_use {
    TABLE_TRANSPORT,   /* transport_maps; for resolve */
    TABLE_TLS_POLICY,  /* smtp_tls_policy_maps; for resolve */
    TABLE_AUTHORITIES, /* no table: a file or directory of certificate authorities, to be watched;
                        * see authorities.h for how they are handed over */
    TABLE_USES
};

struct table {
    enum table_use use;
    char *spec;         /* "texthash:/etc/postern/transport" */
    char *path;         /* NULL: the type has no file (inline, tcp, socketmap) */
    unsigned position;  /* in the parameter's list */
    struct stat seen;   /* of the file that was handed over last */
    struct stat latest; /* at the last look */
    bool missing;       /* it was reported as gone */
    struct buf sockets; /* UNIX sockets that its text names as next hops, one a line */
};

struct tables {
    struct table *list;
    size_t count;
};

/* The parameter's name. */
const char *table_parameter(enum table_use use);
/* Checks all lists: known types, files that can be read. */
int tables_check(const struct config *c, struct err *e);
/* Replaces the tables by those of a checked configuration. */
void tables_set(struct tables *t, const struct config *c);
void tables_free(struct tables *t);
/* Opens the table's file: a descriptor, or -1 with the reason. */
int table_open(struct table *t, struct err *e);
/* Whether a text table names this UNIX socket as a next hop. */
bool tables_name_socket(const struct tables *t, struct slice path);
/* Whether the file differs from the one that was opened last, and has kept still
 * since the look before: half a file is not handed over while it is being written.
 * Each difference is told once. */
bool table_changed(struct table *t);

#endif

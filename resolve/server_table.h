/*
 * Lookup tables that are servers (tcp:, socketmap:). They are asked for a whole
 * address, one question at a time on each of a few connections that master makes.
 * One that cannot be asked is left alone for a while, longer each time; what is
 * asked meanwhile fails at once. See service/remote.h.
 */
#ifndef POSTERN_RESOLVE_SERVER_TABLE_H
#define POSTERN_RESOLVE_SERVER_TABLE_H

#include "conf/table_server.h"
#include "service/remote.h"
#include "tables/table.h"

/* All of them. */
struct server_tables {
    struct remote_network network; /* base, connect and arg are the owner's to set */
    struct list list;              /* struct server_table */
    struct event *tick;
};

struct server_table {
    struct list link;
    char *spec;
    struct table_server where;
    struct remote remote;
};

/* One question; part of its owner. Zeroed: not asked. */
struct table_query {
    struct remote_query remote;
    struct server_table *table;
    /* FOUND: value; ERROR: why. Both are valid until this returns. */
    void (*answered)(struct table_query *q, enum table_result result, struct slice value,
                     const char *why);
};

/* all->network is set. */
int server_tables_init(struct server_tables *all, struct err *e);
/* Opens a table; nothing is sent. timeout in seconds. NULL and *e. */
struct server_table *server_table_open(struct server_tables *all, struct slice spec,
                                       int64_t timeout, struct err *e);
/* Its questions must be over. */
void server_table_close(struct server_table *t);
/* Asks; q->answered is called later, never from within. -1: such a key cannot be
 * in the table, and q is not asked. */
int server_table_ask(struct server_table *t, struct slice key, struct table_query *q);
/* The answer is not wanted any more. Harmless if it is not asked. */
void server_table_forget(struct table_query *q);
/* What master said to a request for a connection; takes over fd. */
void server_tables_connecting(struct server_tables *all, uint64_t tag, int fd, struct slice why);

#endif

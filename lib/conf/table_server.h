/*
 * Lookup tables that are servers, as Postfix's tcp_table(5) and
 * socketmap_table(5) write them:
 *
 *   tcp:ADDRESS:PORT
 *   socketmap:inet:ADDRESS:PORT:NAME
 *   socketmap:unix:PATH:NAME
 *
 * Both are asked for the whole address only: no parent domains, no "*".
 */
#ifndef POSTERN_CONF_TABLE_SERVER_H
#define POSTERN_CONF_TABLE_SERVER_H

#include "core/err.h"
#include "core/slice.h"

enum {
    TABLE_ENDPOINT_MAX = 160, /* bytes of "inet:..." or "unix:..." */
    TABLE_NAME_MAX = 128      /* bytes of a socketmap's name */
};

enum table_protocol { TABLE_TCP, TABLE_SOCKETMAP };

struct table_server {
    enum table_protocol protocol;
    char endpoint[TABLE_ENDPOINT_MAX + 1]; /* as conf/endpoint.h has it */
    char name[TABLE_NAME_MAX + 1];         /* of TABLE_SOCKETMAP */
};

/* Whether a table's "type:rest" is of such a type. */
bool table_is_server(struct slice spec);
/* Parses one. 0, or -1 and *e. */
int table_server_parse(struct slice spec, struct table_server *out, struct err *e);

#endif

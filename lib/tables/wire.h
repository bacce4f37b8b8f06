/*
 * The two protocols of tables that are servers; pure, no I/O.
 *
 *   tcp_table(5)        "get KEY\n" -> "200 VALUE\n", "500 text\n" (not there),
 *                       "400 text\n" (ask later); %XX for what is not printable
 *   socketmap_table(5)  netstrings: "NAME KEY" -> "OK VALUE", "NOTFOUND ",
 *                       "TEMP reason", "TIMEOUT reason", "PERM reason"
 */
#ifndef POSTERN_TABLES_WIRE_H
#define POSTERN_TABLES_WIRE_H

#include "tables/table.h"

enum {
    TCP_TABLE_LINE_MAX = 4096,    /* bytes of a line, its end included */
    SOCKETMAP_REPLY_MAX = 100000, /* bytes inside the netstring */
    TABLE_REPLY_MAX = SOCKETMAP_REPLY_MAX + 8
};

enum table_reply_status { TABLE_REPLY_MORE, TABLE_REPLY_DONE, TABLE_REPLY_BAD };

/* What a server says. */
struct table_reply {
    enum table_result result;
    struct slice text; /* FOUND: the value, still encoded for tcp; ERROR: the reason */
    size_t used;       /* bytes of the reply */
};

/* Appends a request. -1: it does not fit; such a key is in no table. */
int tcp_table_request(struct slice key, struct buf *out);
int socketmap_request(struct slice name, struct slice key, struct buf *out);

/* `in` is all that has come since the request. */
enum table_reply_status tcp_table_reply(struct slice in, struct table_reply *out);
enum table_reply_status socketmap_reply(struct slice in, struct table_reply *out);

/* Decodes %XX of a tcp table's value, whose reply was DONE. -1: it does not fit, or
 * is not encoded so. */
int tcp_table_decode(struct slice text, struct buf *value);

#endif

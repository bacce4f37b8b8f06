/*
 * Lookup tables in Postfix's "type:path" syntax.
 *
 *   texthash:FILE   "key value" lines, kept in memory; keys ignore case
 *   cdb:FILE        made by postmap or cdb(1); keys are stored in lower case
 *   pcre:FILE       "/pattern/flags result" with if, endif, ! and $1
 *   cidr:FILE       "network result" with if, endif and !; keys are addresses,
 *                   also written as [192.0.2.1] or [IPv6:2001:db8::1]
 *   inline:{ k=v, { k = value with spaces } }
 *
 * Files come as descriptors, because the services that use tables see no
 * files. A table is read only; when its file changes, open another.
 */
#ifndef POSTERN_TABLES_TABLE_H
#define POSTERN_TABLES_TABLE_H

#include "core/buf.h"
#include "core/err.h"

enum {
    TABLE_FILE_MAX = 256 * 1024 * 1024, /* bytes of a text file */
    TABLE_LINE_MAX = 64 * 1024,         /* bytes of a logical line */
    TABLE_KEY_MAX = 1024,               /* a longer key is never found */
    TABLE_VALUE_MAX = 64 * 1024,        /* bytes of a result, substitutions included */
    TABLE_RULES_MAX = 100000,           /* lines of a pcre or cidr table */
    TABLE_NESTING_MAX = 32,             /* if inside if */
    TABLE_PCRE_MATCH_LIMIT = 100000,    /* PCRE2's match limit for one pattern */
    TABLE_PCRE_DEPTH_LIMIT = 1000,
    TABLE_PCRE_HEAP_LIMIT = 1024 /* KiB */
};

enum table_result { TABLE_ERROR = -1, TABLE_NOT_FOUND, TABLE_FOUND };

struct table;

/* Opens a table; takes over fd in every case (-1 for inline:). NULL, with file
 * and line in *e where there is one. Keys that occur twice are logged; the
 * first one counts. */
struct table *table_open_fd(struct slice spec, int fd, struct err *e);
/* Looks up `key`, which may hold any byte. TABLE_FOUND: *value holds the result
 * (what was in it is dropped). TABLE_ERROR: the table cannot be read (*e); the
 * caller must not take that for "not there". */
enum table_result table_lookup(struct table *t, struct slice key, struct buf *value, struct err *e);
void table_close(struct table *t);

/* Whether results depend on patterns, so that any key may have its own. */
bool table_is_pattern(const struct table *t);
/* Whether the table holds a key "something@domain"; domain in lower case.
 * Always true of a pattern table. */
bool table_has_address_in(const struct table *t, struct slice domain);
/* "type:path" as given to table_open_fd. */
const char *table_spec(const struct table *t);

/* The next "type:path" of a list: separated by commas and white space, except
 * inside braces. */
bool table_list_next(struct slice *list, struct slice *spec);

#endif

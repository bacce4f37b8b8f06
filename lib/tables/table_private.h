/* What the kinds of tables share; not for users of tables. */
#ifndef POSTERN_TABLES_TABLE_PRIVATE_H
#define POSTERN_TABLES_TABLE_PRIVATE_H

#include "core/map.h"
#include "tables/table.h"

struct table_kind {
    const char *name;
    bool needs_file, pattern;
    /* Fills t->private_; t->path and fd are set. On error what was made is
     * released by `close`, which must take a half-opened table. */
    int (*open)(struct table *t, int fd, struct err *e);
    /* key is folded to lower case unless the kind is a pattern. */
    enum table_result (*lookup)(struct table *t, struct slice key, struct buf *value,
                                struct err *e);
    void (*close)(struct table *t);
};

struct table {
    const struct table_kind *kind;
    char *spec;
    struct slice path; /* what follows "type:" in spec */
    void *private_;
    struct map address_domains; /* of char *: domains of keys with an '@' */
};

extern const struct table_kind table_texthash, table_inline, table_cdb, table_pcre, table_cidr;

/* Remembers the domain of a key that is an address. */
void table_note_key(struct table *t, struct slice key);
/* ASCII upper case to lower case, in place. */
void table_fold(char *s, size_t len);
/* Whole file into *out; closes fd. NUL bytes are refused. */
int table_read_file(struct table *t, int fd, struct buf *out, struct err *e);

/* Logical lines as in all of Postfix's tables: empty lines and those that start
 * with '#' do not count, a line that starts with white space continues the one
 * before. */
struct table_lines {
    struct slice rest;
    unsigned next, line; /* physical numbers: next to be read; of the line returned */
    struct buf text;
    struct table *table;
};
void table_lines_init(struct table_lines *l, struct table *t, struct slice content);
/* 1: l->text holds a line, trimmed; 0: end; -1: too long. */
int table_lines_next(struct table_lines *l, struct err *e);
void table_lines_free(struct table_lines *l);
/* Whether a line begins with this word, such as if; case does not count. */
bool table_keyword(struct slice line, struct slice word);

#endif

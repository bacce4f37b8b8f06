/*
 * Logical lines of a Postfix-style .cf file: comments and empty lines are
 * skipped, a line that begins with white space continues the one before it.
 */
#ifndef POSTERN_CONF_CF_LINES_H
#define POSTERN_CONF_CF_LINES_H

#include "core/buf.h"
#include "core/err.h"

enum {
    CF_LINE_MAX = 64 * 1024,       /* bytes of a logical line */
    CF_FILE_MAX = 8 * 1024 * 1024, /* bytes of a file */
};

struct cf_reader {
    struct slice rest;
    const char *file;  /* for errors: "main.cf" */
    unsigned line;     /* lines taken so far */
    unsigned start;    /* first line of the logical line returned last */
    struct buf joined; /* that logical line */
};

void cf_open(struct cf_reader *r, const char *file, struct slice text);
/* The next logical line, trimmed; valid until the next call. 1, 0 at the end,
 * or -1: a NUL or control byte, a line that is too long (B84). */
int cf_next(struct cf_reader *r, struct slice *line, struct err *e);
void cf_close(struct cf_reader *r);

/* Reads a whole .cf file into `out` (its max is set here). When run as root,
 * one that group or others may write is refused (B85). */
int cf_read_file(const char *path, struct buf *out, struct err *e);
/* The same check for another configuration file, e.g. a lookup table's. */
int cf_check_owner(int fd, const char *path, struct err *e);

#endif

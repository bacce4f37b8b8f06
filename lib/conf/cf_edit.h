/*
 * Changes parameters in the text of a main.cf, as `postconf -e`, `-X` and `-#` do, and
 * leaves all else as its author wrote it: order, comments, empty lines. Pure: text in,
 * text out.
 */
#ifndef POSTERN_CONF_CF_EDIT_H
#define POSTERN_CONF_CF_EDIT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/buf.h"
#include "core/err.h"

enum { CF_CHANGES_MAX = 1000 }; /* of one call */

enum cf_change_kind {
    CF_SET,    /* "name = value" in place of its first line, or at the end */
    CF_REMOVE, /* its lines go */
    CF_COMMENT /* they become comments */
};

struct cf_change {
    enum cf_change_kind kind;
    struct slice name, value;
};

/* "name=value" with white space round both, or for CF_REMOVE and CF_COMMENT a name: the
 * change that it asks for, which borrows from `text`; -1 and what is wrong with it. */
int cf_change_parse(struct cf_change *out, enum cf_change_kind kind, struct slice text,
                    struct err *e);
/* Appends the changed text to `out`. Of changes of one name the last counts. Comments
 * between the lines of a parameter stay. -1: the text would be too long for `out`. */
int cf_edit(struct slice text, const struct cf_change *changes, size_t count, struct buf *out,
            struct err *e);

#endif

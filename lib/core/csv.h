/* A field of CSV (RFC 4180), for spreadsheets. */
#ifndef POSTERN_CORE_CSV_H
#define POSTERN_CORE_CSV_H

#include "core/buf.h"

/* Appends the text in quotes, and a comma or (last) CRLF. Control bytes become spaces;
 * what a spreadsheet would take for a formula gets an apostrophe before it: texts of
 * strangers stand in such files. -1 if there is no room: then part of it is there. */
int csv_add(struct buf *out, struct slice text, bool last);

#endif

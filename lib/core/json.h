/* Writes JSON into a buffer: commas and escapes are looked after. Bytes that
 * are not UTF-8 become U+FFFD, so that the output always parses. */
#ifndef POSTERN_CORE_JSON_H
#define POSTERN_CORE_JSON_H

#include "core/buf.h"

/* Starts an object, inside a list or at the top. (Not json_object: jansson has
 * a function of that name, and the two would meet in one program.) */
void json_begin(struct buf *b);
void json_end(struct buf *b);
/* Starts a list; name is NULL inside another list. */
void json_list(struct buf *b, const char *name);
void json_list_end(struct buf *b);
/* "name": { */
void json_member(struct buf *b, const char *name);
/* "name": value; a NULL name writes the value alone, inside a list. */
void json_str(struct buf *b, const char *name, struct slice value);
void json_int(struct buf *b, const char *name, int64_t value);
void json_bool(struct buf *b, const char *name, bool value);
/* Seconds with microseconds, from microseconds. */
void json_seconds(struct buf *b, const char *name, int64_t microseconds);
/* A value that is JSON already. */
void json_raw(struct buf *b, const char *name, struct slice json);

#endif

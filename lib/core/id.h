/*
 * Queue IDs, in the shape of Postfix's long ones so that log tools know them:
 * 6 characters of seconds and 4 of microseconds in base 52 (digits and
 * consonants of both cases), 'z', then 4 that tell IDs of one microsecond
 * apart, in base 51. 15 characters; they sort by time. A notice's ID is its
 * original's with two characters more (kind and number), so that making the
 * same notice twice gives the same ID.
 *
 * An ID is a file name in the spool: id_valid is the grammar of such names.
 */
#ifndef POSTERN_CORE_ID_H
#define POSTERN_CORE_ID_H

#include <stdbool.h>
#include <stdint.h>

#include "core/slice.h"

enum { ID_LEN = 15, ID_NOTICE_LEN = 17, ID_MAX = 17 };

struct id {
    char text[ID_MAX + 1]; /* NUL-terminated, NUL-padded to the end */
};

/* A new ID for a message that arrives now. Unique within the process even if
 * the clock steps back (F31); between processes by a random start of the last
 * part. qmgr refuses an ID that exists. */
struct id id_new(void);
/* The ID of the n-th (0..50) notice of `kind` ('F'ailure, 'D'elay, 'S'uccess)
 * about a message. `original` is an id_new one. */
struct id id_notice(const struct id *original, char kind, unsigned n);
bool id_valid(struct slice s);
/* Copies a valid ID; 0, or -1 if it is not one. */
int id_parse(struct slice s, struct id *out);
/* Wall seconds at which the ID was made. */
int64_t id_time(const struct id *id);
static inline struct slice id_slice(const struct id *id)
{
    return slice_str(id->text);
}

#endif

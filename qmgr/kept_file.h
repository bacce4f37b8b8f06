/*
 * A file in the spool's directory that keeps what must outlive a restart: a JSON object a line,
 * and a checksum as the last line, so that what is read is whole. It is written as a whole and
 * by a thread (writing.h) when it is behind; a writing that failed is done again after a while.
 * Where there may be much, its text is made in slices, one in each turn.
 */
#ifndef POSTERN_QMGR_KEPT_FILE_H
#define POSTERN_QMGR_KEPT_FILE_H

#include <jansson.h>

#include "qmgr/writing.h"

struct qmgr;

enum { KEPT_FILE_MAX = 64 * 1024 * 1024 };

/* All zero at first but for the name and `put`. */
struct kept_file {
    struct writing writing;
    /* Appends all the lines (`first`), or some milliseconds' worth of them: true, and it is called
     * again in the next turn for those that follow. */
    bool (*put)(struct qmgr *q, struct buf *out, bool first);
    struct buf *text; /* of the file while it is made; else NULL */
    bool too_long;    /* it is not written, and that was said */
    bool dirty;       /* the file is behind; set by who keeps something in it */
    int64_t save_at;  /* monotonic: not before */
    int64_t pause;    /* microseconds between the beginnings of two writings, at least */
};

/* Reads the file, in the spool's directory, and has each object taken; those for which `take`
 * returns -1 are skipped, with a warning. A file that cannot be read, or is damaged and was kept
 * aside as NAME.damaged, is logged after `lost`, which says what is not known then. */
void kept_file_load(struct kept_file *k, struct qmgr *q,
                    int (*take)(struct qmgr *q, const json_t *o), const char *lost);
/* Writes it if it is behind and its time has come; each turn. */
void kept_file_turn(struct kept_file *k, struct qmgr *q);
/* When kept_file_turn has something to do, monotonic; INT64_MAX: nothing. */
int64_t kept_file_due(const struct kept_file *k, const struct qmgr *q);
/* Writes it if it is behind, whatever its time, and waits. */
void kept_file_stop(struct kept_file *k, struct qmgr *q);
/* Appends the last line. */
void kept_file_add_sum(struct buf *text);

/* A member of an object: a text of at most `max` bytes, borrowed from it; NULL: there is none, or
 * it is longer. */
const char *kept_text(const json_t *o, const char *name, size_t max);
/* A member that json_seconds wrote, in microseconds; 0 if it is not there. -1: no clock says so. */
int kept_time(const json_t *o, const char *name, int64_t *out);

/* What is left at the loading of a time that ends at `until`, as far as it was `written`; wall
 * microseconds. The clock may have been set since: set back, it does not become longer. */
int64_t kept_left(int64_t until, int64_t written);

#endif

/*
 * What was learned about destinations, from one source and over all, kept over restarts, exported
 * and imported: the file "shaping.learned" in the spool.
 *
 * A first line that names the format, one learned_encode object a line, and a last line
 * with their number and a checksum of all before it. It is written anew, made durable and
 * renamed, so a crash leaves the old one. One that is damaged or cannot be read is renamed to
 * "shaping.learned.damaged", with a line in the log, and everything is learned anew.
 */
#ifndef POSTERN_QMGR_MEMORY_H
#define POSTERN_QMGR_MEMORY_H

#include "qmgr/qmgr.h"

enum {
    MEMORY_ENTRIES_MAX = 200000,         /* that are kept without a lane; further ones are lost */
    MEMORY_FILE_MAX = 512 * 1024 * 1024, /* bytes; a larger file is damaged, and none is made */
    MEMORY_SAVE_SECONDS = 300
};

void memory_init(struct qmgr *q);
/* Reads the file, if there is one; in the spool directory, with the spool locked. */
void memory_load(struct qmgr *q);
/* Saves it now and then, in slices; a thread waits for the disk. */
void memory_turn(struct qmgr *q);
/* When memory_turn has something to do, monotonic. */
int64_t memory_due(const struct qmgr *q);
/* Something has changed that a crash must not lose: it is saved within seconds. */
void memory_soon(struct qmgr *q);
/* Saves it, and waits: at the end. */
void memory_stop(struct qmgr *q);
/* Gives a new lane what is known about it: by its group and source, or else by the
 * destination's name, for its addresses may have changed. */
void memory_recall(struct qmgr *q, struct lane *l);
/* Keeps what a lane has learned: it goes. */
void memory_keep(struct qmgr *q, const struct lane *l);
/* The same for limits over all sources (whole.h). An entry of them has "all" for a source. */
struct whole;
void memory_recall_whole(struct qmgr *q, struct whole *w);
void memory_keep_whole(struct qmgr *q, const struct whole *w);
bool memory_describe_whole(const struct whole *w, struct buf *out);
/* Whether something is known about all sources of a group without a provider: else it has no
 * such limits until a rule speaks of them. */
bool memory_knows_whole(const struct qmgr *q, const struct group *g);
/* Appends what a lane has learned (learned_encode); false: nothing that is worth it. */
bool memory_describe(const struct qmgr *q, const struct lane *l, struct buf *out);
/* The same for what is kept without a lane, one after the other: begin with *cursor = 0;
 * false: at the end. The memory must not change meanwhile. */
bool memory_next(const struct qmgr *q, size_t *cursor, struct buf *out);
/* Takes over such an object, as if it had been learned here. 0, or -1 and nothing was
 * taken. */
int memory_accept(struct qmgr *q, struct slice object, struct err *e);
/* After that: gives the lanes that are there what is about them, if it is newer than what they
 * know. Returns how many of those that were accepted were older than what was known, and left. */
size_t memory_apply(struct qmgr *q);

#endif

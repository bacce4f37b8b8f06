/*
 * A file in the spool's directory that is written anew as a whole, by a thread: the loop
 * never waits for the disk. It is replaced by renaming, after an fsync.
 */
#ifndef POSTERN_QMGR_WRITING_H
#define POSTERN_QMGR_WRITING_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/buf.h"
#include "core/err.h"

enum { FILE_READ_STEP = 65536 }; /* bytes of room that file_read_whole wants beyond the file */
/* Appends all of a file to *out, as far as its max. 0; 1: there is none; -1 with *e. */
int file_read_whole(const char *name, struct buf *out, struct err *e);
/* Renames a file that is of no use to NAME.damaged, so that it is not overwritten: appends to
 * what *e says of it whether that worked. Returns -1. */
int file_keep_aside(const char *name, struct err *e);
/* Replaces a file, by way of NAME.new, and syncs it. 0, or -1 with *e. Takes its time. */
int file_replace(const char *name, struct slice text, struct err *e);

/* One writing at a time. All zero at first but for the name. */
struct writing {
    const char *name; /* of the file */
    struct buf text;
    pthread_t thread;
    bool running, complained;
    bool failed; /* the last one: the file is behind */
    atomic_bool finished;
    struct err error;
};

/* An empty buffer for at most so many bytes, the whole file. Nothing may be running. */
struct buf *writing_begin(struct writing *w, size_t max);
/* Starts to write what is in it. */
void writing_start(struct writing *w);
/* Whether it is under way. One that has ended is looked after: a failure is logged once. With
 * `wait`: only when it has ended. */
bool writing_runs(struct writing *w, bool wait);

#endif

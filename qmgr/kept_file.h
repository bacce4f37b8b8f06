/*
 * A file in the spool's directory that is written anew as a whole, by a thread: the loop
 * never waits for the disk. It is replaced by renaming, after an fsync, and ends with a
 * checksum, so that what is read is whole.
 */
#ifndef POSTERN_QMGR_KEPT_FILE_H
#define POSTERN_QMGR_KEPT_FILE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/buf.h"
#include "core/err.h"

enum { KEPT_FILE_MAX = 64 * 1024 * 1024 };

struct kept_file {
    const char *name; /* of the file */
    struct buf text;
    pthread_t thread;
    bool running, complained;
    bool failed; /* the last writing: the file is behind */
    atomic_bool finished;
    struct err error;
};

/* Appends all of a file to *out, as far as its max. 0; 1: there is none; -1 with *e. */
int file_read_whole(const char *name, struct buf *out, struct err *e);
/* Replaces a file, by way of NAME.new, and syncs it. 0, or -1 with *e. Takes its time. */
int file_replace(const char *name, struct slice text, struct err *e);

/* Appends the file's lines to *out. 0; 1: there is none; -1 with *e: it cannot be read, or
 * is damaged and was kept aside as NAME.damaged. */
int kept_file_read(const char *name, struct buf *out, struct err *e);
/* An empty buffer for the lines. Nothing may be running. */
struct buf *kept_file_begin(struct kept_file *k);
/* Starts to write them. */
void kept_file_save(struct kept_file *k);
/* Whether a writing is under way. One that has ended is looked after: a failure is logged
 * once. With `wait`: only when it has ended. */
bool kept_file_busy(struct kept_file *k, bool wait);

#endif

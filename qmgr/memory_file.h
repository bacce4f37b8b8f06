/* The file of memory.h: its format, reading, and a thread that writes it. */
#ifndef POSTERN_QMGR_MEMORY_FILE_H
#define POSTERN_QMGR_MEMORY_FILE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/buf.h"
#include "core/err.h"

#define MEMORY_FILE "shaping.learned"

/* Calls `entry` for each. 0; 1: there is no file; -1: it is damaged, was kept aside, and
 * `entry` was not called. */
int memory_file_read(void (*entry)(struct slice object, void *arg), void *arg, struct err *e);
/* What comes before the entries and after them. */
void memory_file_begin(struct buf *out);
void memory_file_end(struct buf *out, size_t entries);

/* One writing of the file at a time. All zero at first. */
struct saving {
    struct buf text;
    pthread_t thread;
    bool running;
    atomic_bool finished;
    struct err error;
    bool failed, complained;
};
/* An empty buffer for the whole file; nothing may be running. */
struct buf *saving_buffer(struct saving *s);
/* Writes what is in it. */
void saving_start(struct saving *s);
/* Ends what has finished, and says if it failed; with `wait` waits for it. */
void saving_done(struct saving *s, bool wait);

#endif

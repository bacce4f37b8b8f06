/*
 * Inside the store. Three kinds of code, told apart by their thread:
 *
 *   store.c         the event loop's: the calls of store.h, start and stop
 *   store_loop.c      operations on their way, completions
 *   store_disk.c    the disk thread's: takes operations in order, owns names
 *   store_commit.c    and descriptors; group commit
 *   store_files.c     free files, quarantine
 *   store_buckets.c   the directories of new/
 *   store_spare.c     free files that are made ahead, or are too many
 *   store_nursery.c   where files are made
 *   store_dirty.c     marks, records, what has to be durable within a second
 *   store_journal.h small messages, before they need a file
 *   store_flight.c  threads that sync a batch while the next one is written
 *   store_sync.c    helpers that fsync side by side
 *   store_read.c    threads that read messages back
 *   store_scan.c    a thread that reads all of new/ once
 *
 * Only the disk thread changes names, so no lock protects them; the others send
 * it operations. Threads never log: texts travel to the loop as completions.
 */
#ifndef POSTERN_QMGR_STORE_INTERNAL_H
#define POSTERN_QMGR_STORE_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "core/map.h"
#include "qmgr/store.h"
#include "qmgr/store_journal.h"
#include "qmgr/store_limits.h"

enum op_kind {
    OP_COMMIT,
    OP_LARGE_CREATE,
    OP_LARGE_ABORT,
    OP_MARK,
    OP_RECORD,
    OP_FINISH,
    OP_UNLOAD,
    OP_SYNC,
    OP_READ,
    OP_LOAD,
    OP_RETIRE,     /* from the scan: a file of another message, to free/ */
    OP_QUARANTINE, /* from scan and reader: to corrupt/ */
    OP_FOUND,      /* completions only, from here on: a batch of the scan */
    OP_SCANNED,
    OP_LOG,
    OP_STATE
};

struct message_image;

/* An operation on its way from the loop to a thread and back. */
struct op {
    struct list link;
    enum op_kind kind;
    struct id id;
    struct store_ref ref; /* as it was at the call */
    char *error;          /* NULL, or why it failed; owned */
    int source;           /* READ, LOAD: the bytes of the message's file; -1: it has one */
    bool from_ring;       /* there was a source */
    void *arg;
    union {
        struct {
            struct store_commit *c;
            int code;
            bool presynced; /* large: the body is durable, or op->error is set */
            bool check;     /* the scan is not over: a file of this ID may exist */
            bool journal;   /* it is in the journal, not in a file */
            uint32_t bucket;
            int fd;
            struct store_ref ref;
        } commit;
        struct {
            void (*done)(int fd, const char *error, int code, void *arg);
            int fd, code;
        } create;
        struct {
            uint32_t recipient;
            char status;
        } mark;
        struct {
            void (*done)(const char *error, void *arg);
        } sync;
        struct {
            void (*done)(const char *error, void *arg);
            int fd;    /* being synced, see dirty; -1: it has no file */
            bool ring; /* the journal has it, too */
        } record;      /* bytes holds it */
        struct {
            void (*done)(struct slice prefix, struct slice body, const char *error, void *arg);
            uint64_t limit;
            size_t prefix_len;
            bool damaged;
        } read; /* bytes gets the content */
        struct {
            void (*done)(const struct store_found *found, const char *error, void *arg);
            struct message_image *image;
            uint64_t shift; /* see struct shift */
            bool damaged;
        } load;
        struct {
            ino_t inode;
            bool silent;
        } bad;
        struct {
            struct list images;
        } found;
        struct {
            uint64_t messages, quarantined;
        } scanned;
        int state;
    } u;
    struct buf bytes;
};

/* A message as it was read from its file: one allocation with all its bytes. */
struct message_image {
    struct list link;
    bool ring; /* it is in the journal, not in new/ */
    struct store_found found;
    struct spool_envelope envelope;
    char bytes[];
};

/* ---- helpers that fsync side by side -------------------------------------- */

struct sync_job {
    int fd;
    int error; /* errno, or 0 */
};

struct sync_pool {
    pthread_mutex_t mutex;
    pthread_cond_t work, finished;
    struct sync_job *jobs;
    size_t count, next, done;
    struct list large; /* commits whose body is made durable beforehand */
    bool stop;
    unsigned thread_count;
    pthread_t *threads;
    struct store *store;
};

/* ---- a batch that is being synced ------------------------------------------ */

enum flight_state { FLIGHT_IDLE, FLIGHT_FLYING, FLIGHT_LANDED };

/* The batch is its thread's while it is FLYING, all else the disk thread's. */
struct flight {
    struct store *store;
    pthread_t thread;
    pthread_cond_t start;
    enum flight_state state;    /* under the store's mutex */
    bool away;                  /* not IDLE */
    bool failed;                /* its operations are not completed */
    int64_t took;               /* of the syncfs, microseconds */
    int fd, ring;               /* new/ and the journal (or -1), opened for this thread: the kernel
                                 * tells an error once to each descriptor */
    bool whole;                 /* the file system is synced, not just the journal */
    struct journal_point point; /* of the journal, that becomes durable */
    generation_t generation;    /* its sync makes these and all before durable */
    struct op **batch;
    size_t count, commits, capacity;
    struct id *records; /* whose records are in it */
    size_t record_count, record_capacity;
};

/* ---- the disk thread's state ---------------------------------------------- */

struct bucket {
    uint32_t number;
    int fd;
    bool in_batch; /* commits wait for its fsync */
    uint32_t freed_count;
    generation_t changed; /* when a name in it changed last */
    struct list freed;    /* files that left it, not yet durably, oldest first: not to be
                           * overwritten */
    struct list link;     /* in dirty_buckets while names in it are not durable */
};

struct free_file {
    struct list link;
    uint32_t number;    /* its name in free/, or in the nursery */
    int fd;             /* or -1 */
    bool nursed;        /* it was made in the nursery and is still there */
    generation_t freed; /* when it left its bucket */
};

/* A file with marks or records that are not durable yet. */
struct dirty {
    struct list link; /* of dirty_order */
    struct id id;
    int fd;
    bool owned; /* opened for this; otherwise the message's cached one */
    generation_t changed;
};

/* Bytes of records that could not be written: the message's later records
 * move down by as much, so that the list has no hole. */
struct shift {
    struct id id;
    uint64_t bytes;
};

/* See store_nursery.c. */
struct nursery {
    int fd; /* journal/made.NUMBER, or -1: files are made in free/ itself */
    uint32_t number, made;
    int64_t spent, stay_until; /* monotonic */
};

struct disk {
    int new_fd, free_fd, tmp_fd, corrupt_fd;
    struct journal journal;
    struct nursery nursery;
    struct map buckets;
    struct list dirty_buckets;
    struct bucket *last_bucket;
    bool new_dirty;           /* a bucket was made or removed... */
    generation_t new_changed; /* ...then, last */
    generation_t generation;  /* stamp of the changes that are made now */
    generation_t durable;     /* all up to this one are durable */
    struct list ready;        /* free files that may be overwritten */
    struct list doomed;       /* free files that may only be removed */
    uint32_t free_count, next_number;
    uint32_t *numbers; /* names that are not in use */
    size_t number_count, number_capacity;
    struct map dirty, shifts;
    struct list dirty_order;                        /* of the entries of dirty, by `changed` */
    struct op **batch;                              /* commits, and records with a callback */
    size_t batch_count, batch_commits, batch_files; /* files: that need more than the journal */
    size_t batch_capacity;
    struct sync_job *jobs;
    size_t job_capacity;
    struct buf scratch, trailer;
    struct flight flights[STORE_FLIGHTS + 1];
    bool syncfs_reports; /* the kernel tells of failed writes (since 5.8) */
    int64_t syncfs_after, syncfs_pause;
    bool no_spares;      /* one could not be made */
    bool changes_failed; /* of messages, since OP_SYNC was carried out last */
    bool doubtful;       /* a sync of the whole failed: until each file was asked, nothing that was
                          * written before counts as durable */
    int64_t now, dirty_since, next_tick, next_sweep, last_commit, last_finish;
    int state;
    bool bad; /* latched */
};

struct store {
    /* the loop's */
    struct event_base *base;
    struct store_ops ops;
    void *arg;
    struct event *wake, *submit;
    struct list outbox;
    uint64_t outstanding; /* operations whose completion has not come */
    int state;
    struct map recent; /* IDs committed while the scan has not ended */
    bool scan_over, closing;

    /* shared under the mutex */
    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct list inbox, donebox;
    bool idle, stop, notified, flights_over;
    unsigned landed; /* flights whose end the disk thread has not seen */

    int event_fd;
    struct store_config config;
    atomic_uint_fast64_t stat_bytes, stat_inodes, stat_batches, stat_committed;
    atomic_uint_fast64_t yield_bytes, yield_files; /* see store_yield */
    atomic_uint stat_free, stat_open, stat_sources;

    struct disk disk;
    struct sync_pool sync;
    pthread_t disk_thread, read_threads[STORE_READERS], scan_thread;
    unsigned reader_count;
    bool scan_started;
    atomic_bool scan_stop;

    pthread_mutex_t read_mutex;
    pthread_cond_t read_work;
    struct list read_queue;
    unsigned read_count; /* in it */
    bool read_stop;

    pthread_mutex_t scan_mutex;
    pthread_cond_t scan_room;
    unsigned scan_batches;
};

/* store.c */
/* The loop knows this message: the scan need not tell of it. */
void store_remember(struct store *s, const struct id *id);

/* store_loop.c */
/* Takes completions and calls back. */
void store_on_done(evutil_socket_t fd, short what, void *store);
/* for all threads: */
struct op *op_new(enum op_kind kind, const struct id *id, const struct store_ref *ref);
void op_free(struct op *op);
/* Sets op->error, if it is not set yet. */
void op_fail(struct op *op, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Hands a list of operations to the disk thread; leaves the list empty. */
void store_inject(struct store *s, struct list *ops);
void store_inject_one(struct store *s, struct op *op);
/* Sends operations back to the loop; leaves the list empty. */
void store_complete(struct store *s, struct list *ops);
void store_complete_one(struct store *s, struct op *op);
/* A line for the log. An error asks for an operator's attention. */
void store_say(struct store *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint32_t store_bucket_of(const struct id *id);
void store_path(char path[STORE_PATH_MAX], uint32_t bucket, const struct id *id);
int64_t store_now(void);

/* store_disk.c */
void *disk_main(void *store);
void disk_set_state(struct store *s, int state, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A failed operation on the disk that no message can be blamed for: latches
 * SPOOL_BAD. */
void disk_bad(struct store *s, int error, const char *what);

/* Whether this errno value says nothing of the disk: what failed is tried again. */
static inline bool store_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM;
}

/* Whether this kernel's syncfs can be trusted. */
void disk_ask_kernel(struct store *s);
/* Whether syncfs may be used: the device's cache is then flushed once for a batch
 * instead of once for each file. */
bool disk_may_syncfs(const struct store *s);
/* One took that long: if others write much to this file system, files are synced
 * one by one for a while. */
void disk_syncfs_took(struct store *s, int64_t us);
/* Makes everything durable at once; false: it has to be synced one by one. */
bool disk_sync_whole(struct store *s);
/* Operations or landed flights wait for the disk thread. */
bool disk_is_wanted(struct store *s);
/* A sync begins: ends the generation, which it returns, but for the files whose descriptors
 * the records of the batch are still to be synced by. */
generation_t disk_next_generation(struct store *s);
/* All changes up to this generation are durable. */
void disk_durable(struct store *s, generation_t generation);

/* store_files.c */
int files_open(struct store *s, struct err *e);
void files_close(struct store *s);
/* Forgets free files of a list, which stay where they are. */
void files_drop(struct store *s, struct list *files);
/* Makes an empty file with a new name, in the nursery if there is one, and sets number and
 * fd; -1 and errno. */
int file_make(struct store *s, struct free_file *f);
/* A file to write into: recycled or made. -1 and errno. */
struct free_file *file_take(struct store *s);
/* The directory that its name is in. */
int file_directory(const struct store *s, const struct free_file *f);
/* Nothing was done with it, or its message failed: to the ready ones in free/; false: it
 * could not get there and is gone. */
bool file_give_back(struct store *s, struct free_file *f);
/* The file was renamed into new/ and its number is unused again; returns
 * its descriptor, which is the caller's. */
int file_used(struct store *s, struct free_file *f);
/* new/BUCKET/ID becomes a free file, or is unlinked. fd: cached, or -1. */
void file_retire(struct store *s, const struct id *id, uint32_t bucket, int fd, bool unlink_it);
void file_quarantine(struct store *s, const struct op *op);
/* Removes up to `most` files that wait for reuse, as long as more than `keep` are free and
 * `us` are not over; first those that must not be reused, whatever `keep` is. */
void files_trim(struct store *s, uint32_t keep, uint32_t most, int64_t us);
/* Whether there are any that it may remove. */
bool files_removable(const struct store *s);
/* Nothing that is ready is ever overwritten: it is removed when there is time. */
void files_doom(struct store *s);
void store_fd_opened(struct store *s);
void store_fd_close(struct store *s, int fd);

/* store_buckets.c */
void buckets_init(struct store *s);
void buckets_close(struct store *s);
struct bucket *bucket_get(struct store *s, uint32_t number, bool make);
/* A name in it changed. */
void bucket_changed(struct store *s, struct bucket *b);
/* fsyncs new/ if needed and the dirty buckets (all, or those that commits wait
 * for and those with many freed files); 0, or an errno value. */
int buckets_sync(struct store *s, bool all);
/* All names up to this generation are durable by other means. */
void buckets_durable(struct store *s, generation_t generation);
void buckets_sweep(struct store *s);

/* store_spare.c */
/* Whether files are to be made ahead of need; makes some, durably. */
bool files_want_spares(const struct store *s);
void files_make_spares(struct store *s);
/* Whether there are too many free files and time to remove some; removes some. */
bool files_surplus(const struct store *s);
void files_remove_surplus(struct store *s);
/* Once a tick: some of what is too many goes, whatever else there is to do. */
void files_tick(struct store *s);

/* store_nursery.c */
/* Makes an empty file NAME and opens it; *nursed: in the nursery, else in free/. -1 and
 * errno. The nursery stays where it is until the next call. */
int nursery_create(struct store *s, const char *name, bool *nursed);
/* journal/NAME, if it is a nursery of an earlier process, is removed; -1 and errno. */
int nursery_sweep(struct store *s, const char *name);
void nursery_close(struct store *s);

/* store_dirty.c */
void dirty_mark(struct store *s, struct op *op);
void dirty_record(struct store *s, struct op *op);
/* The message is over, or its file is another one now. May sync the batch, if that has a
 * record of this message. */
void dirty_forget(struct store *s, const struct id *id);
/* Bytes of the message's records that could not be written. */
uint64_t dirty_shifted(const struct store *s, const struct id *id);
/* The cached descriptor is given back: closes it, now or after its fsync. */
void dirty_unload(struct store *s, const struct id *id, int fd);
/* All that waits becomes durable. */
void dirty_sync(struct store *s);
/* The same while a sweep takes long: file by file, without those of which the journal has
 * all. */
void dirty_sync_beside(struct store *s);
bool dirty_any(const struct store *s);
/* Begins to make durable what waits, if that is more than the journal; false: dirty_sync has
 * to do it. */
bool dirty_sweep(struct store *s);
/* The message's descriptor stays open until a sync that begins later is over. */
void dirty_wait(struct store *s, const struct id *id);
/* All that was changed up to this generation is durable by other means. */
void dirty_durable(struct store *s, generation_t generation);

/* store_commit.c */
/* Writes the message and gives it its name; the rest happens in batch_sync. */
void commit_write(struct store *s, struct op *op);
void batch_add(struct store *s, struct op *op);
/* Starts to make the batch durable, or leaves it for when a flight has landed. */
void batch_send(struct store *s);
/* Returns when the batch and all flights are durable, or have failed. */
void batch_sync(struct store *s);
/* The same without waiting for a sweep. */
void batch_sync_beside(struct store *s);
/* As batch_sync, file by file. */
void batch_sync_each(struct store *s);
/* It has failed with this errno value: no message of it was taken. */
void batch_failed(struct store *s, struct op **batch, size_t count, int error);
/* Whether a record of this message's file waits in the batch or in a flight. */
bool batch_has(const struct store *s, const struct id *id);
/* The batch is durable: puts its operations on a list to be completed. Any thread. */
void batch_succeeded(struct store *s, struct op **batch, size_t count, struct list *done);
/* The journal's block goes into the ring; what of the batch cannot leaves it, refused. */
void batch_write_journal(struct store *s);
/* pwrite of all; 0 or an errno value. */
int write_all(int fd, struct slice bytes, uint64_t at);

/* store_flight.c */
int flights_open(struct store *s, struct err *e);
void flights_close(struct store *s);
/* Sends the batch off; false: all are flying. */
bool flight_start(struct store *s);
/* Begins to make all that was changed durable, while batches go on; false: it cannot, as
 * one is under way or syncfs may not be used. */
bool flight_sweep(struct store *s);
/* One is under way. */
bool flight_sweeps(const struct store *s);
/* Sees to the flights that have landed; the operations of those that failed join
 * the batch, which then has to be synced file by file: true. */
bool flights_land(struct store *s);
/* As flights_land, after waiting for all. */
bool flights_wait(struct store *s);
/* The same for those that have a batch, */
bool flights_wait_batches(struct store *s);
/* and until a batch can be sent off. */
bool flights_wait_for_one(struct store *s);
bool flights_have(const struct store *s, const struct id *id);

/* store_sync.c */
int sync_open(struct store *s, unsigned threads, struct err *e);
void sync_close(struct sync_pool *p);
/* fsyncs all of them; returns how many failed. */
size_t sync_run(struct sync_pool *p, struct sync_job *jobs, size_t count);
/* Makes a large message's body durable, then hands the commit back to the disk
 * thread. */
void sync_large(struct sync_pool *p, struct op *op);

/* store_read.c */
void *read_main(void *store);
void read_queue(struct store *s, struct op *op);
/* Reads all but the content of a message from its file. GOOD: *out is set and
 * the caller frees it. err->number is not 0 for an error that is the disk's. */
enum spool_verdict image_read(int fd, const struct id *expected, const struct stat *st,
                              struct message_image **out, struct err *e);
/* What makes a file one of ours: regular, one name, our own. */
int file_kind_check(const struct stat *st, struct err *e);

/* store_scan.c */
void *scan_main(void *store);

#endif

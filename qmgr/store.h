/*
 * The spool on disk, as qmgr's event loop sees it: every call returns at once,
 * the disk is touched by the store's threads, completions come back as
 * callbacks on the loop. Format of a file: lib/spool/format.h. Order of
 * durability and crash argument: doc/ARCHITECTURE.md.
 *
 *   new/BUCKET/ID   messages; a bucket is a directory for a span of time
 *   tmp/ID          large messages that are being received
 *   free/N          finished files that will be overwritten
 *   corrupt/        quarantined files, never deleted
 *   journal/ring    small messages of the last seconds, before they get a file
 *
 * Operations on one message are carried out in the order of the calls. They
 * copy what they need, so a message may be freed right after its last call,
 * except while a call with a callback is under way on it.
 *
 * Paths are relative to the working directory: qmgr is chrooted into the spool
 * (or has changed to it when it runs unprivileged).
 */
#ifndef POSTERN_QMGR_STORE_H
#define POSTERN_QMGR_STORE_H

#include <event2/event.h>

#include "core/buf.h"
#include "core/err.h"
#include "core/id.h"
#include "core/list.h"
#include "spool/format.h"

struct store;

struct store_config {
    unsigned sync_threads;  /* that fsync side by side */
    unsigned batch_max;     /* messages in one group commit */
    uint64_t journal_size;  /* bytes of journal/ring; 0: each message gets a file at once */
    unsigned free_max;      /* recycled files kept */
    unsigned surplus_max;   /* finished files beyond those that wait to be removed until there is
                             * time for it; more are removed at once */
    unsigned spare_files;   /* made ahead while there is nothing to do; at most free_max */
    unsigned open_max;      /* descriptors that may stay open */
    uint64_t reserve_bytes; /* below this much free space the state is SPOOL_FULL */
    uint64_t reserve_inodes;
};

/* Where a message's file is: small, and embedded in the message. Filled by the
 * store; the owner treats it as opaque. */
struct store_ref {
    uint32_t bucket;
    int32_t fd;         /* cached, or -1 */
    uint64_t status_at; /* offset of the recipients' status bytes */
    uint32_t prefix_len;
    uint64_t body_at;     /* offset of the body (without the prefix) */
    uint64_t body_len;    /* without the prefix */
    uint64_t records_end; /* where the next record is appended */
    bool large;           /* a fresh file, unlinked at the end, never recycled */
};

/* A message read back by the scan or by store_load. Slices are valid until the
 * callback returns. */
struct store_found {
    struct id id;
    struct store_ref ref;
    const struct spool_envelope *envelope;
    const char *status;   /* envelope->recipient_count bytes: enum spool_status */
    struct slice records; /* walk with spool_record_next */
    int64_t file_time;    /* mtime, wall microseconds */
};

struct store_ops {
    /* One message found by the scan, in no particular order. */
    void (*found)(const struct store_found *m, void *arg);
    /* The scan is over; counts of what it saw. */
    void (*scanned)(uint64_t messages, uint64_t quarantined, void *arg);
    /* The state (enum spool_state of ipc.h: SPOOL_OK, SPOOL_FULL, SPOOL_BAD)
     * changed; `why` is a sentence for the log, already logged. */
    void (*state)(int state, const char *why, void *arg);
    /* store_read or store_load found this message's file damaged and moved it
     * to corrupt/ (logged): its ref is void. Called right before their `done`.
     * May be NULL. */
    void (*quarantined)(const struct id *id, const char *why, void *arg);
};

/* Checks and makes the directories, sweeps tmp/, starts the threads. The
 * working directory is the spool. 0 and *out, or -1. */
int store_open(struct event_base *base, const struct store_config *config,
               const struct store_ops *ops, void *arg, struct store **out, struct err *e);
/* Completes what was called, then frees. Blocks; for an orderly stop. */
void store_close(struct store *s);
int store_state(const struct store *s);
/* Whether corrupt/ has a file of this name. Looks at the directory: for questions that are
 * seldom asked. */
bool store_is_quarantined(const struct store *s, struct slice id);
/* Starts the scan of new/ in slices, on a thread; mail may be committed
 * meanwhile and is not reported. */
void store_scan(struct store *s);

/* ---- taking a message ----------------------------------------------------- */

struct store_commit {
    struct list link; /* the store's */
    struct id id;
    struct spool_envelope envelope; /* its slices stay valid until `done` */
    struct slice prefix, body;      /* likewise; body is empty for a large message */
    int large_fd;                   /* from store_large_create, taken over; -1: small */
    uint64_t large_len, large_sum;
    bool replace; /* a notice made again: replaces a file of this ID */
    /* Called on the loop when the message is durable (error NULL; ref is set)
     * or has left no trace (error says why, code is 451 or 452). */
    void (*done)(struct store_commit *c, const char *error, int code, void *arg);
    void *arg;
    struct store_ref ref;
};
void store_commit(struct store *s, struct store_commit *c);

/* Creates tmp/ID (on a thread) and calls back with a descriptor open for
 * reading and writing that belongs to the callee, or -1 and the error. Pass
 * only a write-only duplicate on (store_large_writer). */
void store_large_create(struct store *s, const struct id *id,
                        void (*done)(int fd, const char *error, int code, void *arg), void *arg);
/* A write-only descriptor for tmp/ID at the offset where the body begins. */
int store_large_writer(struct store *s, const struct id *id, struct err *e);
/* Closes fd (may be -1) and removes tmp/ID. */
void store_large_abort(struct store *s, const struct id *id, int fd);

/* ---- a message's later life ----------------------------------------------- */

/* Sets one recipient's status byte in place. Durable within a second. */
void store_mark(struct store *s, const struct id *id, struct store_ref *ref, uint32_t recipient,
                enum spool_status status);
/* Appends a record (spool_record_encode). With `done`, it is called when the
 * record is durable (NULL) or could not be written (the error). */
void store_record(struct store *s, const struct id *id, struct store_ref *ref, struct slice record,
                  void (*done)(const char *error, void *arg), void *arg);
/* Calls back when all that was called before is durable (NULL), or with the error:
 * something that was called since the last time may be lost when the power fails. */
void store_sync(struct store *s, void (*done)(const char *error, void *arg), void *arg);
/* The message will not be worked on for a while (deferred, held): gives its
 * cached descriptor back. Optional; ref stays good. Not while a read or load is
 * under way on it. */
void store_unload(struct store *s, const struct id *id, struct store_ref *ref);
/* The message is over: the file goes to free/, or is unlinked if it is large.
 * ref is void afterwards. Durable within a second. Not while a read or load is
 * under way on it. */
void store_finish(struct store *s, const struct id *id, struct store_ref *ref);
/* Reads prefix and body (at most `limit` bytes of it) and checks the checksum
 * when all was read. content is valid until the callback returns. On an error
 * content is empty. B77: a checksum that fails quarantines the file, and the
 * error says so. */
void store_read(struct store *s, const struct id *id, const struct store_ref *ref, uint64_t limit,
                void (*done)(struct slice prefix, struct slice body, const char *error, void *arg),
                void *arg);
/* Reads envelope, status and records of a message again; found is NULL on an
 * error. */
void store_load(struct store *s, const struct id *id, const struct store_ref *ref,
                void (*done)(const struct store_found *found, const char *error, void *arg),
                void *arg);
/* A read-only descriptor of a large message's file, for relay; -1 on error.
 * Only for ref->large. Synchronous: an open of an existing file. */
int store_reader(struct store *s, const struct id *id, const struct store_ref *ref, struct err *e);

/* So many bytes and files of what is in the spool may go as soon as they are needed,
 * and count as free for SPOOL_FULL. Whoever says so watches store_stats, and
 * finishes messages when the disk has less than the reserve. */
void store_yield(struct store *s, uint64_t bytes, uint64_t files);
/* What the disk says: free bytes and inodes, files in free/, pending work. */
struct store_stats {
    uint64_t bytes_free, inodes_free, pending, batches, committed;
    uint32_t free_files, open_files;
};
void store_stats(const struct store *s, struct store_stats *out);

#endif

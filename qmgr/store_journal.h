/*
 * The journal: where a small message is made durable, at the price of one write
 * and one flush for the whole batch. Most messages are delivered a moment later
 * and never get a file. Those that stay (deferred, held, waiting for more than a
 * few seconds, or when the ring fills) get files of their own, many at a time. Format
 * of the ring: lib/spool/journal.h; why a crash loses nothing:
 * doc/spool-crash-argument.md. Runs on the disk thread; journal_open before it.
 *
 *   store_ring.c     the ring: blocks, superblock, room
 *   store_journal.c  the messages in it, from taking to their end
 *   store_journal_files.c  those that get a file
 *   store_replay.c   start and stop
 *
 * One rule carries it: until FILED is durable in the ring, the ring has all of a
 * message, its bytes and every change of them, and a file of it is only a copy that
 * no start believes.
 */
#ifndef POSTERN_QMGR_STORE_JOURNAL_H
#define POSTERN_QMGR_STORE_JOURNAL_H

#include "core/buf.h"
#include "core/err.h"
#include "core/id.h"
#include "core/list.h"
#include "core/map.h"
#include "spool/journal.h"

struct store;

/* Every change is stamped with the generation in which it was made. A sync begins
 * a new one, and when it is over, all that bears an earlier stamp is durable. */
typedef uint64_t generation_t;

enum kept_state {
    KEPT_WAITING, /* in the ring only */
    KEPT_FILED,   /* it has a file, which is not durable yet */
    KEPT_SAFE     /* its file is durable; here until FILED is, too */
};

/* A message that is in the ring. */
struct kept {
    struct list order;   /* those that the ring must not lose, by position */
    struct list stage;   /* waiting, filed, noting or safe */
    struct list pending; /* what is to be noted of it found no room yet */
    struct id id;
    enum kept_state state;
    bool over;          /* finished; here until that is noted, and its file durably gone */
    bool noted;         /* OVER is in a block */
    bool written;       /* its block is in the ring */
    bool synced;        /* its file is durable, but for the name */
    uint64_t block, at; /* positions of its block and of its bytes; `at` is relative to
                         * the block until that is written */
    uint32_t len;
    int fd;             /* of its file, if that is to be synced by itself; or -1 */
    generation_t stamp; /* FILED: when the file was written, or left new/; SAFE: when
                         * FILED was written */
    int64_t since;
    struct buf changes; /* each with a length before it, as a CHANGE holds it */
    size_t changes_noted;
};

struct journal {
    int fd, dir;      /* of journal/ring, or -1: there is none; of journal/ */
    bool apart;       /* journal/ is on another file system than new/ */
    bool closed;      /* nothing is taken any more, what is there goes */
    uint64_t size;    /* of the ring */
    uint64_t head;    /* where the next block goes */
    uint64_t tail;    /* durable: blocks before it are not looked at */
    uint64_t durable; /* all before it is */
    uint64_t tail_written, turn, key;
    bool lost;          /* a sync of it failed: none is tried again */
    int unreadable;     /* errno value of a block that could not be read at the start */
    int broken;         /* errno value: nothing may be written to it */
    int64_t rest_until; /* no file is made before this, after one could not be */
    bool told;          /* that messages cannot get files */
    bool starved;       /* told: of descriptors */
    struct buf block;   /* the next one */
    struct buf scratch, record;
    struct map kept; /* all, by ID */
    struct list order, waiting, filed, noting, safe, pending;
    unsigned fd_count;    /* of struct kept.fd */
    struct list found;    /* images of messages that got no file at the start */
    bool unsynced;        /* something was written... */
    generation_t changed; /* ...then, last */
};

/* What of the ring a sync that begins now makes durable. */
struct journal_point {
    uint64_t tail, head;
};

/* ---- for the rest of the store ------------------------------------------------------- */

void journal_init(struct store *s);
/* Opens or makes the ring; what an earlier process left in it gets files in new/, or,
 * where these cannot be made, stays and is told to the loop by the scan. -1: the
 * ring is not a file of ours. */
int journal_open(struct store *s, struct err *e);
void journal_close(struct store *s);
/* Takes a message, as the bytes of its file; false: it has to get a file at once. It
 * is in the ring after journal_write. */
bool journal_commit(struct store *s, const struct id *id, struct slice bytes);
/* Whether the ring has this message, or has not yet heard of its end. */
bool journal_has(const struct store *s, const struct id *id);
/* Whether the message's block is in the ring. */
bool journal_is_written(const struct store *s, const struct id *id);
/* Whether the message has no file. */
bool journal_only(const struct store *s, const struct id *id);
/* Writes what has gathered into the ring; 0 or an errno value: then it is still there,
 * and the next call tries again. */
int journal_write(struct store *s);
/* Bytes of the message's file change, or are added behind it: *ring is set if the
 * journal had to hear of that, and did. With `must` that may fail: an errno value;
 * otherwise it is noted later. */
int journal_change(struct store *s, const struct id *id, struct slice bytes, uint64_t at, bool must,
                   bool *ring);
/* The message is over, as far as the journal goes; true if it had no file. */
bool journal_finish(struct store *s, const struct id *id);
/* Sees that the message has a file, if it is in the journal; 0 or an errno value. */
int journal_file(struct store *s, const struct id *id);
/* The bytes of a message that has no file, as a descriptor for a reader, counted in
 * stat_sources; -1: it has one, or errno is not 0. */
int journal_source(struct store *s, const struct id *id);
/* More than half of the ring is in use: files have to become durable soon. */
bool journal_pressed(const struct store *s);
bool journal_unsynced(const struct store *s);
/* Whether files of messages are not durable yet. */
bool journal_files_wait(const struct store *s);
struct journal_point journal_point(const struct store *s);
/* When the oldest message is to get a file; INT64_MAX: there is none. */
int64_t journal_due(const struct store *s);
/* Files what has waited long enough, and moves the tail on. */
void journal_tick(struct store *s);
/* fsyncs the files that were written and are not durable; 0 or an errno value. After a
 * shortage (store_shortage) some are left for the next call. */
int journal_sync_files(struct store *s);
/* Files written up to this generation are durable. */
void journal_durable(struct store *s, generation_t generation);
/* What was written to the ring up to this generation and point is durable. */
void journal_synced(struct store *s, generation_t generation, struct journal_point point);
/* A sync of the ring failed: latches SPOOL_BAD. */
void journal_lost(struct store *s, int error);
/* At the end: everything gets a file. */
void journal_settle(struct store *s);

/* ---- store_ring.c -------------------------------------------------------------------- */

/* Adds a record to the block that is next to be written; *at is where its bytes are in
 * it. 0, or an errno value: ENOSPC if the ring has no room, of which messages leave
 * some for the others. What was added finds room when the block is written. */
int ring_add(struct store *s, enum journal_type type, const struct id *id, struct slice bytes,
             uint64_t *at);
/* Writes the block; 0 or an errno value. */
int ring_write(struct store *s);
/* The message's bytes; 0 or an errno value. */
int ring_read(struct store *s, const struct kept *k, struct buf *out);
/* The sound block at this position, read into j->block; 0, or -1 if there is none. */
int ring_read_block(struct journal *j, uint64_t position, struct journal_block *block);
/* From here on the ring counts. */
uint64_t ring_tail(const struct journal *j);
/* Writes the superblock; 0 or an errno value. */
int ring_write_super(struct store *s, uint64_t tail);
/* A new ring, empty, instead of any that is there; 0, or an errno value and there is
 * none. */
int ring_make(struct store *s, uint64_t size);
uint64_t ring_random_key(void);

/* ---- store_journal.c ----------------------------------------------------------------- */

struct kept *kept_add(struct journal *j, const struct id *id, uint64_t at, size_t len);
void kept_free(struct journal *j, struct kept *k);
/* NULL: the journal does not have it. */
struct kept *kept_find(const struct store *s, const struct id *id);
/* Closes the descriptor of its file, if there is one. */
void kept_drop_fd(struct store *s, struct kept *k);
/* Takes the next of its changes off *rest, which begins as its `changes`; false: that was
 * all. */
bool kept_next_change(struct slice *rest, struct slice *change);
/* Remembers a change that was noted already. -1: more than a message may have. */
int kept_changed(struct kept *k, struct slice change);
/* Tells the ring what it does not know yet: that the message is over, or has a file, or
 * else what of it changed. Then it may be gone. 0 or an errno value. */
int kept_note(struct store *s, struct kept *k);
/* The block was written at this position. */
void kept_written(struct store *s, uint64_t position);

/* ---- store_journal_files.c ----------------------------------------------------------- */

/* Writes the message into a file of its own, whatever has its name if `replace`; 0 or an
 * errno value. */
int kept_file(struct store *s, struct kept *k, bool replace);

#endif

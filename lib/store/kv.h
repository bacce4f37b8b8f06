/*
 * A small transactional store of keys and values in named tables, each sorted
 * by key: what the accounts need of a database, so that another one can take its
 * place. This backend is Berkeley DB with write-ahead log and page checksums.
 *
 * The directory belongs to one process:
 *   db/        the database and its log since the last snapshot
 *   snapshot/  a copy of the database (kv_snapshot); with the log in db/ it gives
 *              everything back, also when a file of db/ is damaged
 *   damaged-N/ a database that was damaged and rebuilt
 *   db.new/, db.ready/, snapshot.new/, snapshot.old/  only while one of them is made
 *
 * All calls block on the disk. Any thread may call; writes come from one thread
 * at a time.
 */
#ifndef POSTERN_STORE_KV_H
#define POSTERN_STORE_KV_H

#include "core/buf.h"
#include "core/err.h"

enum {
    KV_TABLES_MAX = 32,
    KV_KEY_MAX = 1024,
    KV_VALUE_MAX = 1024 * 1024,
    KV_BATCH_MAX = 64 * 1024 * 1024
};

struct kv;

struct kv_config {
    const char *directory;
    /* Names of files; a table's number is its place here. A later program adds its tables at the
     * end: kv_open makes those that the database has not had before (db/tables lists them). */
    const char *const *tables;
    unsigned table_count;
    unsigned unlisted_tables; /* the first of them, that databases without that list have */
    uint64_t cache_bytes;     /* of pages in memory */
    /* Called again and again while kv_open recovers or rebuilds, which can take minutes: a
     * sign that it goes on. May be NULL. */
    void (*alive)(void *arg);
    void *arg;
};

/* How kv_open found the database. */
enum kv_condition {
    KV_SOUND,   /* as it was, or after the usual recovery from its log */
    KV_CREATED, /* there was none */
    KV_REBUILT  /* it was damaged: put together again from snapshot and log */
};

/* Opens or makes the database, recovering what the log has of it. A damaged one (one that
 * does not open, or in which an earlier process met a damaged page) is rebuilt from the
 * snapshot, or from nothing, and the log. NULL and why: after damage that they cannot repair,
 * *e says what to do; a full disk, or a lack of descriptors, memory or rights, is no damage,
 * and nothing was changed. With KV_REBUILT *e tells what was wrong. */
struct kv *kv_open(const struct kv_config *c, enum kv_condition *condition, struct err *e);
void kv_close(struct kv *kv);

/* Replaces *value; 1 if the key is there, 0 if not, -1 on an error. */
int kv_get(struct kv *kv, unsigned table, struct slice key, struct buf *value, struct err *e);
/* Replaces *key and *value by the last entry that is not behind `most`; 1, 0 if there is none,
 * -1 on an error. */
int kv_last(struct kv *kv, unsigned table, struct slice most, struct buf *key, struct buf *value,
            struct err *e);
/* Calls `each` for every key from `from` on, in order, until it returns false.
 * 0 or -1. */
int kv_walk(struct kv *kv, unsigned table, struct slice from,
            bool (*each)(struct slice key, struct slice value, void *arg), void *arg,
            struct err *e);

/* Changes are gathered in a buffer (BUF_INIT(KV_BATCH_MAX)) and made together:
 * all or none. A later change of the same key wins. -1 if it does not fit. */
int kv_put(struct buf *batch, unsigned table, struct slice key, struct slice value);
int kv_remove(struct buf *batch, unsigned table, struct slice key);
/* The tables that a batch changes: a bit for each number. */
uint32_t kv_tables_of(struct slice batch);
/* One change of a batch; its slices point into that. */
struct kv_change {
    unsigned table;
    bool removed;
    struct slice key, value;
};
/* Takes the first change off a batch; false if there is none left. */
bool kv_next_change(struct slice *batch, struct kv_change *out);
/* Makes the changes in one transaction. They are seen at once and durable after
 * the next kv_sync, in order. 0 or -1 (nothing was changed). */
int kv_apply(struct kv *kv, struct slice batch, struct err *e);
int kv_sync(struct kv *kv, struct err *e);

/* Whether what kv_open found in db/ is a snapshot that was put in its place by hand: it is older
 * than what it was about. True at each start until kv_restored_noted, which the caller calls when
 * what follows from it is durable; 0 or -1. */
bool kv_is_restored(const struct kv *kv);
int kv_restored_noted(struct kv *kv, struct err *e);

/* Writes changed pages back so that a start is quick. */
int kv_checkpoint(struct kv *kv, struct err *e);
/* A consistent copy in snapshot/, made while others work, checked and durable; then the log
 * that it replaces is removed. On an error the snapshot before stays. */
int kv_snapshot(struct kv *kv, struct err *e);
/* Bytes of log since the last snapshot. */
uint64_t kv_log_bytes(struct kv *kv);
/* The database has failed in a way that only a new start can repair: kv_open rebuilds what
 * was found to be damaged. */
bool kv_failed(const struct kv *kv);

#endif

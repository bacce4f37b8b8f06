/* The inside of the Berkeley DB backend. */
#ifndef POSTERN_STORE_KV_PRIVATE_H
#define POSTERN_STORE_KV_PRIVATE_H

#include <db.h>
#include <stdatomic.h>

#include "store/kv.h"

enum { KV_DIRECTORY_MAX = 2048, KV_PATH_MAX = KV_DIRECTORY_MAX + 512 };

struct kv {
    char *directory;
    DB_ENV *env;
    DB *tables[KV_TABLES_MAX];
    unsigned count;
    atomic_bool failed;
    char said[256]; /* by Berkeley DB about its last error */
};

/* Fills *e with what failed and what Berkeley DB said of it; returns -1. */
int kv_fail(struct kv *kv, int rc, const char *what, struct err *e);
/* Opens environment and tables; `fatal`: recovery of everything the log has. On
 * an error the caller calls kv_close_environment. */
int kv_open_environment(struct kv *kv, const struct kv_config *c, bool fatal, struct err *e);
void kv_close_environment(struct kv *kv);
/* Puts the database together again from snapshot and log; *e holds what was wrong
 * with it, and tells that on success and the way out otherwise. (kv_snapshot.c) */
int kv_rebuild(struct kv *kv, const struct kv_config *c, struct err *e);
/* Where a rebuilt database is put together, in the directory of all. */
#define KV_FRESH "db.new"
/* Gives a rebuilt database that a crash left beside its place that place, or removes one that
 * may not be whole; true if db/ is the rebuilt one now. */
bool kv_finish_rebuild(const struct kv *kv, const char *db);

#endif

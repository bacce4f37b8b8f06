/* The inside of the Berkeley DB backend. */
#ifndef POSTERN_STORE_KV_PRIVATE_H
#define POSTERN_STORE_KV_PRIVATE_H

#include <db.h>
#include <stdatomic.h>

#include "store/kv.h"

enum { KV_DIRECTORY_MAX = 2048, KV_PATH_MAX = KV_DIRECTORY_MAX + 512 };

struct kv {
    char *directory;
    const struct kv_config *config; /* while kv_open runs */
    DB_ENV *env;
    DB *tables[KV_TABLES_MAX];
    unsigned count;
    bool restored; /* KV_COPY is in db/ */
    atomic_bool failed;
    atomic_int panicked; /* the error that made Berkeley DB give up, or 0 */
    char said[256];      /* by Berkeley DB about its last error */
};

/* ---- kv.c ---- */

/* Fills *e with what failed and what Berkeley DB said of it; returns -1. */
int kv_fail(struct kv *kv, int rc, const char *what, struct err *e);
/* Whether an error of Berkeley DB says that a file is damaged: not one that a full disk or a
 * lack of descriptors, memory or rights explains. */
bool kv_is_damage(const struct kv *kv, int rc);
/* Nothing is written any more: after a failed write of the log Berkeley DB itself would go on
 * and write pages whose log is missing. `rc`: why. */
void kv_break(struct kv *kv, int rc);
enum kv_recovery {
    KV_RECOVER,     /* from the log's last checkpoint */
    KV_RECOVER_FULL /* tables of a snapshot: everything that the log has */
};
/* Opens environment and tables of a directory ("db"). 0, or the error of Berkeley DB with *e
 * filled: then the caller calls kv_close_environment. */
int kv_open_environment(struct kv *kv, const char *name, enum kv_recovery how, struct err *e);
void kv_close_environment(struct kv *kv);
/* Tells whoever opens the database that it goes on. */
void kv_alive(const struct kv *kv);

/* ---- kv_files.c: names are of files in kv's directory; a missing directory is empty ---- */

void kv_path(const struct kv *kv, const char *name, char out[static KV_DIRECTORY_MAX]);
bool kv_exists(const struct kv *kv, const char *name);
bool kv_is_log(const char *name);
bool kv_is_table(const char *name);
/* Calls `each` for the files of a directory that `wanted` picks, until it returns -1. */
int kv_each_file(const char *directory, bool (*wanted)(const char *name),
                 int (*each)(const char *directory, const char *name, void *arg, struct err *e),
                 void *arg, struct err *e);
int kv_remove_file(const char *directory, const char *name, void *arg, struct err *e);
int kv_remove_directory(const struct kv *kv, const char *name, struct err *e);
/* Makes a directory's entries durable; "" is kv's own. */
int kv_sync_directory(const struct kv *kv, const char *name, struct err *e);
/* The same with the files in it. */
int kv_sync_files(const struct kv *kv, const char *name, struct err *e);
/* The same for its log alone. */
int kv_sync_log(const struct kv *kv, const char *name, struct err *e);
/* Copies the files that `wanted` picks, except those that are there, durably. */
int kv_copy_files(const struct kv *kv, const char *from, const char *to,
                  bool (*wanted)(const char *name), struct err *e);
/* Replaces a file in a directory by this text, durably. */
int kv_write_file(const struct kv *kv, const char *directory, const char *name, struct slice text,
                  struct err *e);
/* Replaces *out by a file's text; false if there is none. */
bool kv_read_file(const struct kv *kv, const char *directory, const char *name, struct buf *out);

/* ---- kv_rebuild.c ---- */

#define KV_DAMAGED "damaged" /* a file in db/: what was found to be damaged */
#define KV_COPY "snapshot"   /* a file in snapshot/, and in db/ where that took its place */
#define KV_TABLES "tables"   /* the same: names of the tables that db/ had when it was opened */

/* A start finds a database where a crash may have left it between two names. 0: there is none
 * yet, 1: there is one, 2: and it has just taken the place of a damaged one; -1: it is missing,
 * and *e says what to do. */
int kv_settle(struct kv *kv, struct err *e);
/* Puts the database together again from snapshot and log and opens it; *e holds what was wrong
 * with it, and tells that on success and the way out otherwise. */
int kv_rebuild(struct kv *kv, struct err *e);
bool kv_can_rebuild(const struct kv *kv);
/* Remembers that db/ is damaged, so that the next kv_open rebuilds it; only if it can be. */
void kv_mark_damaged(struct kv *kv, const char *what);

#endif

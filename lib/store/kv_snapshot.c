/*
 * Snapshots. snapshot/ holds a copy of the tables and the log files that belong to it; db/
 * keeps every log file from the oldest of those on. So the tables of the snapshot and the log
 * of db/ are together a whole database up to its last durable change, whatever happened to
 * the tables in db/ (kv_rebuild.c). Before the first snapshot db/ keeps all of its log, which
 * gives the same without any table.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/fault.h"
#include "core/mem.h"
#include "store/kv_private.h"

enum {
    CHECK_CACHE = 1024 * 1024,
    ATTEMPTS = 2 /* of a copy that has a damaged page: is it the page, or was it the copy? */
};

/* Removes these log files: Berkeley DB itself needs none before its last checkpoint, and a
 * rebuild none before the one that the snapshot begins with. */
static int drop_log(const struct kv *kv, const char *name, char *const *files, struct err *e)
{
    char directory[KV_DIRECTORY_MAX];
    kv_path(kv, name, directory);
    for (; *files; files++)
        if (kv_remove_file(directory, *files, NULL, e) < 0)
            return -1;
    return 0;
}

static int copy_database(struct kv *kv, char ***old_log, struct err *e)
{
    char fresh[KV_DIRECTORY_MAX];
    kv_path(kv, "snapshot.new", fresh);
    int rc = kv->env->txn_checkpoint(kv->env, 0, 0, DB_FORCE);
    if (rc)
        kv_break(kv, rc);
    if (rc == 0)
        rc = kv->env->log_archive(kv->env, old_log, 0);
    if (rc == 0)
        rc = kv->env->backup(kv->env, fresh, DB_CREATE);
    if (rc == 0)
        rc = fault_point("kv.snapshot");
    return rc ? kv_fail(kv, rc, "cannot make a snapshot", e) : 0;
}

/* ---- checking one ------------------------------------------------------------ */

static void no_words(const DB_ENV *env, const char *prefix, const char *message)
{
    (void)env, (void)prefix, (void)message;
}

/* Reads every page by itself, which compares its checksum. What pages say of each other is
 * not looked at: they were copied while others changed, and the log puts that right. */
static int read_pages(DB *db)
{
    DB_MPOOLFILE *file = db->get_mpf(db);
    db_pgno_t last = 0;
    int rc = file->get_last_pgno(file, &last);
    for (db_pgno_t page = 0; rc == 0 && page <= last; page++) {
        void *content;
        rc = file->get(file, &page, NULL, 0, &content);
        if (rc == 0)
            rc = file->put(file, content, DB_PRIORITY_VERY_LOW, 0);
    }
    return rc;
}

static int check_table(const char *directory, const char *name, void *arg, struct err *e)
{
    char path[KV_PATH_MAX];
    DB *db;
    (void)arg;
    snprintf(path, sizeof path, "%.*s/%s", KV_DIRECTORY_MAX, directory, name);
    int rc = db_create(&db, NULL, 0);
    if (rc)
        return err_set(e, "%s: cannot be checked: %s", path, db_strerror(rc));
    db->set_errcall(db, no_words);
    rc = db->set_cachesize(db, 0, CHECK_CACHE, 1);
    if (rc == 0)
        rc = db->open(db, NULL, path, NULL, DB_BTREE, DB_RDONLY, 0);
    if (rc == 0)
        rc = read_pages(db);
    (void)db->close(db, DB_NOSYNC);
    if (rc == 0)
        return 0;
    err_set(e, "%s: %s", path, db_strerror(rc));
    e->number = rc;
    return -1;
}

/* 0; -1: the copy has a page that does not fit its checksum; -2: it could not be read. */
static int check_copy(const struct kv *kv, struct err *e)
{
    char fresh[KV_DIRECTORY_MAX];
    kv_path(kv, "snapshot.new", fresh);
    e->number = 0;
    if (kv_each_file(fresh, kv_is_table, check_table, NULL, e) == 0)
        return 0;
    return kv_is_damage(kv, e->number) ? -1 : -2;
}

/* A copy without damage, or why there is none. */
static int good_copy(struct kv *kv, char ***old_log, struct err *e)
{
    for (int attempt = 1;; attempt++) {
        if (kv_remove_directory(kv, "snapshot.new", e) < 0 || copy_database(kv, old_log, e) < 0)
            return -1;
        int rc = check_copy(kv, e);
        if (rc == 0)
            return 0;
        if (rc == -2)
            return -1;
        if (attempt == ATTEMPTS)
            break;
        xfree(old_log);
    }
    struct err why = *e;
    kv_mark_damaged(kv, why.text);
    return err_set(e, "a page of the database is damaged on the disk, and so is a copy of it: %s",
                   why.text);
}

/* ---- making one -------------------------------------------------------------- */

/* The fresh copy takes the place of the one before. */
static int exchange(const struct kv *kv, struct err *e)
{
    char fresh[KV_DIRECTORY_MAX], old[KV_DIRECTORY_MAX], snapshot[KV_DIRECTORY_MAX];
    kv_path(kv, "snapshot.new", fresh);
    kv_path(kv, "snapshot.old", old);
    kv_path(kv, "snapshot", snapshot);
    if (rename(snapshot, old) < 0 && errno != ENOENT)
        return err_sys(e, "%s: cannot rename", snapshot);
    errno = fault_point("kv.snapshot.exchange");
    if (errno == 0 && rename(fresh, snapshot) == 0)
        return 0;
    err_sys(e, "%s: cannot rename", fresh);
    (void)rename(old, snapshot); /* if not now, then before the next one is made */
    return -1;
}

/* The snapshot before the last one is in the way, unless the last one did not get to its place. */
static int clear_old(const struct kv *kv, struct err *e)
{
    char old[KV_DIRECTORY_MAX], snapshot[KV_DIRECTORY_MAX];
    if (kv_exists(kv, "snapshot") || !kv_exists(kv, "snapshot.old"))
        return kv_remove_directory(kv, "snapshot.old", e);
    kv_path(kv, "snapshot.old", old);
    kv_path(kv, "snapshot", snapshot);
    return rename(old, snapshot) < 0 ? err_sys(e, "%s: cannot rename", old) : 0;
}

int kv_snapshot(struct kv *kv, struct err *e)
{
    char **old_log = NULL, *none[] = {NULL};
    if (clear_old(kv, e) < 0)
        return -1;
    int rc = good_copy(kv, &old_log, e);
    char *const *names = old_log ? old_log : none;
    if (rc == 0)
        rc = drop_log(kv, "snapshot.new", names, e);
    if (rc == 0)
        rc = kv_write_file(kv, "snapshot.new", KV_COPY, SLICE("1\n"), e);
    if (rc == 0)
        rc = kv_sync_files(kv, "snapshot.new", e);
    if (rc == 0)
        rc = exchange(kv, e);
    if (rc == 0)
        rc = kv_sync_directory(kv, "", e);
    if (rc == 0)
        rc = drop_log(kv, "db", names, e);
    free(old_log);
    if (rc < 0) /* what is there of it may be what fills the disk */
        (void)kv_remove_directory(kv, "snapshot.new", NULL);
    return rc == 0 ? kv_remove_directory(kv, "snapshot.old", e) : -1;
}

static int add_size(const char *directory, const char *name, void *arg, struct err *e)
{
    char path[KV_PATH_MAX];
    struct stat st;
    uint64_t *sum = arg;
    (void)e;
    snprintf(path, sizeof path, "%.*s/%s", KV_DIRECTORY_MAX, directory, name);
    if (stat(path, &st) == 0)
        *sum += (uint64_t)st.st_size;
    return 0;
}

uint64_t kv_log_bytes(struct kv *kv)
{
    char db[KV_DIRECTORY_MAX];
    uint64_t sum = 0;
    kv_path(kv, "db", db);
    (void)kv_each_file(db, kv_is_log, add_size, &sum, NULL);
    return sum;
}

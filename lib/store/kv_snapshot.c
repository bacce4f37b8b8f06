/*
 * Snapshots, and what they are for. snapshot/ holds a copy of the tables and the
 * log files that belong to it; db/ keeps every log file from the oldest of those
 * on. So the tables of the snapshot and the log of db/ are together a whole
 * database up to its last durable change, whatever happened to the tables in db/.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/mem.h"
#include "store/kv_private.h"

enum { COPY_BYTES = 256 * 1024 };

static bool is_log(const char *name)
{
    return strncmp(name, "log.", 4) == 0;
}

static bool is_table(const char *name)
{
    return slice_ends(slice_str(name), SLICE(".db"));
}

/* Calls `each` for the files of a directory that `wanted` picks. A missing
 * directory has none. */
static int each_file(const char *directory, bool (*wanted)(const char *name),
                     int (*each)(const char *directory, const char *name, void *arg, struct err *e),
                     void *arg, struct err *e)
{
    DIR *d = opendir(directory);
    struct dirent *entry;
    int rc = 0;
    if (!d)
        return errno == ENOENT ? 0 : err_sys(e, "%s: cannot open", directory);
    while (rc == 0 && (entry = readdir(d)))
        if (wanted(entry->d_name))
            rc = each(directory, entry->d_name, arg, e);
    closedir(d);
    return rc;
}

static int remove_file(const char *directory, const char *name, void *arg, struct err *e)
{
    char path[KV_PATH_MAX];
    (void)arg;
    snprintf(path, sizeof path, "%.*s/%s", KV_DIRECTORY_MAX, directory, name);
    return unlink(path) < 0 ? err_sys(e, "%s: cannot remove", path) : 0;
}

static bool is_entry(const char *name)
{
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static int remove_directory(const char *path, struct err *e)
{
    if (each_file(path, is_entry, remove_file, NULL, e) < 0)
        return -1;
    return rmdir(path) < 0 && errno != ENOENT ? err_sys(e, "%s: cannot remove", path) : 0;
}

static int sync_directory(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? -1 : fsync(fd);
    if (rc < 0)
        err_sys(e, "%s: cannot be made durable", path);
    if (fd >= 0)
        close(fd);
    return rc;
}

/* ---- making one ------------------------------------------------------------ */

/* Removes these log files: Berkeley DB itself needs none before its last
 * checkpoint, and a rebuild none before the one that the snapshot begins with. */
static int drop_log(const char *directory, char *const *files, struct err *e)
{
    for (; *files; files++)
        if (remove_file(directory, *files, NULL, e) < 0)
            return -1;
    return 0;
}

static int copy_database(struct kv *kv, const char *fresh, char ***old_log, struct err *e)
{
    int rc = kv->env->txn_checkpoint(kv->env, 0, 0, DB_FORCE);
    if (rc == 0)
        rc = kv->env->log_archive(kv->env, old_log, 0);
    if (rc == 0)
        rc = kv->env->backup(kv->env, fresh, DB_CREATE);
    if (rc == 0)
        rc = fault_point("kv.snapshot");
    return rc ? kv_fail(kv, rc, "cannot make a snapshot", e) : 0;
}

/* The fresh copy takes the place of the one before. */
static int exchange(const char *fresh, const char *snapshot, const char *old, struct err *e)
{
    if (rename(snapshot, old) < 0 && errno != ENOENT)
        return err_sys(e, "%s: cannot rename", snapshot);
    return rename(fresh, snapshot) < 0 ? err_sys(e, "%s: cannot rename", fresh) : 0;
}

int kv_snapshot(struct kv *kv, struct err *e)
{
    char fresh[KV_DIRECTORY_MAX], old[KV_DIRECTORY_MAX], snapshot[KV_DIRECTORY_MAX],
        db[KV_DIRECTORY_MAX];
    char **old_log = NULL, *none[] = {NULL};
    snprintf(fresh, sizeof fresh, "%s/snapshot.new", kv->directory);
    snprintf(old, sizeof old, "%s/snapshot.old", kv->directory);
    snprintf(snapshot, sizeof snapshot, "%s/snapshot", kv->directory);
    snprintf(db, sizeof db, "%s/db", kv->directory);
    if (remove_directory(fresh, e) < 0 || remove_directory(old, e) < 0)
        return -1;
    int rc = copy_database(kv, fresh, &old_log, e);
    char *const *names = old_log ? old_log : none;
    if (rc == 0)
        rc = drop_log(fresh, names, e);
    if (rc == 0)
        rc = sync_directory(fresh, e);
    if (rc == 0)
        rc = exchange(fresh, snapshot, old, e);
    if (rc == 0)
        rc = sync_directory(kv->directory, e);
    if (rc == 0)
        rc = drop_log(db, names, e);
    free(old_log);
    return rc == 0 ? remove_directory(old, e) : -1;
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
    snprintf(db, sizeof db, "%s/db", kv->directory);
    (void)each_file(db, is_log, add_size, &sum, NULL);
    return sum;
}

/* ---- using one ------------------------------------------------------------- */

static int copy_bytes(int from, int to)
{
    char *block = xmalloc(COPY_BYTES);
    ssize_t n;
    while ((n = read(from, block, COPY_BYTES)) > 0)
        if (write(to, block, (size_t)n) != n) {
            n = -1;
            break;
        }
    free(block);
    return n == 0 ? fsync(to) : -1;
}

/* Copies a file into the directory `arg` unless it is there. */
static int copy_file(const char *directory, const char *name, void *arg, struct err *e)
{
    char source[KV_PATH_MAX], target[KV_PATH_MAX];
    snprintf(source, sizeof source, "%.*s/%s", KV_DIRECTORY_MAX, directory, name);
    snprintf(target, sizeof target, "%.*s/%s", KV_DIRECTORY_MAX, (const char *)arg, name);
    int from = open(source, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return err_sys(e, "%s: cannot open", source);
    int to = open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int rc = 0;
    if (to < 0 && errno != EEXIST)
        rc = err_sys(e, "%s: cannot create", target);
    else if (to >= 0 && copy_bytes(from, to) < 0)
        rc = err_sys(e, "%s: cannot copy", target);
    if (to >= 0)
        close(to);
    close(from);
    return rc;
}

/* A database anew: the log of the damaged one, tables and missing log of the snapshot. */
static int put_together(const char *db, const char *damaged, const char *snapshot, struct err *e)
{
    if (mkdir(db, 0700) < 0)
        return err_sys(e, "%s: cannot create", db);
    if (each_file(damaged, is_log, copy_file, (void *)(uintptr_t)db, e) < 0 ||
        each_file(snapshot, is_log, copy_file, (void *)(uintptr_t)db, e) < 0 ||
        each_file(snapshot, is_table, copy_file, (void *)(uintptr_t)db, e) < 0)
        return -1;
    return sync_directory(db, e);
}

/* The new one is whole before the damaged one goes, so that a start after a crash finds
 * either of them. */
static int exchange_damaged(const struct kv *kv, const char *db, const char *damaged,
                            const char *snapshot, struct err *e)
{
    char fresh[KV_DIRECTORY_MAX];
    snprintf(fresh, sizeof fresh, "%s/" KV_FRESH, kv->directory);
    if (remove_directory(fresh, e) < 0 || put_together(fresh, db, snapshot, e) < 0 ||
        sync_directory(kv->directory, e) < 0)
        return -1;
    if (rename(db, damaged) < 0)
        return err_sys(e, "%s: cannot rename", db);
    fault_point("kv.rebuild");
    if (rename(fresh, db) < 0) {
        err_sys(e, "%s: cannot rename", fresh);
        (void)rename(damaged, db);
        return -1;
    }
    return sync_directory(kv->directory, e);
}

bool kv_finish_rebuild(const struct kv *kv, const char *db)
{
    char fresh[KV_DIRECTORY_MAX];
    struct stat st;
    snprintf(fresh, sizeof fresh, "%s/" KV_FRESH, kv->directory);
    if (stat(db, &st) == 0) {
        (void)remove_directory(fresh, NULL); /* not whole, or not needed any more */
        return false;
    }
    return errno == ENOENT && rename(fresh, db) == 0;
}

int kv_rebuild(struct kv *kv, const struct kv_config *c, struct err *e)
{
    char db[KV_DIRECTORY_MAX], damaged[KV_DIRECTORY_MAX], snapshot[KV_DIRECTORY_MAX];
    struct err why = *e;
    struct stat st;
    snprintf(db, sizeof db, "%s/db", kv->directory);
    snprintf(snapshot, sizeof snapshot, "%s/snapshot", kv->directory);
    snprintf(damaged, sizeof damaged, "%s/damaged-%lld", kv->directory, (long long)time(NULL));
    if (stat(snapshot, &st) < 0)
        return err_set(e,
                       "%s; there is no snapshot to rebuild it from: move %s/db away, start, and "
                       "run 'postern account import' with the latest export",
                       why.text, kv->directory);
    if (exchange_damaged(kv, db, damaged, snapshot, e) < 0)
        return err_prefix(e, "%s; it cannot be rebuilt: ", why.text);
    if (kv_open_environment(kv, c, true, e) == 0) {
        err_set(e, "%s; rebuilt from snapshot and log, the damaged files are in %s", why.text,
                damaged);
        return 0;
    }
    kv_close_environment(kv);
    /* as it was, for the people that are called now */
    if (remove_directory(db, NULL) == 0 && rename(damaged, db) < 0)
        err_prefix(e, "the damaged files are in %s; ", damaged);
    return err_prefix(e,
                      "rebuilding from the snapshot failed too: move %s/db away, start, and run "
                      "'postern account import' with the latest export; ",
                      kv->directory);
}

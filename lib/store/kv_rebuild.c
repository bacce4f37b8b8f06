/*
 * A damaged database is put together again: the tables of the snapshot (before the first
 * one: none), and everything that the log has since then.
 *
 * It is made in db.new/, and recovered there to the log's end, while db/ stays as it is. Only
 * when it is whole and durable it becomes db.ready/, db/ becomes damaged-N/, db.ready/ becomes
 * db/. So a start after a crash finds either the damaged database, which says so again, or
 * the whole one: db.new/ is never used, db.ready/ only where db/ is gone.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "core/fault.h"
#include "core/mem.h"
#include "store/kv_private.h"

enum { NAMES_TRIED = 1000, MARK_MAX = 2000 };

static const char first_log[] = "db/log.0000000001";

static int move(const struct kv *kv, const char *from, const char *to, struct err *e)
{
    char source[KV_DIRECTORY_MAX], target[KV_DIRECTORY_MAX];
    kv_path(kv, from, source);
    kv_path(kv, to, target);
    return rename(source, target) < 0 ? err_sys(e, "%s: cannot rename to %s", source, target) : 0;
}

bool kv_can_rebuild(const struct kv *kv)
{
    return kv_exists(kv, "snapshot") || kv_exists(kv, first_log);
}

void kv_mark_damaged(struct kv *kv, const char *what)
{
    struct err e;
    atomic_store(&kv->failed, true);
    if (!kv_exists(kv, "db/" KV_DAMAGED) && kv_can_rebuild(kv))
        (void)kv_write_file(kv, "db", KV_DAMAGED, slice_str(what), &e);
}

/* ---- after a crash ------------------------------------------------------------- */

static bool is_damaged(const char *name)
{
    return strncmp(name, "damaged-", 8) == 0;
}

static int note_one(const char *directory, const char *name, void *arg, struct err *e)
{
    (void)directory, (void)name, (void)e;
    *(bool *)arg = true;
    return -1;
}

int kv_settle(struct kv *kv, struct err *e)
{
    bool older = false;
    if (!kv_exists(kv, "snapshot") && kv_exists(kv, "snapshot.old") &&
        move(kv, "snapshot.old", "snapshot", e) < 0)
        return -1;
    if (kv_exists(kv, "db")) {
        (void)kv_remove_directory(kv, "db.new", NULL);
        (void)kv_remove_directory(kv, "db.ready", NULL);
        return 1;
    }
    if (kv_exists(kv, "db.ready")) {
        if (move(kv, "db.ready", "db", e) < 0 || kv_sync_directory(kv, "", e) < 0)
            return -1;
        return 2;
    }
    (void)kv_each_file(kv->directory, is_damaged, note_one, &older, NULL);
    older = older || kv_exists(kv, "db.new");
    if (!older && !kv_exists(kv, "snapshot"))
        return 0;
    err_set(e,
            "%s/db is missing, but there is %s: nothing begins anew by itself. To go back to the "
            "snapshot rename snapshot to db; to begin with no accounts at all (and import an "
            "export) move snapshot, db.new and damaged-* away, too",
            kv->directory, older ? "an older database" : "a snapshot");
    return -1;
}

/* ---- rebuilding ---------------------------------------------------------------- */

static bool is_list(const char *name)
{
    return strcmp(name, KV_TABLES) == 0;
}

/* The log of the damaged one; tables and missing log of the snapshot. */
static int put_together(const struct kv *kv, struct err *e)
{
    char fresh[KV_DIRECTORY_MAX];
    kv_path(kv, "db.new", fresh);
    if (kv_remove_directory(kv, "db.new", e) < 0)
        return -1;
    if (mkdir(fresh, 0700) < 0)
        return err_sys(e, "%s: cannot create", fresh);
    if (kv_copy_files(kv, "db", "db.new", kv_is_log, e) < 0 ||
        kv_copy_files(kv, "snapshot", "db.new", kv_is_log, e) < 0 ||
        kv_copy_files(kv, "snapshot", "db.new", kv_is_table, e) < 0 ||
        kv_copy_files(kv, "db", "db.new", is_list, e) < 0)
        return -1;
    fault_point("kv.rebuild.copied");
    return 0;
}

static int recover(struct kv *kv, struct err *e)
{
    int rc = kv_open_environment(kv, "db.new", KV_RECOVER_FULL, e);
    if (rc == 0) {
        rc = kv->env->txn_checkpoint(kv->env, 0, 0, DB_FORCE);
        if (rc)
            kv_fail(kv, rc, "cannot write what was recovered", e);
    }
    if (rc)
        atomic_store(&kv->failed, true);
    kv_close_environment(kv);
    fault_point("kv.rebuild.recovered");
    return rc ? -1 : kv_sync_files(kv, "db.new", e);
}

/* A name for the damaged one: the second, or one that is free. */
static void name_damaged(const struct kv *kv, char *out, size_t size)
{
    long long now = (long long)time(NULL);
    for (int i = 0; i < NAMES_TRIED; i++) {
        snprintf(out, size, "damaged-%lld", now + i);
        if (!kv_exists(kv, out))
            return;
    }
}

static int exchange(const struct kv *kv, const char *damaged, struct err *e)
{
    if (move(kv, "db.new", "db.ready", e) < 0 || kv_sync_directory(kv, "", e) < 0)
        return -1;
    fault_point("kv.rebuild.ready");
    if (move(kv, "db", damaged, e) < 0)
        return -1;
    fault_point("kv.rebuild");
    if (move(kv, "db.ready", "db", e) < 0) {
        (void)move(kv, damaged, "db", NULL);
        return -1;
    }
    fault_point("kv.rebuild.placed");
    return kv_sync_directory(kv, "", e);
}

int kv_rebuild(struct kv *kv, struct err *e)
{
    struct err why = *e;
    char damaged[64];
    if (!kv_can_rebuild(kv))
        return err_set(e,
                       "%s; there is no snapshot to rebuild it from: move %s/db away, start, and "
                       "run 'postern account import' with the latest export",
                       why.text, kv->directory);
    name_damaged(kv, damaged, sizeof damaged);
    if (put_together(kv, e) < 0 || recover(kv, e) < 0 || exchange(kv, damaged, e) < 0) {
        struct err cause = *e;
        (void)kv_remove_directory(kv, "db.new", NULL); /* it may be what fills the disk */
        if (kv_is_damage(kv, cause.number))
            return err_set(e,
                           "%s; rebuilding it from snapshot and log failed, too: %s. Move db and "
                           "snapshot in %s away, start, and run 'postern account import' with the "
                           "latest export",
                           why.text, cause.text, kv->directory);
        return err_set(e, "%s; it cannot be rebuilt now: %s. The next start tries again", why.text,
                       cause.text);
    }
    if (kv_open_environment(kv, "db", KV_RECOVER, e) != 0)
        return -1;
    err_set(e, "%s; rebuilt from snapshot and log, the damaged files are in %s/%s", why.text,
            kv->directory, damaged);
    return 0;
}

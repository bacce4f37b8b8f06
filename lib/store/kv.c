#include "store/kv.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "core/fault.h"
#include "core/mem.h"
#include "store/kv_private.h"

enum {
    LOG_FILE_BYTES = 16 * 1024 * 1024,
    LOG_BUFFER_BYTES = 2 * 1024 * 1024,
    LOCKS_MAX = 200000,  /* a transaction holds one for each page that it changes */
    LOCKS_HASHED = 4001, /* places in their table, else as many as LOCKS_MAX: 26 MB */
    PAGE_BYTES = 4096,
    BATCH_HEADER = 9 /* table and flag, lengths of key and value */
};

/* ---- opening --------------------------------------------------------------- */

/* What Berkeley DB says of itself; the last sentence is the one that tells. */
static void on_message(const DB_ENV *env, const char *prefix, const char *message)
{
    struct kv *kv = env->app_private;
    (void)prefix;
    snprintf(kv->said, sizeof kv->said, "%s", message);
}

static void on_event(DB_ENV *env, u_int32_t event, void *info)
{
    struct kv *kv = env->app_private;
    (void)info;
    if (event == DB_EVENT_PANIC)
        atomic_store(&kv->failed, true);
}

int kv_fail(struct kv *kv, int rc, const char *what, struct err *e)
{
    if (rc == DB_RUNRECOVERY)
        atomic_store(&kv->failed, true);
    return err_set(e, "%s/db: %s: %s%s%s", kv->directory, what, db_strerror(rc),
                   *kv->said ? ": " : "", kv->said);
}

static int configure(struct kv *kv, uint64_t cache_bytes)
{
    DB_ENV *env = kv->env;
    const u_int32_t giga = 1u << 30;
    int rc = env->set_cachesize(env, (u_int32_t)(cache_bytes / giga),
                                (u_int32_t)(cache_bytes % giga), 1);
    if (rc == 0)
        rc = env->set_lg_max(env, LOG_FILE_BYTES);
    if (rc == 0)
        rc = env->set_lg_bsize(env, LOG_BUFFER_BYTES);
    if (rc == 0)
        rc = env->set_lk_max_locks(env, LOCKS_MAX);
    if (rc == 0)
        rc = env->set_lk_max_objects(env, LOCKS_MAX);
    if (rc == 0)
        rc = env->set_lk_tablesize(env, LOCKS_HASHED);
    if (rc == 0)
        rc = env->set_lk_detect(env, DB_LOCK_DEFAULT);
    if (rc == 0)
        rc = env->set_event_notify(env, on_event);
    return rc;
}

static int open_table(struct kv *kv, const char *name, DB **out)
{
    DB *db;
    char file[64];
    snprintf(file, sizeof file, "%s.db", name);
    int rc = db_create(&db, kv->env, 0);
    if (rc)
        return rc;
    *out = db;
    rc = db->set_pagesize(db, PAGE_BYTES);
    if (rc == 0)
        rc = db->set_flags(db, DB_CHKSUM);
    if (rc == 0)
        rc = db->open(db, NULL, file, NULL, DB_BTREE, DB_CREATE | DB_THREAD | DB_AUTO_COMMIT, 0600);
    return rc;
}

int kv_open_environment(struct kv *kv, const struct kv_config *c, bool fatal, struct err *e)
{
    char home[KV_DIRECTORY_MAX];
    const u_int32_t flags = DB_CREATE | DB_INIT_MPOOL | DB_INIT_TXN | DB_INIT_LOG | DB_INIT_LOCK |
                            DB_PRIVATE | DB_THREAD;
    snprintf(home, sizeof home, "%s/db", kv->directory);
    kv->said[0] = '\0';
    atomic_store(&kv->failed, false);
    int rc = db_env_create(&kv->env, 0);
    if (rc)
        return kv_fail(kv, rc, "cannot begin", e);
    kv->env->app_private = kv;
    kv->env->set_errcall(kv->env, on_message);
    rc = configure(kv, c->cache_bytes);
    if (rc == 0)
        rc = kv->env->open(kv->env, home, flags | (fatal ? DB_RECOVER_FATAL : DB_RECOVER), 0600);
    if (rc)
        return kv_fail(kv, rc, "cannot open the database", e);
    for (unsigned i = 0; i < kv->count; i++) {
        rc = open_table(kv, c->tables[i], &kv->tables[i]);
        if (rc == 0 && fault_point("kv.damaged"))
            rc = EINVAL;
        if (rc)
            return kv_fail(kv, rc, c->tables[i], e);
    }
    return 0;
}

void kv_close_environment(struct kv *kv)
{
    for (unsigned i = 0; i < kv->count; i++) {
        if (kv->tables[i])
            (void)kv->tables[i]->close(kv->tables[i], 0);
        kv->tables[i] = NULL;
    }
    if (kv->env)
        (void)kv->env->close(kv->env, 0);
    kv->env = NULL;
}

struct kv *kv_open(const struct kv_config *c, enum kv_condition *condition, struct err *e)
{
    struct kv *kv = xcalloc(1, sizeof *kv);
    char home[KV_DIRECTORY_MAX];
    struct stat st;
    if (c->table_count > KV_TABLES_MAX || strlen(c->directory) > KV_DIRECTORY_MAX / 2)
        panic("a database of %u tables", c->table_count);
    kv->directory = xstrdup(c->directory);
    kv->count = c->table_count;
    snprintf(home, sizeof home, "%s/db", kv->directory);
    bool rebuilt = kv_finish_rebuild(kv, home);
    *condition = stat(home, &st) < 0 && errno == ENOENT ? KV_CREATED : KV_SOUND;
    if (mkdir(home, 0700) < 0 && errno != EEXIST) {
        err_sys(e, "%s: cannot create", home);
        kv_close(kv);
        return NULL;
    }
    if (kv_open_environment(kv, c, rebuilt, e) == 0) {
        if (rebuilt) {
            *condition = KV_REBUILT;
            err_set(e,
                    "a rebuild from snapshot and log was interrupted, and is finished now; the "
                    "damaged files are in %s/damaged-*",
                    kv->directory);
        }
        return kv;
    }
    kv_close_environment(kv);
    if (*condition == KV_SOUND && kv_rebuild(kv, c, e) == 0) {
        *condition = KV_REBUILT;
        return kv;
    }
    kv_close(kv);
    return NULL;
}

void kv_close(struct kv *kv)
{
    if (!kv)
        return;
    if (kv->env && !atomic_load(&kv->failed))
        (void)kv->env->txn_checkpoint(kv->env, 0, 0, DB_FORCE);
    kv_close_environment(kv);
    free(kv->directory);
    free(kv);
}

bool kv_failed(const struct kv *kv)
{
    return atomic_load(&kv->failed);
}

/* ---- reading --------------------------------------------------------------- */

static DBT thing(struct slice s)
{
    return (DBT){.data = (void *)(uintptr_t)s.ptr, .size = (u_int32_t)s.len};
}

int kv_get(struct kv *kv, unsigned table, struct slice key, struct buf *value, struct err *e)
{
    DB *db = kv->tables[table];
    DBT k = thing(key);
    buf_clear(value);
    if (buf_reserve(value, 512) < 0)
        panic("a buffer too small for any value");
    for (;;) {
        DBT v = {.data = value->data, .ulen = (u_int32_t)value->cap, .flags = DB_DBT_USERMEM};
        int rc = db->get(db, NULL, &k, &v, 0);
        if (rc == DB_NOTFOUND)
            return 0;
        if (rc == 0) {
            value->len = v.size;
            return 1;
        }
        if (rc != DB_BUFFER_SMALL)
            return kv_fail(kv, rc, "cannot read", e);
        if (buf_reserve(value, v.size) < 0)
            return err_set(e, "%s/db: a value of %u bytes is too large", kv->directory, v.size);
    }
}

int kv_walk(struct kv *kv, unsigned table, struct slice from,
            bool (*each)(struct slice key, struct slice value, void *arg), void *arg, struct err *e)
{
    DBC *cursor;
    DB *db = kv->tables[table];
    DBT k = thing(from), v = {.flags = DB_DBT_REALLOC};
    k.flags = DB_DBT_MALLOC;
    int rc = db->cursor(db, NULL, &cursor, DB_READ_COMMITTED);
    if (rc)
        return kv_fail(kv, rc, "cannot read", e);
    rc = cursor->get(cursor, &k, &v, from.len ? DB_SET_RANGE : DB_FIRST);
    bool first = true;
    while (rc == 0) {
        bool more = each(slice_make(k.data, k.size), slice_make(v.data, v.size), arg);
        if (first) /* the key that was given is the caller's; this one is ours */
            k.flags = DB_DBT_REALLOC;
        first = false;
        if (!more)
            break;
        rc = cursor->get(cursor, &k, &v, DB_NEXT);
    }
    if (!first)
        free(k.data);
    free(v.data);
    (void)cursor->close(cursor);
    return rc == 0 || rc == DB_NOTFOUND ? 0 : kv_fail(kv, rc, "cannot read", e);
}

/* ---- writing --------------------------------------------------------------- */

static int add_change(struct buf *batch, unsigned table, bool removed, struct slice key,
                      struct slice value)
{
    if (key.len == 0 || key.len > KV_KEY_MAX || value.len > KV_VALUE_MAX)
        panic("a key of %zu and a value of %zu bytes", key.len, value.len);
    char head[BATCH_HEADER];
    uint32_t lengths[2] = {(uint32_t)key.len, (uint32_t)value.len};
    head[0] = (char)(table << 1 | removed);
    memcpy(head + 1, lengths, sizeof lengths);
    if (buf_reserve(batch, sizeof head + key.len + value.len) < 0)
        return -1;
    buf_add(batch, head, sizeof head);
    buf_adds(batch, key);
    return buf_adds(batch, value);
}

int kv_put(struct buf *batch, unsigned table, struct slice key, struct slice value)
{
    return add_change(batch, table, false, key, value);
}

int kv_remove(struct buf *batch, unsigned table, struct slice key)
{
    return add_change(batch, table, true, key, SLICE(""));
}

/* One change of a batch, and what is behind it. */
struct change {
    unsigned table;
    bool removed;
    struct slice key, value;
};

static struct change next_change(struct slice *batch)
{
    uint32_t lengths[2];
    memcpy(lengths, batch->ptr + 1, sizeof lengths);
    struct change c = {.table = (unsigned char)batch->ptr[0] >> 1, .removed = batch->ptr[0] & 1};
    *batch = slice_from(*batch, BATCH_HEADER);
    c.key = slice_first(*batch, lengths[0]);
    c.value = slice_first(slice_from(*batch, lengths[0]), lengths[1]);
    *batch = slice_from(*batch, (size_t)lengths[0] + lengths[1]);
    return c;
}

uint32_t kv_tables_of(struct slice batch)
{
    uint32_t tables = 0;
    while (batch.len)
        tables |= 1U << next_change(&batch).table;
    return tables;
}

static int make_changes(struct kv *kv, DB_TXN *txn, struct slice batch)
{
    while (batch.len) {
        struct change c = next_change(&batch);
        DB *db = kv->tables[c.table];
        DBT k = thing(c.key), v = thing(c.value);
        int rc = c.removed ? db->del(db, txn, &k, 0) : db->put(db, txn, &k, &v, 0);
        if (rc && !(c.removed && rc == DB_NOTFOUND))
            return rc;
    }
    return 0;
}

int kv_apply(struct kv *kv, struct slice batch, struct err *e)
{
    DB_TXN *txn;
    int rc = kv->env->txn_begin(kv->env, NULL, &txn, 0);
    if (rc)
        return kv_fail(kv, rc, "cannot begin a change", e);
    rc = make_changes(kv, txn, batch);
    if (rc == 0)
        rc = fault_point("kv.apply");
    if (rc == 0) {
        rc = txn->commit(txn, DB_TXN_NOSYNC);
        return rc ? kv_fail(kv, rc, "cannot make a change", e) : 0;
    }
    (void)txn->abort(txn);
    return kv_fail(kv, rc, "cannot make a change", e);
}

int kv_sync(struct kv *kv, struct err *e)
{
    int rc = fault_point("kv.sync");
    if (rc == 0)
        rc = kv->env->log_flush(kv->env, NULL);
    return rc ? kv_fail(kv, rc, "cannot write the log", e) : 0;
}

int kv_checkpoint(struct kv *kv, struct err *e)
{
    int rc = kv->env->txn_checkpoint(kv->env, 0, 0, 0);
    return rc ? kv_fail(kv, rc, "cannot write pages back", e) : 0;
}

#include "store/kv.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "core/fault.h"
#include "core/mem.h"
#include "store/kv_private.h"

enum {
    LOG_FILE_BYTES = 16 * 1024 * 1024,
    LOG_BUFFER_BYTES = 2 * 1024 * 1024,
    LOCKS_MAX = 200000,  /* a transaction holds one for each page that it changes */
    LOCKS_HASHED = 4001, /* places in their table, else as many as LOCKS_MAX: 26 MB */
    PAGE_BYTES = 4096,
    BATCH_HEADER = 9,         /* table and flag, lengths of key and value */
    ROOM_BYTES = 1024 * 1024, /* of a disk that is not full */
    KV_LIST_MAX = 4096        /* of a small text file in db/ */
};

/* ---- opening --------------------------------------------------------------- */

/* What Berkeley DB says of itself: the first sentence names the cause, others are what followed
 * from it, except for some that name nothing. */
static void on_message(const DB_ENV *env, const char *prefix, const char *message)
{
    static const char *const empty[] = {"BDB0060", "BDB0061", "BDB0178", "BDB1544", "BDB1581"};
    struct kv *kv = env->app_private;
    (void)prefix;
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++)
        if (strncmp(message, empty[i], strlen(empty[i])) == 0)
            return;
    if (!*kv->said)
        snprintf(kv->said, sizeof kv->said, "%s", message);
}

static void on_event(DB_ENV *env, u_int32_t event, void *info)
{
    struct kv *kv = env->app_private;
    if (event != DB_EVENT_PANIC)
        return;
    if (info && atomic_load(&kv->panicked) == 0)
        atomic_store(&kv->panicked, *(const int *)info);
    atomic_store(&kv->failed, true);
}

static void on_progress(DB_ENV *env, int what, int percent)
{
    (void)what, (void)percent;
    kv_alive(env->app_private);
}

void kv_alive(const struct kv *kv)
{
    if (kv->config && kv->config->alive)
        kv->config->alive(kv->config->arg);
}

bool kv_is_damage(const struct kv *kv, int rc)
{
    static const int kinds[] = {
        EINVAL, /* no database file, or one of another kind */
        ENOENT, /* a table or a piece of the log is gone */
        EIO,    /* the disk cannot read it */
        DB_CHKSUM_FAIL,
        DB_PAGE_NOTFOUND,
        DB_VERIFY_BAD,
        DB_VERIFY_FATAL,
        DB_LOG_VERIFY_BAD,
        DB_NOTFOUND,    /* what a page names of the log is not there */
        DB_RUNRECOVERY, /* Berkeley DB gave up, and named no other cause */
    };
    int cause = rc == DB_RUNRECOVERY ? atomic_load(&kv->panicked) : 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if ((cause ? cause : rc) == kinds[i])
            return true;
    return false;
}

int kv_fail(struct kv *kv, int rc, const char *what, struct err *e)
{
    int cause = rc == DB_RUNRECOVERY ? atomic_load(&kv->panicked) : 0;
    if (rc == DB_RUNRECOVERY)
        atomic_store(&kv->failed, true);
    err_set(e, "%s/db: %s: %s%s%s%s%s", kv->directory, what, db_strerror(rc),
            cause && cause != rc ? ": " : "", cause && cause != rc ? db_strerror(cause) : "",
            *kv->said ? ": " : "", kv->said);
    if (e)
        e->number = cause ? cause : rc;
    return -1;
}

/* An error of a database that was open: if a page of it is damaged, the next start has to know
 * that, because opening does not look at every page. */
static int fail_reading(struct kv *kv, int rc, struct err *e)
{
    kv_fail(kv, rc, "cannot read", e);
    bool panicked = rc == DB_RUNRECOVERY && atomic_load(&kv->panicked) != EIO;
    if ((panicked && kv_is_damage(kv, rc)) || rc == DB_PAGE_NOTFOUND || rc == DB_VERIFY_BAD ||
        rc == EIO)
        kv_mark_damaged(kv, e->text);
    return -1;
}

void kv_break(struct kv *kv, int rc)
{
    int none = 0;
    (void)atomic_compare_exchange_strong(&kv->panicked, &none, rc);
    atomic_store(&kv->failed, true);
    if (kv->env)
        (void)kv->env->set_flags(kv->env, DB_PANIC_ENVIRONMENT, 1);
}

static int fail_writing(struct kv *kv, int rc, const char *what, struct err *e)
{
    kv_fail(kv, rc, what, e);
    bool panicked = rc == DB_RUNRECOVERY && atomic_load(&kv->panicked) != EIO;
    if ((panicked && kv_is_damage(kv, rc)) || rc == DB_PAGE_NOTFOUND)
        kv_mark_damaged(kv, e->text);
    kv_break(kv, rc);
    return -1;
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
    if (rc == 0)
        rc = env->set_feedback(env, on_progress);
    return rc;
}

static int open_table(struct kv *kv, const char *name, bool create, DB **out)
{
    DB *db;
    char file[64];
    const u_int32_t flags = DB_THREAD | DB_AUTO_COMMIT;
    snprintf(file, sizeof file, "%s.db", name);
    int rc = db_create(&db, kv->env, 0);
    if (rc)
        return rc;
    *out = db;
    rc = db->set_pagesize(db, PAGE_BYTES);
    if (rc == 0)
        rc = db->set_flags(db, DB_CHKSUM);
    if (rc == 0)
        rc = db->open(db, NULL, file, NULL, DB_BTREE, create ? flags | DB_CREATE : flags, 0600);
    return rc;
}

static bool is_listed(struct slice list, const char *name)
{
    while (list.len)
        if (slice_eq(slice_cut(&list, '\n'), slice_str(name)))
            return true;
    return false;
}

/* Whether a table without a file is made: one that was there is not, without its file the
 * database is damaged; one that the program has had since is. A database of before there was
 * a list has the tables of that time. */
static bool is_new(const struct kv *kv, unsigned table, bool known, struct slice before)
{
    if (known)
        return !is_listed(before, kv->config->tables[table]);
    return !kv_exists(kv, "snapshot") || table >= kv->config->unlisted_tables;
}

static int open_tables(struct kv *kv, const char *name, struct err *e)
{
    const struct kv_config *c = kv->config;
    struct buf before = BUF_INIT(KV_LIST_MAX), now = BUF_INIT(KV_LIST_MAX);
    bool known = kv_read_file(kv, name, KV_TABLES, &before);
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < kv->count; i++) {
        bool create = is_new(kv, i, known, buf_slice(&before));
        rc = open_table(kv, c->tables[i], create, &kv->tables[i]);
        if (rc == 0)
            rc = fault_point("kv.damaged");
        if (rc)
            kv_fail(kv, rc, c->tables[i], e);
        (void)buf_printf(&now, "%s\n", c->tables[i]);
    }
    if (rc == 0 && !slice_eq(buf_slice(&before), buf_slice(&now)) &&
        kv_write_file(kv, name, KV_TABLES, buf_slice(&now), e) < 0)
        rc = e->number ? e->number : EIO;
    buf_free(&before);
    buf_free(&now);
    return rc;
}

int kv_open_environment(struct kv *kv, const char *name, enum kv_recovery how, struct err *e)
{
    char home[KV_DIRECTORY_MAX];
    const u_int32_t flags = DB_CREATE | DB_INIT_MPOOL | DB_INIT_TXN | DB_INIT_LOG | DB_INIT_LOCK |
                            DB_PRIVATE | DB_THREAD;
    kv_path(kv, name, home);
    kv->said[0] = '\0';
    atomic_store(&kv->failed, false);
    atomic_store(&kv->panicked, 0);
    int rc = db_env_create(&kv->env, 0);
    if (rc == 0) {
        kv->env->app_private = kv;
        kv->env->set_errcall(kv->env, on_message);
        rc = configure(kv, kv->config->cache_bytes);
    }
    if (rc == 0)
        rc = kv->env->open(kv->env, home,
                           flags | (how == KV_RECOVER_FULL ? DB_RECOVER_FATAL : DB_RECOVER), 0600);
    if (rc == 0)
        return open_tables(kv, name, e);
    kv_fail(kv, rc, "cannot open the database", e);
    return rc;
}

void kv_close_environment(struct kv *kv)
{
    if (atomic_load(&kv->failed))
        kv_break(kv, DB_RUNRECOVERY); /* else pages are written that the log does not have */
    for (unsigned i = 0; i < kv->count; i++) {
        if (kv->tables[i])
            (void)kv->tables[i]->close(kv->tables[i], 0);
        kv->tables[i] = NULL;
    }
    if (kv->env)
        (void)kv->env->close(kv->env, 0);
    kv->env = NULL;
}

/* On a full disk Berkeley DB finds all kinds of errors after the first. */
static bool has_room(const struct kv *kv)
{
    struct statvfs v;
    return statvfs(kv->directory, &v) < 0 || (uint64_t)v.f_bavail * v.f_frsize >= ROOM_BYTES;
}

/* The database that is there: opened, or rebuilt if it is damaged. */
static int open_existing(struct kv *kv, bool settled, enum kv_condition *condition, struct err *e)
{
    struct buf mark = BUF_INIT(KV_LIST_MAX);
    bool damaged = kv_read_file(kv, "db", KV_DAMAGED, &mark);
    if (damaged)
        err_set(e, "%.*s", SLICE_ARG(buf_slice(&mark)));
    buf_free(&mark);
    /* What an earlier process wrote to the log may not be durable yet; recovery takes it for
     * durable and writes pages that follow from it, some of which a power cut would keep. */
    if (!damaged && kv_sync_log(kv, "db", e) < 0)
        return err_prefix(e, "this is no damage, a start when its cause is over will do");
    if (!damaged) {
        int rc = kv_open_environment(kv, "db", KV_RECOVER, e);
        if (rc == 0 && settled) {
            *condition = KV_REBUILT;
            err_set(e,
                    "a rebuild from snapshot and log was interrupted, and is finished now; the "
                    "damaged files are in %s/damaged-*",
                    kv->directory);
        }
        if (rc == 0)
            return 0;
        damaged = kv_is_damage(kv, rc) && has_room(kv);
        if (!damaged)
            atomic_store(&kv->failed, true);
        kv_close_environment(kv);
    }
    if (!damaged)
        return err_prefix(e, "this is no damage, a start when its cause is over will do");
    *condition = KV_REBUILT;
    return kv_rebuild(kv, e);
}

static int open_or_make(struct kv *kv, enum kv_condition *condition, struct err *e)
{
    char home[KV_DIRECTORY_MAX];
    int found = kv_settle(kv, e);
    *condition = found == 0 ? KV_CREATED : KV_SOUND;
    if (found > 0)
        return open_existing(kv, found == 2, condition, e);
    kv_path(kv, "db", home);
    if (found < 0)
        return -1;
    if (mkdir(home, 0700) < 0)
        return err_sys(e, "%s: cannot create", home);
    return kv_open_environment(kv, "db", KV_RECOVER, e) == 0 ? 0 : -1;
}

struct kv *kv_open(const struct kv_config *c, enum kv_condition *condition, struct err *e)
{
    struct kv *kv = xcalloc(1, sizeof *kv);
    if (c->table_count > KV_TABLES_MAX || strlen(c->directory) > KV_DIRECTORY_MAX / 2)
        panic("a database of %u tables", c->table_count);
    kv->directory = xstrdup(c->directory);
    kv->count = c->table_count;
    kv->config = c;
    int rc = open_or_make(kv, condition, e);
    kv->restored = rc == 0 && kv_exists(kv, "db/" KV_COPY);
    kv->config = NULL;
    if (rc == 0)
        return kv;
    atomic_store(&kv->failed, true);
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

bool kv_is_restored(const struct kv *kv)
{
    return kv->restored;
}

int kv_restored_noted(struct kv *kv, struct err *e)
{
    char db[KV_DIRECTORY_MAX];
    kv_path(kv, "db", db);
    if (kv_remove_file(db, KV_COPY, NULL, e) < 0)
        return -1;
    kv->restored = false;
    return kv_sync_directory(kv, "db", e);
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
        fault_point("kv.read");
        DBT v = {.data = value->data, .ulen = (u_int32_t)value->cap, .flags = DB_DBT_USERMEM};
        int rc = db->get(db, NULL, &k, &v, 0);
        if (rc == DB_NOTFOUND)
            return 0;
        if (rc == 0) {
            value->len = v.size;
            return 1;
        }
        if (rc != DB_BUFFER_SMALL)
            return fail_reading(kv, rc, e);
        if (buf_reserve(value, v.size) < 0)
            return err_set(e, "%s/db: a value of %u bytes is too large", kv->directory, v.size);
    }
}

/* DB_SET_RANGE finds the first that is not before `most`: it is that, or the one before it. */
static int seek_last(DBC *cursor, struct slice most, DBT *k, DBT *v)
{
    *k = thing(most);
    k->flags = DB_DBT_MALLOC;
    int rc = cursor->get(cursor, k, v, DB_SET_RANGE);
    if (rc == 0 && slice_eq(slice_make(k->data, k->size), most))
        return 0;
    if (rc == 0)
        free(k->data);
    else if (rc != DB_NOTFOUND)
        return rc;
    *k = (DBT){.flags = DB_DBT_MALLOC};
    return cursor->get(cursor, k, v, rc == 0 ? DB_PREV : DB_LAST);
}

int kv_last(struct kv *kv, unsigned table, struct slice most, struct buf *key, struct buf *value,
            struct err *e)
{
    DBC *cursor;
    DB *db = kv->tables[table];
    DBT k, v = {.flags = DB_DBT_REALLOC};
    int rc = db->cursor(db, NULL, &cursor, DB_READ_COMMITTED);
    if (rc)
        return fail_reading(kv, rc, e);
    fault_point("kv.read");
    rc = seek_last(cursor, most, &k, &v);
    buf_clear(key);
    buf_clear(value);
    bool fits = rc || (buf_add(key, k.data, k.size) == 0 && buf_add(value, v.data, v.size) == 0);
    if (rc == 0)
        free(k.data);
    free(v.data);
    (void)cursor->close(cursor);
    if (rc)
        return rc == DB_NOTFOUND ? 0 : fail_reading(kv, rc, e);
    return fits ? 1 : err_set(e, "%s/db: a value of %u bytes is too large", kv->directory, v.size);
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
        return fail_reading(kv, rc, e);
    rc = cursor->get(cursor, &k, &v, from.len ? DB_SET_RANGE : DB_FIRST);
    bool first = true;
    while (rc == 0) {
        fault_point("kv.read");
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
    return rc == 0 || rc == DB_NOTFOUND ? 0 : fail_reading(kv, rc, e);
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

bool kv_next_change(struct slice *batch, struct kv_change *out)
{
    uint32_t lengths[2];
    if (batch->len == 0)
        return false;
    memcpy(lengths, batch->ptr + 1, sizeof lengths);
    *out = (struct kv_change){.table = (unsigned char)batch->ptr[0] >> 1,
                              .removed = batch->ptr[0] & 1};
    *batch = slice_from(*batch, BATCH_HEADER);
    out->key = slice_first(*batch, lengths[0]);
    out->value = slice_first(slice_from(*batch, lengths[0]), lengths[1]);
    *batch = slice_from(*batch, (size_t)lengths[0] + lengths[1]);
    return true;
}

uint32_t kv_tables_of(struct slice batch)
{
    uint32_t tables = 0;
    struct kv_change c;
    while (kv_next_change(&batch, &c))
        tables |= 1U << c.table;
    return tables;
}

static int make_changes(struct kv *kv, DB_TXN *txn, struct slice batch)
{
    struct kv_change c;
    while (kv_next_change(&batch, &c)) {
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
        return fail_writing(kv, rc, "cannot begin a change", e);
    rc = make_changes(kv, txn, batch);
    if (rc == 0)
        rc = fault_point("kv.apply");
    if (rc == 0) {
        rc = txn->commit(txn, DB_TXN_NOSYNC);
        return rc ? fail_writing(kv, rc, "cannot make a change", e) : 0;
    }
    (void)txn->abort(txn);
    return fail_writing(kv, rc, "cannot make a change", e);
}

int kv_sync(struct kv *kv, struct err *e)
{
    int rc = fault_point("kv.sync");
    if (rc == 0)
        rc = kv->env->log_flush(kv->env, NULL);
    return rc ? fail_writing(kv, rc, "cannot write the log", e) : 0;
}

int kv_checkpoint(struct kv *kv, struct err *e)
{
    int rc = kv->env->txn_checkpoint(kv->env, 0, 0, 0);
    return rc ? fail_writing(kv, rc, "cannot write pages back", e) : 0;
}

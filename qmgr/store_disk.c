/* The disk thread: takes the operations of the loop in their order. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/fault.h"
#include "core/mem.h"
#include "ipc/ipc.h"
#include "qmgr/store_internal.h"

void disk_set_state(struct store *s, int state, const char *format, ...)
{
    if (state == s->disk.state)
        return;
    s->disk.state = state;
    char text[STORE_ERROR_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct op *op = op_new(OP_STATE, NULL, NULL);
    op->u.state = state;
    op->error = xstrdup(text);
    store_complete_one(s, op);
}

void disk_bad(struct store *s, int error, const char *what)
{
    /* Latched until a restart: after a failed fsync the kernel may have thrown
     * the data away and marked the pages clean, so a later success says nothing. */
    s->disk.bad = true;
    disk_set_state(s, SPOOL_BAD,
                   "%s failed: %s; no mail is taken until the disk is repaired and the service "
                   "restarted",
                   what, strerror(error));
}

void disk_ask_kernel(struct store *s)
{
    struct utsname kernel;
    unsigned major = 0, minor = 0;
    if (uname(&kernel) == 0 && sscanf(kernel.release, "%u.%u", &major, &minor) == 2)
        s->disk.syncfs_reports = major > 5 || (major == 5 && minor >= 8);
}

/* syncfs flushes the device's cache once for the batch instead of once for each
 * file and directory, which on a disk with a cache is several times as fast. It
 * also writes what others have dirty on this file system: when that shows, files
 * are synced one by one for a while. */
bool disk_may_syncfs(const struct store *s)
{
    const struct disk *d = &s->disk;
    bool ring_apart = d->journal.apart && d->journal.fd >= 0; /* it would not be synced */
    return d->syncfs_reports && !d->doubtful && !ring_apart && store_now() >= d->syncfs_after;
}

void disk_syncfs_took(struct store *s, int64_t us)
{
    struct disk *d = &s->disk;
    if (us <= STORE_SYNCFS_SLOW_US) {
        d->syncfs_pause = 0;
        return;
    }
    d->syncfs_pause = d->syncfs_pause ? d->syncfs_pause * 2 : STORE_SYNCFS_PAUSE_US;
    if (d->syncfs_pause > STORE_SYNCFS_PAUSE_MAX_US)
        d->syncfs_pause = STORE_SYNCFS_PAUSE_MAX_US;
    d->syncfs_after = store_now() + d->syncfs_pause;
}

bool disk_sync_whole(struct store *s)
{
    int64_t start = store_now();
    /* A failure may be of another's file. Each file's fsync then tells its own:
     * the kernel keeps a failed write for every descriptor until it was told. */
    if (!disk_may_syncfs(s))
        return false;
    struct journal_point point = journal_point(s);
    if (fault_point("store.syncfs") || syncfs(s->disk.new_fd) < 0) {
        s->disk.doubtful = true;
        return false;
    }
    journal_synced(s, s->disk.generation, point);
    generation_t durable = disk_next_generation(s);
    disk_durable(s, durable);
    disk_syncfs_took(s, store_now() - start);
    return true;
}

bool disk_is_wanted(struct store *s)
{
    pthread_mutex_lock(&s->mutex);
    bool wanted = !list_empty(&s->inbox) || s->landed > 0;
    pthread_mutex_unlock(&s->mutex);
    return wanted;
}

generation_t disk_next_generation(struct store *s)
{
    generation_t ended = s->disk.generation++;
    for (size_t i = 0; i < s->disk.batch_count; i++)
        if (s->disk.batch[i]->kind == OP_RECORD)
            dirty_wait(s, &s->disk.batch[i]->id);
    return ended;
}

void disk_durable(struct store *s, generation_t generation)
{
    if (generation <= s->disk.durable || s->disk.doubtful)
        return;
    s->disk.durable = generation;
    journal_durable(s, generation);
    buckets_durable(s, generation);
    dirty_durable(s, generation);
}

/* ---- operations that need no file of a message ---------------------------------- */

static void large_create(struct store *s, struct op *op)
{
    struct disk *d = &s->disk;
    op->u.create.code = d->bad ? 451 : 452;
    if (d->state != SPOOL_OK) {
        op_fail(op, "the spool takes no mail now");
    } else {
        int error = fault_point("store.create");
        op->u.create.fd = error ? -1
                                : openat(d->tmp_fd, op->id.text,
                                         O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (op->u.create.fd < 0) {
            error = error ? error : errno;
            if (error != ENOSPC && error != EDQUOT)
                op->u.create.code = 451;
            op_fail(op, "tmp/%s: %s", op->id.text, strerror(error));
        }
    }
    store_complete_one(s, op);
}

static void large_abort(struct store *s, struct op *op)
{
    if (op->u.create.fd >= 0)
        close(op->u.create.fd);
    if (unlinkat(s->disk.tmp_fd, op->id.text, 0) < 0 && errno != ENOENT)
        store_say(s, "tmp/%s: %s", op->id.text, strerror(errno));
    op_free(op);
}

static void finish(struct store *s, struct op *op)
{
    dirty_forget(s, &op->id);
    if (journal_finish(s, &op->id)) {
        op_free(op);
        return;
    }
    bool unlink_it = op->ref.large || op->ref.records_end > STORE_RECYCLE_MAX;
    file_retire(s, &op->id, op->ref.bucket, op->ref.fd, unlink_it);
    op_free(op);
}

/* The scan met a file of another message under this name. */
static void retire(struct store *s, struct op *op)
{
    struct bucket *b = bucket_get(s, op->ref.bucket, false);
    struct stat st;
    if (b && fstatat(b->fd, op->id.text, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        st.st_ino == op->u.bad.inode)
        file_retire(s, &op->id, op->ref.bucket, -1, st.st_size > STORE_RECYCLE_MAX);
    op_free(op);
}

/* Readers look at files only, so what is in the journal looks like one. */
static void look(struct store *s, struct op *op)
{
    op->source = journal_source(s, &op->id);
    op->from_ring = op->source >= 0;
    if (op->source < 0 && errno) {
        op_fail(op, "cannot be read from the journal: %s", strerror(errno));
        store_complete_one(s, op);
        return;
    }
    if (op->kind == OP_LOAD)
        op->u.load.shift = dirty_shifted(s, &op->id);
    read_queue(s, op);
}

/* What was called before this becomes durable. */
static void sync_everything(struct store *s, struct op *op)
{
    batch_sync(s);
    bool behind = journal_write(s) != 0 || !list_empty(&s->disk.journal.pending);
    if (dirty_any(s))
        dirty_sync(s);
    if (s->disk.bad)
        op_fail(op, "the spool's disk has failed");
    else if (s->disk.changes_failed || behind)
        op_fail(op, "a change could not be written");
    s->disk.changes_failed = false;
    store_complete_one(s, op);
}

static void run(struct store *s, struct op *op)
{
    switch (op->kind) {
    case OP_COMMIT:
        commit_write(s, op);
        break;
    case OP_LARGE_CREATE:
        large_create(s, op);
        break;
    case OP_LARGE_ABORT:
        large_abort(s, op);
        break;
    case OP_MARK:
        dirty_mark(s, op);
        break;
    case OP_RECORD:
        dirty_record(s, op);
        break;
    case OP_FINISH:
    case OP_UNLOAD:
        /* a record of this message may wait for the fsync of this descriptor */
        if (batch_has(s, &op->id))
            batch_sync(s);
        if (op->kind == OP_FINISH) {
            finish(s, op);
        } else {
            dirty_unload(s, &op->id, op->ref.fd);
            op_free(op);
        }
        break;
    case OP_SYNC:
        sync_everything(s, op);
        break;
    case OP_READ:
    case OP_LOAD:
        look(s, op);
        break;
    case OP_RETIRE:
        retire(s, op);
        break;
    case OP_QUARANTINE:
        dirty_forget(s, &op->id);
        file_quarantine(s, op);
        op_free(op);
        break;
    default:
        panic("operation of kind %d", (int)op->kind);
    }
}

/* ---- once a second ---------------------------------------------------------------- */

struct space {
    uint64_t bytes, inodes; /* free; inodes are UINT64_MAX where they are not counted */
    bool read_only;
};

static bool get_space(const struct store *s, struct space *out)
{
    struct statvfs v;
    if (fstatvfs(s->disk.new_fd, &v) < 0)
        return false;
    /* btrfs has no fixed number of inodes */
    *out = (struct space){.bytes = (uint64_t)v.f_bavail * v.f_frsize,
                          .inodes = v.f_files ? (uint64_t)v.f_favail : UINT64_MAX,
                          .read_only = v.f_flag & ST_RDONLY};
    return true;
}

static bool below_reserve(const struct store *s, const struct space *space)
{
    return space->bytes < s->config.reserve_bytes || space->inodes < s->config.reserve_inodes;
}

/* Finished files that wait for reuse are room, too. */
static bool make_room(struct store *s, struct space *space)
{
    int64_t until = store_now() + STORE_ROOM_US;
    while (below_reserve(s, space) && files_removable(s) && store_now() < until) {
        files_trim(s, 0, STORE_ROOM_FILES, STORE_ROOM_US);
        if (!get_space(s, space))
            return false;
    }
    return true;
}

/* What yields (store_yield) counts as free, but only as long as it is watched. */
static void look_at_space(struct store *s)
{
    struct space space;
    s->disk.next_tick = s->disk.now + STORE_TICK_US;
    if (s->disk.bad || !get_space(s, &space))
        return;
    if (space.bytes < s->config.reserve_bytes + s->config.reserve_bytes / 2)
        s->disk.next_tick = s->disk.now + STORE_TICK_LOW_US;
    if (!make_room(s, &space))
        return;
    s->stat_bytes = space.bytes;
    s->stat_inodes = space.inodes;
    space.bytes += s->yield_bytes;
    if (space.inodes < UINT64_MAX - s->yield_files)
        space.inodes += s->yield_files;
    if (space.read_only)
        disk_bad(s, EROFS, "writing");
    else if (space.bytes < s->config.reserve_bytes)
        disk_set_state(s, SPOOL_FULL, "%llu MB free, less than queue_minfree: mail is refused",
                       (unsigned long long)(space.bytes >> 20));
    else if (space.inodes < s->config.reserve_inodes)
        disk_set_state(s, SPOOL_FULL,
                       "%llu inodes free, less than queue_minfree_inodes: mail is refused",
                       (unsigned long long)space.inodes);
    else
        disk_set_state(s, SPOOL_OK, "enough free space: mail is taken");
}

/* What waits has waited long enough. */
static void sync_waiting(struct store *s)
{
    struct disk *d = &s->disk;
    if (dirty_sweep(s))
        return;
    if (flight_sweeps(s)) { /* neither these nor new mail wait for it */
        batch_sync_beside(s);
        dirty_sync_beside(s);
        d->dirty_since = store_now();
    } else {
        batch_sync(s); /* it may use descriptors that dirty_sync closes */
        dirty_sync(s);
    }
}

static void tick(struct store *s)
{
    struct disk *d = &s->disk;
    d->now = store_now();
    journal_tick(s);
    if (dirty_any(s) && d->now - d->dirty_since >= STORE_SYNC_DELAY_US)
        sync_waiting(s);
    if (d->now >= d->next_tick) {
        look_at_space(s);
        files_tick(s);
    }
    if (d->now >= d->next_sweep) {
        buckets_sweep(s);
        d->next_sweep = d->now + STORE_SWEEP_US;
    }
}

/* ---- the thread ------------------------------------------------------------------- */

static void wait_for_work(struct store *s, struct list *work, bool *stop)
{
    struct disk *d = &s->disk;
    int64_t due = d->next_tick;
    if (dirty_any(s) && d->dirty_since + STORE_SYNC_DELAY_US < due)
        due = d->dirty_since + STORE_SYNC_DELAY_US;
    if (journal_due(s) < due)
        due = journal_due(s);
    if (files_want_spares(s) || files_surplus(s))
        due = 0;
    struct timespec until = {due / CLOCK_SECOND, due % CLOCK_SECOND * 1000};
    pthread_mutex_lock(&s->mutex);
    while (list_empty(&s->inbox) && !s->stop && s->landed == 0) {
        s->idle = true;
        if (pthread_cond_timedwait(&s->work, &s->mutex, &until) == ETIMEDOUT)
            break;
    }
    s->idle = false;
    list_splice(work, &s->inbox);
    *stop = s->stop;
    pthread_mutex_unlock(&s->mutex);
}

void *disk_main(void *store)
{
    struct store *s = store;
    struct disk *d = &s->disk;
    d->last_commit = store_now() - STORE_SPARE_IDLE_US - 1;
    tick(s);
    for (bool stop = false; !stop;) {
        struct list work;
        list_init(&work);
        wait_for_work(s, &work, &stop);
        bool nothing = list_empty(&work);
        stop = stop && nothing;
        if (flights_land(s))
            batch_sync_each(s);
        for (struct list *n; (n = list_pop(&work)) != NULL;) {
            run(s, container_of(n, struct op, link));
            if (d->batch_commits >= s->config.batch_max)
                batch_send(s);
        }
        batch_send(s);
        if (nothing && !stop && files_want_spares(s))
            files_make_spares(s);
        if (nothing && !stop && files_surplus(s))
            files_remove_surplus(s);
        tick(s);
        batch_write_journal(s); /* that messages are over, or have files */
    }
    batch_sync(s);
    journal_settle(s);
    return NULL;
}

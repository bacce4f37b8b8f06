/* Changes to messages that are in the spool: marks and records. They become
 * durable with the next batch that waits for them, or within a second. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/mem.h"
#include "qmgr/store_internal.h"

enum { DIRTY_MAX = 1024 /* then they are synced at once */ };

static bool any_files(const struct store *s)
{
    const struct disk *d = &s->disk;
    return d->dirty.count > 0 || !list_empty(&d->dirty_buckets) || d->new_dirty ||
           journal_files_wait(s);
}

bool dirty_any(const struct store *s)
{
    return any_files(s) || journal_unsynced(s);
}

static void stamp(struct disk *d, struct dirty *entry)
{
    entry->changed = d->generation;
    list_remove(&entry->link);
    list_push(&d->dirty_order, &entry->link);
}

/* What is open for changes that are not durable yet gives way. */
static int open_file(struct store *s, const struct op *op)
{
    char path[STORE_PATH_MAX];
    store_path(path, op->ref.bucket, &op->id);
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && store_shortage(errno) && s->disk.dirty.count > 0) {
        batch_sync(s); /* it may use descriptors that dirty_sync closes */
        dirty_sync(s);
        fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    }
    return fd;
}

/* The entry of the operation's message, with its file open; NULL and errno. */
static struct dirty *dirty_get(struct store *s, const struct op *op)
{
    struct disk *d = &s->disk;
    struct dirty *entry = map_get(&d->dirty, id_slice(&op->id));
    if (entry) {
        stamp(d, entry);
        return entry;
    }
    int fd = op->ref.fd;
    if (fd < 0) {
        fd = open_file(s, op);
        if (fd < 0)
            return NULL;
        store_fd_opened(s);
    }
    if (!dirty_any(s))
        d->dirty_since = store_now();
    entry = xcalloc(1, sizeof *entry);
    list_init(&entry->link);
    entry->id = op->id;
    entry->fd = fd;
    entry->owned = op->ref.fd < 0;
    stamp(d, entry);
    map_put(&d->dirty, entry);
    return entry;
}

static int write_change(struct store *s, const struct op *op, struct slice bytes, uint64_t at,
                        struct dirty **entry)
{
    *entry = dirty_get(s, op);
    return *entry ? write_all((*entry)->fd, bytes, at) : errno;
}

/* Writes into the message's file and its journal, wherever it is; 0 or an errno value,
 * already reported. With `must` the journal has to have it, too. */
static int change(struct store *s, const struct op *op, struct slice bytes, uint64_t at, bool must,
                  struct dirty **entry, bool *ring)
{
    *entry = NULL;
    *ring = false;
    int error = fault_point("store.change");
    if (error == 0 && !journal_only(s, &op->id))
        error = write_change(s, op, bytes, at, entry);
    if (error == 0)
        error = journal_change(s, &op->id, bytes, at, must, ring);
    s->disk.changes_failed |= error != 0;
    if (error == EIO || error == EROFS)
        disk_bad(s, error, "writing to a message");
    else if (error)
        store_say(s, "new/%x/%s cannot be written: %s", op->ref.bucket, op->id.text,
                  strerror(error));
    return error;
}

static void limit_dirty(struct store *s)
{
    if (s->disk.dirty.count < DIRTY_MAX)
        return;
    batch_sync(s); /* it may use descriptors that dirty_sync closes */
    if (s->disk.dirty.count >= DIRTY_MAX)
        dirty_sync(s);
}

void dirty_mark(struct store *s, struct op *op)
{
    struct dirty *entry;
    bool ring;
    change(s, op, slice_make(&op->u.mark.status, 1), op->ref.status_at + op->u.mark.recipient,
           false, &entry, &ring);
    op_free(op);
    limit_dirty(s);
}

static void shift_records(struct disk *d, struct shift *shift, const struct op *op)
{
    if (shift == NULL) {
        shift = xcalloc(1, sizeof *shift);
        shift->id = op->id;
        map_put(&d->shifts, shift);
    }
    shift->bytes += op->bytes.len - SPOOL_RECORDS_END;
}

uint64_t dirty_shifted(const struct store *s, const struct id *id)
{
    const struct shift *shift = map_get(&s->disk.shifts, id_slice(id));
    return shift ? shift->bytes : 0;
}

void dirty_record(struct store *s, struct op *op)
{
    struct disk *d = &s->disk;
    struct shift *shift = map_get(&d->shifts, id_slice(&op->id));
    uint64_t at = op->ref.records_end - (shift ? shift->bytes : 0);
    struct dirty *entry;
    bool ring;
    int error = change(s, op, buf_slice(&op->bytes), at, op->u.record.done != NULL, &entry, &ring);
    if (error) {
        shift_records(d, shift, op);
        op_fail(op, "%s", strerror(error));
        if (op->u.record.done)
            store_complete_one(s, op);
        else
            op_free(op);
    } else if (op->u.record.done) {
        op->u.record.fd = entry ? entry->fd : -1;
        op->u.record.ring = ring;
        batch_add(s, op);
    } else {
        op_free(op);
    }
    limit_dirty(s);
}

static void entry_free(struct store *s, struct dirty *entry)
{
    if (entry->owned)
        store_fd_close(s, entry->fd);
    list_remove(&entry->link);
    free(entry);
}

void dirty_forget(struct store *s, const struct id *id)
{
    if (batch_has(s, id)) /* a record there is synced by the descriptor that is closed here */
        batch_sync(s);
    struct dirty *entry = map_remove(&s->disk.dirty, id_slice(id));
    if (entry)
        entry_free(s, entry);
    if (s->disk.shifts.count)
        free(map_remove(&s->disk.shifts, id_slice(id)));
}

void dirty_unload(struct store *s, const struct id *id, int fd)
{
    struct dirty *entry = map_get(&s->disk.dirty, id_slice(id));
    if (entry && entry->fd == fd)
        entry->owned = true;
    else
        store_fd_close(s, fd);
}

void dirty_wait(struct store *s, const struct id *id)
{
    struct dirty *entry = map_get(&s->disk.dirty, id_slice(id));
    if (entry)
        stamp(&s->disk, entry);
}

void dirty_durable(struct store *s, generation_t generation)
{
    struct disk *d = &s->disk;
    while (!list_empty(&d->dirty_order)) {
        struct dirty *entry = container_of(d->dirty_order.next, struct dirty, link);
        if (entry->changed > generation)
            break;
        map_remove(&d->dirty, id_slice(&entry->id));
        entry_free(s, entry);
    }
}

static void sync_journal(struct store *s)
{
    struct disk *d = &s->disk;
    struct journal_point point = journal_point(s);
    if (d->journal.fd < 0 || d->journal.lost)
        return;
    int error = fault_point("journal.sync");
    if (error == 0 && fdatasync(d->journal.fd) < 0)
        error = errno;
    if (error)
        journal_lost(s, error);
    else
        journal_synced(s, d->generation, point);
}

bool dirty_sweep(struct store *s)
{
    return any_files(s) && flight_sweep(s);
}

/* Files with marks and records, each by itself. */
static void sync_entries(struct store *s)
{
    struct disk *d = &s->disk;
    size_t count = d->dirty.count, cursor = 0, n = 0;
    struct sync_job *jobs = count ? xcalloc(count, sizeof *jobs) : NULL;
    struct dirty *entry;
    while ((entry = map_next(&d->dirty, &cursor)) != NULL)
        jobs[n++].fd = entry->fd;
    if (sync_run(&s->sync, jobs, n) > 0) {
        for (size_t i = 0; i < n; i++)
            if (jobs[i].error)
                disk_bad(s, jobs[i].error, "fsync of a message");
    }
    free(jobs);
    dirty_durable(s, d->generation);
}

static void sync_directories(struct store *s)
{
    int error = buckets_sync(s, true);
    if (error)
        disk_bad(s, error, "fsync of a directory of new/");
}

void dirty_sync_beside(struct store *s)
{
    sync_entries(s);
    sync_directories(s);
    sync_journal(s);
}

/* Not all files of the journal's messages could be asked; the ring has them. */
static void starved(struct store *s, int error)
{
    struct disk *d = &s->disk;
    if (!d->journal.starved)
        store_say(s,
                  "files of new/ cannot be opened to be synced: %s; what is in them stays in "
                  "journal/ring meanwhile, tried again every second. Raise the limit of open "
                  "files (LimitNOFILE), or lower qmgr_open_files_limit",
                  strerror(error));
    d->journal.starved = true;
    d->dirty_since = store_now();
}

void dirty_sync(struct store *s)
{
    struct disk *d = &s->disk;
    if (!any_files(s) && !d->doubtful) {
        sync_journal(s);
        return;
    }
    if (disk_sync_whole(s))
        return;
    bool doubtful = d->doubtful;
    d->doubtful = false; /* each file is asked now, and an error is the disk's */
    sync_entries(s);
    int error = journal_sync_files(s);
    sync_directories(s);
    sync_journal(s);
    if (error && store_shortage(error)) {
        d->doubtful = doubtful;
        starved(s, error);
        return;
    }
    if (error)
        disk_bad(s, error, "fsync of a message");
    d->journal.starved = false;
    journal_durable(s, d->generation);
}

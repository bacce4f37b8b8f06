/*
 * The journal's start and stop. At the start the ring is read, every message that it
 * has gets a file, whatever was there of it, and when all are durable the ring is
 * empty. What gets no file (no room, a disk that is read-only) stays in the ring, is
 * told to the loop by the scan, and goes the usual way from there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "core/mem.h"
#include "qmgr/store_internal.h"

enum { COPIES_MAX = 100 };

/* ---- reading the ring ------------------------------------------------------------------ */

/* A finished message's file whose way out of new/ was not durable. */
static void remove_file(struct store *s, const struct id *id)
{
    struct bucket *b = bucket_get(s, store_bucket_of(id), false);
    int result = b ? unlinkat(b->fd, id->text, 0) : -1;
    if (result == 0)
        bucket_changed(s, b);
    else if (errno != ENOENT) /* the ring is not emptied then */
        disk_bad(s, errno, "removing a finished message's file");
}

static void replay_change(struct kept *k, struct slice bytes)
{
    uint64_t at;
    struct slice changed;
    if (journal_change_decode(bytes, STORE_RECORDS_MAX, &at, &changed) == 0 &&
        kept_changed(k, bytes) == 0)
        k->changes_noted = k->changes.len;
}

static void replay_records(struct store *s, uint64_t position, struct slice records)
{
    struct journal *j = &s->disk.journal;
    struct journal_record r;
    while (journal_next(&records, &r) > 0) {
        struct kept *k = map_get(&j->kept, id_slice(&r.id));
        if (r.type == JOURNAL_CHANGE) {
            if (k)
                replay_change(k, r.bytes);
            continue;
        }
        if (k)
            kept_free(j, k);
        if (r.type == JOURNAL_OVER)
            remove_file(s, &r.id);
        if (r.type != JOURNAL_MESSAGE)
            continue;
        k = kept_add(j, &r.id, position + (uint64_t)(r.bytes.ptr - j->block.data), r.bytes.len);
        k->block = position;
        k->written = true;
    }
}

/* All blocks that count; true if one was damaged that had been durable. */
static bool replay(struct store *s)
{
    struct journal *j = &s->disk.journal;
    uint64_t gap = UINT64_MAX, durable = 0;
    /* j->head is the end of the last one: a round later there can be none */
    for (uint64_t at = j->tail; at < j->head + j->size;) {
        struct journal_block block;
        if (ring_read_block(j, at, &block) < 0) {
            gap = at < gap ? at : gap; /* the end, as a rule */
            at += JOURNAL_PAGE;
            continue;
        }
        durable = block.durable > durable ? block.durable : durable;
        if (block.kind == JOURNAL_RECORDS)
            replay_records(s, at, block.records);
        at = block.kind == JOURNAL_WRAP ? at + j->size - at % j->size : at + j->block.len;
        j->head = at;
    }
    buf_clear(&j->block);
    return gap < durable;
}

/* ---- files for all ----------------------------------------------------------------------- */

static void file_all(struct store *s)
{
    struct journal *j = &s->disk.journal;
    list_each_safe(&j->waiting, n)
    {
        struct kept *k = container_of(n, struct kept, stage);
        int error = kept_file(s, k, true);
        if (error == 0)
            continue;
        /* What has its name is an older copy, which the message's end would not find. The
         * ring was read, unless the disk itself has failed. */
        if (error != EIO && error != EROFS)
            remove_file(s, &k->id);
        if (!j->told)
            store_say(
                s,
                "message %s, and maybe others, stays in journal/ring: it cannot get a file in "
                "new/: %s; tried again every second",
                k->id.text, strerror(error));
        j->told = true;
        if (error == EROFS || error == EIO) {
            disk_bad(s, error, "writing a message of the journal into a file");
            break;
        }
    }
}

/* The files that were made, and removed, are durable: 0 or an errno value. */
static int sync_all(struct store *s, int fd)
{
    struct journal *j = &s->disk.journal;
    if (list_empty(&j->filed) && !dirty_any(s))
        return 0;
    if (s->disk.syncfs_reports && fd >= 0 && syncfs(fd) == 0) {
        buckets_durable(s, s->disk.generation);
        return 0;
    }
    int error = journal_sync_files(s);
    return error ? error : buckets_sync(s, true);
}

static void forget_all(struct journal *j)
{
    struct list *const lists[] = {&j->waiting, &j->filed, &j->noting, &j->safe};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        while (!list_empty(lists[i]))
            kept_free(j, container_of(lists[i]->next, struct kept, stage));
    while (!list_empty(&j->pending))
        kept_free(j, container_of(j->pending.next, struct kept, pending));
}

/* Nothing in the ring counts any more. Behind the end may lie blocks that were never
 * acknowledged: the new ones begin a round later, and under another key. */
static int reset(struct store *s)
{
    struct journal *j = &s->disk.journal;
    uint64_t head = (j->head / j->size + 2) * j->size;
    j->key = ring_random_key();
    int error = ring_write_super(s, head);
    if (error == 0 && fdatasync(j->fd) < 0)
        error = errno;
    if (error)
        return error;
    forget_all(j);
    j->head = j->tail = j->durable = head;
    j->unsynced = false;
    return 0;
}

/* Readers look at files only, so a message without one looks like a file to them. */
static void tell_scan(struct store *s)
{
    struct journal *j = &s->disk.journal;
    list_each_safe(&j->waiting, n)
    {
        struct kept *k = container_of(n, struct kept, stage);
        struct message_image *m = NULL;
        struct stat st;
        struct err e = {0};
        k->since = store_now();
        int fd = journal_source(s, &k->id);
        if (fd < 0 || fstat(fd, &st) < 0 || image_read(fd, &k->id, &st, &m, &e) != SPOOL_GOOD) {
            store_say(s, "message %s in journal/ring cannot be read: %s", k->id.text,
                      fd < 0 ? strerror(errno) : e.text);
        } else {
            m->found.ref.bucket = store_bucket_of(&k->id);
            m->ring = true;
            list_push(&j->found, &m->link);
        }
        if (fd >= 0) {
            close(fd);
            atomic_fetch_sub(&s->stat_sources, 1);
        }
    }
}

/* ---- a ring that is damaged ---------------------------------------------------------------- */

/* It is kept for the operator: some of it may have been acknowledged. */
static void move_away(struct store *s)
{
    struct journal *j = &s->disk.journal;
    char name[STORE_PATH_MAX];
    int result = -1;
    for (int i = 0; i < COPIES_MAX; i++) {
        snprintf(name, sizeof name, "journal.%llu.%d", (unsigned long long)j->turn, i);
        result = renameat2(j->dir, "ring", s->disk.corrupt_fd, name, RENAME_NOREPLACE);
        if (result == 0 || errno != EEXIST)
            break;
    }
    if (result < 0)
        store_say(s,
                  "journal/ring is damaged and cannot be moved to corrupt/: %s. What could be "
                  "read of it is in the queue",
                  strerror(errno));
    else
        store_say(s,
                  "journal/ring is damaged; it is in corrupt/%s now. What could be read of it is "
                  "in the queue",
                  name);
    close(j->fd);
    j->fd = -1;
    if (fsync(s->disk.corrupt_fd) < 0 || fsync(j->dir) < 0)
        store_say(s, "corrupt/ or journal/ cannot be synced: %s", strerror(errno));
}

/* ---- start ----------------------------------------------------------------------------------- */

/* What was read gets files. */
static void empty(struct store *s, bool damaged)
{
    struct journal *j = &s->disk.journal;
    /* opened before anything is written: it is told of all that fails */
    int fd = openat(s->disk.new_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    file_all(s);
    int error = sync_all(s, fd);
    if (fd >= 0)
        close(fd);
    if (error && !store_shortage(error)) /* else it is tried again, by dirty_sync */
        disk_bad(s, error, "making the messages of the journal durable");
    if (error == 0 && list_empty(&j->waiting) && !s->disk.bad) {
        if (j->broken) {
            disk_bad(s, j->broken, "writing to the journal");
        } else if (damaged) {
            forget_all(j);
            move_away(s);
        } else if ((error = reset(s)) != 0) {
            j->broken = error;
            disk_bad(s, error, "writing to the journal");
        }
        return;
    }
    if (damaged && !j->unreadable)
        store_say(s, "journal/ring is damaged; what could be read of it is in the queue");
    if (error == 0)
        journal_durable(s, s->disk.generation);
    tell_scan(s);
}

/* Nothing is written to it: what could not be read may be mail. */
static void cannot_read(struct store *s, int error)
{
    store_say(s,
              "journal/ring cannot be read: %s. It is left as it is: mail of the last seconds may "
              "be in it and is read when the disk is repaired and the service restarted",
              strerror(error));
    s->disk.journal.broken = error;
    disk_bad(s, error, "reading journal/ring");
}

static int read_ring(struct store *s, struct err *e)
{
    struct journal *j = &s->disk.journal;
    struct journal_super super;
    struct stat st;
    char page[JOURNAL_PAGE];
    if (fstat(j->fd, &st) < 0)
        return err_sys(e, "cannot read journal/ring");
    if (file_kind_check(&st, e) < 0)
        return err_prefix(e, "journal/ring");
    ssize_t n = pread(j->fd, page, sizeof page, 0);
    while (n < 0 && errno == EINTR)
        n = pread(j->fd, page, sizeof page, 0);
    if (n < 0) {
        cannot_read(s, errno);
        close(j->fd);
        j->fd = -1;
        return 0;
    }
    if (journal_super_decode(slice_make(page, (size_t)n), &super) < 0) {
        move_away(s);
        return 0;
    }
    j->size = super.size;
    j->turn = super.turn;
    j->key = super.key;
    j->head = j->tail = j->tail_written = super.tail;
    bool damaged = replay(s);
    if (j->unreadable)
        cannot_read(s, j->unreadable);
    j->durable = j->tail;
    empty(s, damaged || (uint64_t)st.st_size != JOURNAL_PAGE + super.size);
    return 0;
}

static void choose(struct store *s, uint64_t size)
{
    struct journal *j = &s->disk.journal;
    j->closed = size == 0;
    if (j->broken || (j->fd >= 0 && (j->kept.count > 0 || j->size == size)))
        return; /* what is in it keeps it for now */
    if (size == 0 && j->fd >= 0) {
        close(j->fd);
        j->fd = -1;
        unlinkat(j->dir, "ring", 0);
    } else if (size > 0) {
        int error = ring_make(s, size);
        if (error)
            store_say(s, "there is no journal, each message gets a file at once: journal/ring: %s",
                      strerror(error));
    }
}

static bool is_apart(const struct store *s)
{
    struct stat here, there;
    return fstat(s->disk.journal.dir, &here) < 0 || fstat(s->disk.new_fd, &there) < 0 ||
           here.st_dev != there.st_dev;
}

int journal_open(struct store *s, struct err *e)
{
    struct journal *j = &s->disk.journal;
    uint64_t size = journal_pages(s->config.journal_size);
    if (size > 0 && size < JOURNAL_SIZE_MIN)
        size = JOURNAL_SIZE_MIN;
    j->apart = is_apart(s);
    if (j->apart && size > 0) {
        store_say(s, "journal/ is on another file system than new/: it is not used, each message "
                     "gets a file at once");
        size = 0;
    }
    j->fd = openat(j->dir, "ring", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (j->fd < 0 && errno == EROFS) {
        j->fd = openat(j->dir, "ring", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        j->broken = EROFS;
    }
    if (j->fd < 0 && errno != ENOENT)
        return err_sys(e, "cannot open journal/ring");
    if (j->fd >= 0 && read_ring(s, e) < 0)
        return -1;
    if (j->fd < 0 && faccessat(j->dir, "ring", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        size = 0; /* damaged and still here: it is not overwritten */
    choose(s, size);
    return 0;
}

static struct slice kept_key(const void *value)
{
    return id_slice(&((const struct kept *)value)->id);
}

void journal_init(struct store *s)
{
    struct journal *j = &s->disk.journal;
    struct list *const lists[] = {&j->order, &j->waiting, &j->filed, &j->noting,
                                  &j->safe,  &j->pending, &j->found};
    j->fd = j->dir = -1;
    map_init(&j->kept, kept_key);
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        list_init(lists[i]);
    buf_init(&j->block, JOURNAL_BLOCK_MAX);
    buf_init(&j->scratch, 2 * STORE_RECORDS_MAX);
    buf_init(&j->record, JOURNAL_BYTES_MAX);
}

/* ---- stop --------------------------------------------------------------------------------------
 */

void journal_settle(struct store *s)
{
    struct journal *j = &s->disk.journal;
    if (j->fd < 0 || j->broken || s->disk.bad) {
        (void)journal_write(s);
        return; /* the ring has it all */
    }
    list_each_safe(&j->waiting, n)
    {
        if (kept_file(s, container_of(n, struct kept, stage), false) != 0)
            break; /* they stay in the ring until the next start */
    }
    dirty_sync(s);
    if (s->disk.bad)
        return;
    int error = journal_write(s);
    if (error == 0)
        error = ring_write_super(s, ring_tail(j));
    if (error == 0 && fdatasync(j->fd) < 0)
        error = errno;
    if (error)
        store_say(s, "journal/ring: %s", strerror(error));
}

void journal_close(struct store *s)
{
    struct journal *j = &s->disk.journal;
    for (struct list *n; (n = list_pop(&j->found)) != NULL;)
        free(container_of(n, struct message_image, link));
    forget_all(j);
    map_free(&j->kept);
    buf_free(&j->block);
    buf_free(&j->scratch);
    buf_free(&j->record);
    if (j->fd >= 0)
        close(j->fd);
    if (j->dir >= 0)
        close(j->dir);
}

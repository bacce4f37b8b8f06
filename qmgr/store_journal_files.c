/* Messages of the journal that get a file: written, made durable, as time goes by. See
 * store_journal.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/fault.h"
#include "qmgr/store_internal.h"

/* The message as it is now, into scratch; 0 or an errno value. */
static int compose(struct store *s, const struct kept *k)
{
    struct buf *image = &s->disk.journal.scratch;
    struct slice rest = buf_slice(&k->changes), change, bytes;
    uint64_t at;
    int error = ring_read(s, k, image);
    if (error)
        return error;
    while (kept_next_change(&rest, &change)) {
        if (journal_change_decode(change, STORE_RECORDS_MAX, &at, &bytes) < 0)
            return EBADMSG;
        size_t end = (size_t)at + bytes.len;
        if (end > image->len) {
            if (buf_reserve(image, end - image->len) < 0)
                return ENOMEM;
            memset(image->data + image->len, 0, end - image->len);
            image->len = end;
        }
        memcpy(image->data + at, bytes.ptr, bytes.len);
    }
    return 0;
}

/* All of the message into this file, in one piece, as it may be read meanwhile; 0 or an
 * errno value. */
static int write_message(struct store *s, const struct kept *k, int fd)
{
    struct buf *image = &s->disk.journal.scratch;
    int error = compose(s, k);
    if (error == 0)
        error = fault_point("store.write");
    if (error == 0)
        error = write_all(fd, buf_slice(image), 0);
    if (image->cap > STORE_SCRATCH_KEEP)
        buf_free(image);
    return error;
}

static int name_file(struct store *s, const struct kept *k, const struct free_file *f, bool replace)
{
    struct bucket *b = bucket_get(s, store_bucket_of(&k->id), true);
    char name[STORE_PATH_MAX];
    int error = b ? fault_point("store.rename") : errno;
    if (error)
        return error;
    snprintf(name, sizeof name, "%u", f->number);
    if (renameat2(file_directory(s, f), name, b->fd, k->id.text, replace ? 0 : RENAME_NOREPLACE) <
        0)
        return errno;
    bucket_changed(s, b);
    return 0;
}

int kept_file(struct store *s, struct kept *k, bool replace)
{
    struct disk *d = &s->disk;
    struct journal *j = &d->journal;
    struct free_file *f = file_take(s);
    if (f == NULL)
        return errno;
    int error = write_message(s, k, f->fd);
    if (error == 0)
        error = name_file(s, k, f, replace);
    if (error) {
        file_give_back(s, f);
        return error;
    }
    int fd = file_used(s, f);
    if (!disk_may_syncfs(s) && j->fd_count < STORE_JOURNAL_FDS) {
        k->fd = fd; /* what fails of its way to the disk is told to this descriptor */
        j->fd_count++;
    } else {
        store_fd_close(s, fd);
    }
    k->state = KEPT_FILED;
    k->stamp = d->generation;
    list_remove(&k->stage);
    list_push(&j->filed, &k->stage);
    return 0;
}

int journal_file(struct store *s, const struct id *id)
{
    struct kept *k = kept_find(s, id);
    if (k == NULL || k->over || k->state != KEPT_WAITING)
        return 0;
    return s->disk.bad ? EIO : kept_file(s, k, false);
}

int journal_source(struct store *s, const struct id *id)
{
    struct kept *k = kept_find(s, id);
    errno = 0;
    if (k == NULL || k->over || k->state != KEPT_WAITING)
        return -1;
    if (s->stat_sources >= STORE_SOURCES_MAX &&
        journal_file(s, id) == 0) { /* which costs no memory */
        errno = 0;
        return -1;
    }
    int fd = memfd_create("message", MFD_CLOEXEC);
    int error = fd < 0 ? errno : write_message(s, k, fd);
    if (error && fd >= 0)
        close(fd);
    else if (error == 0)
        atomic_fetch_add(&s->stat_sources, 1);
    errno = error;
    return error ? -1 : fd;
}

/* ---- making them durable ------------------------------------------------------------- */

/* A file that has no descriptor of its own is written again: only what fails from here on
 * is told to the new one. */
static int open_again(struct store *s, struct kept *k)
{
    char path[STORE_PATH_MAX];
    store_path(path, store_bucket_of(&k->id), &k->id);
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = write_message(s, k, fd);
    if (error) {
        close(fd);
        return error;
    }
    store_fd_opened(s);
    k->fd = fd;
    s->disk.journal.fd_count++;
    return 0;
}

static int sync_some(struct store *s, struct kept *const *some, size_t count)
{
    struct sync_job jobs[STORE_JOURNAL_FILES];
    int error = 0;
    for (size_t i = 0; i < count; i++)
        jobs[i] = (struct sync_job){.fd = some[i]->fd};
    sync_run(&s->sync, jobs, count);
    for (size_t i = 0; i < count; i++) {
        some[i]->synced = jobs[i].error == 0;
        if (jobs[i].error) /* whatever it was: what was to be written may be gone */
            error = store_shortage(jobs[i].error) ? EIO : jobs[i].error;
        kept_drop_fd(s, some[i]);
    }
    return error;
}

/* Files that are synced together, and what came of those before. */
struct gathered {
    struct kept *some[STORE_JOURNAL_FILES];
    size_t count;
    int error;
};

static void sync_gathered(struct store *s, struct gathered *g)
{
    int failed = sync_some(s, g->some, g->count);
    g->error = failed ? failed : g->error;
    g->count = 0;
}

/* 0 or an errno value. */
static int gather(struct store *s, struct gathered *g, struct kept *k)
{
    int failed = k->fd < 0 ? open_again(s, k) : 0;
    if (failed && store_shortage(failed) && g->count > 0) {
        sync_gathered(s, g); /* and closed */
        failed = open_again(s, k);
    }
    if (failed)
        return failed;
    g->some[g->count++] = k;
    if (g->count == STORE_JOURNAL_FILES)
        sync_gathered(s, g);
    return 0;
}

int journal_sync_files(struct store *s)
{
    struct journal *j = &s->disk.journal;
    struct gathered g = {.count = 0};
    list_each_safe(&j->filed, n)
    {
        struct kept *k = container_of(n, struct kept, stage);
        int failed = k->synced || k->over ? 0 : gather(s, &g, k);
        if (failed == ENOENT) {
            /* removed by hand; the ring has it: it gets another one */
            k->state = KEPT_WAITING;
            list_remove(&k->stage);
            list_push(&j->waiting, &k->stage);
        } else if (failed) {
            g.error = g.error ? g.error : failed;
            break;
        }
    }
    sync_gathered(s, &g);
    return g.error;
}

bool journal_files_wait(const struct store *s)
{
    return !s->disk.bad && !list_empty(&s->disk.journal.filed);
}

void journal_durable(struct store *s, generation_t generation)
{
    struct journal *j = &s->disk.journal;
    while (!list_empty(&j->filed) && !s->disk.bad) {
        struct kept *k = container_of(j->filed.next, struct kept, stage);
        if (k->stamp > generation)
            break;
        kept_drop_fd(s, k);
        list_remove(&k->stage);
        list_remove(&k->order);
        k->state = KEPT_SAFE;
        if (!k->over)
            (void)kept_note(s, k); /* FILED; without room, later */
        else if (k->noted)
            kept_free(j, k);
    }
}

void journal_synced(struct store *s, generation_t generation, struct journal_point point)
{
    struct journal *j = &s->disk.journal;
    if (j->lost) /* later syncs say nothing of what the failed one was about */
        return;
    if (point.tail > j->tail)
        j->tail = point.tail;
    if (point.head > j->durable)
        j->durable = point.head;
    while (!list_empty(&j->safe)) {
        struct kept *k = container_of(j->safe.next, struct kept, stage);
        if (k->stamp > generation)
            break;
        kept_free(j, k);
    }
    if (j->changed <= generation)
        j->unsynced = false;
}

/* ---- as time goes by ----------------------------------------------------------------- */

int64_t journal_due(const struct store *s)
{
    const struct journal *j = &s->disk.journal;
    if (list_empty(&j->waiting) || s->disk.bad)
        return INT64_MAX;
    int64_t due = container_of(j->waiting.next, struct kept, stage)->since + STORE_JOURNAL_STAY_US;
    return due > j->rest_until ? due : j->rest_until;
}

/* It is safe where it is, and is tried again. */
static void not_filed(struct store *s, struct kept *k, int error)
{
    struct journal *j = &s->disk.journal;
    if (error == EIO || error == EROFS) {
        disk_bad(s, error, "writing a message of the journal into a file");
        return;
    }
    if (!j->told)
        store_say(s,
                  "message %s, and maybe others, stays in journal/ring: it cannot get a file in "
                  "new/: %s; tried again every second",
                  k->id.text, strerror(error));
    j->told = true;
    j->rest_until = s->disk.now + STORE_JOURNAL_REST_US;
    list_remove(&k->stage);
    list_push(&j->waiting, &k->stage);
}

static void file_some(struct store *s)
{
    struct journal *j = &s->disk.journal;
    int64_t stay = journal_pressed(s) ? 0 : STORE_JOURNAL_STAY_US;
    if (s->disk.now < j->rest_until)
        return;
    for (int i = 0; i < STORE_JOURNAL_FILES && !list_empty(&j->waiting); i++) {
        struct kept *k = container_of(j->waiting.next, struct kept, stage);
        if (!k->written || s->disk.now - k->since < stay)
            break;
        if (i >= STORE_JOURNAL_FILES_BUSY && disk_is_wanted(s))
            break;
        int error = kept_file(s, k, false);
        if (error) {
            not_filed(s, k, error);
            break;
        }
        j->told = false;
    }
}

void journal_tick(struct store *s)
{
    struct journal *j = &s->disk.journal;
    if (j->fd < 0 || s->disk.bad)
        return;
    file_some(s);
    if (journal_pressed(s) && !list_empty(&j->filed))
        (void)flight_sweep(s);
    uint64_t step =
        j->size / (journal_pressed(s) ? STORE_JOURNAL_TAIL_PRESSED : STORE_JOURNAL_TAIL_STEP);
    if (!j->unsynced && s->disk.now - s->disk.last_commit > STORE_SPARE_IDLE_US)
        step = 0; /* so that a block that rots says nothing of messages of long ago */
    if (j->broken || ring_tail(j) - j->tail_written <= step)
        return;
    int error = ring_write_super(s, ring_tail(j));
    if (error && error != ENOSPC && error != EDQUOT)
        disk_bad(s, error, "writing to the journal");
}

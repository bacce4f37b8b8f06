/*
 * The journal: where a small message is made durable, at the price of one write
 * and one flush for the whole batch. Most messages are delivered a moment later
 * and never get a file. Those that stay (deferred, held, waiting for more than a
 * second, or when the ring fills) are then written into files of their own, many
 * at a time. Format of the ring: lib/spool/journal.h. Runs on the disk thread;
 * journal_open before it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/fault.h"
#include "core/mem.h"
#include "qmgr/store_internal.h"

enum { COPY_PIECE = 1024 * 1024 };

/* A message that is in the ring and counts. */
struct kept {
    struct list order; /* all, by position */
    struct list stage; /* waiting, by age; or filed, by generation */
    struct id id;
    uint64_t block, at; /* positions of its block and of its bytes; `at` is relative to
                         * the block until that is written */
    uint32_t len;
    bool written;       /* its block is in the ring */
    bool synced;        /* its file is durable, but for the name */
    bool over;          /* finished; here until that is durable in new/, too */
    generation_t filed; /* when its file was written; 0: it has none */
    int64_t since;
};

static struct slice kept_key(const void *value)
{
    return id_slice(&((const struct kept *)value)->id);
}

static uint64_t place(const struct journal *j, uint64_t position)
{
    return JOURNAL_PAGE + position % j->size;
}

static struct kept *first_kept(const struct journal *j)
{
    return container_of(j->order.next, struct kept, order);
}

/* From here on the ring counts. */
static uint64_t tail_now(const struct journal *j)
{
    if (list_empty(&j->order) || !first_kept(j)->written)
        return j->head;
    return first_kept(j)->block;
}

static uint64_t used(const struct journal *j)
{
    return j->head - j->tail;
}

bool journal_pressed(const struct store *s)
{
    const struct journal *j = &s->disk.journal;
    return j->fd >= 0 && used(j) > j->size / 2;
}

bool journal_unsynced(const struct store *s)
{
    return s->disk.journal.unsynced;
}

static void changed(struct store *s)
{
    struct journal *j = &s->disk.journal;
    if (!dirty_any(s))
        s->disk.dirty_since = store_now();
    j->unsynced = true;
    j->changed = s->disk.generation;
}

/* ---- taking messages -------------------------------------------------------------- */

static struct kept *kept_add(struct journal *j, const struct id *id, uint64_t at, size_t len)
{
    struct kept *k = xcalloc(1, sizeof *k);
    k->id = *id;
    k->at = at;
    k->len = (uint32_t)len;
    list_push(&j->order, &k->order);
    list_push(&j->waiting, &k->stage);
    map_put(&j->live, k);
    return k;
}

static void kept_free(struct journal *j, struct kept *k)
{
    if (!k->over)
        map_remove(&j->live, kept_key(k));
    list_remove(&k->order);
    list_remove(&k->stage);
    free(k);
}

/* Room for another block this long, with what is lost where the ring ends and a
 * reserve for the words that messages are gone. */
static bool has_room(const struct journal *j, size_t block)
{
    return used(j) + 2 * journal_pages(block) + j->size / STORE_JOURNAL_RESERVE <= j->size;
}

bool journal_commit(struct store *s, const struct id *id, struct slice bytes)
{
    struct journal *j = &s->disk.journal;
    uint64_t at;
    if (j->fd < 0 || j->broken ||
        !has_room(j, j->block.len + JOURNAL_RECORD + bytes.len + JOURNAL_PAGE))
        return false;
    if (j->block.len + bytes.len > STORE_JOURNAL_BLOCK && journal_write(s) != 0)
        return false;
    if (j->block.len == 0)
        journal_begin(&j->block);
    if (journal_add(&j->block, JOURNAL_MESSAGE, id, bytes, &at) < 0)
        return false;
    kept_add(j, id, at, bytes.len)->since = s->disk.now;
    j->block_messages++;
    return true;
}

bool journal_has(const struct store *s, const struct id *id)
{
    return map_get(&s->disk.journal.live, id_slice(id)) != NULL;
}

static int put(struct journal *j, struct slice bytes, uint64_t position)
{
    int error = fault_point("journal.write");
    return error ? error : write_all(j->fd, bytes, place(j, position));
}

/* A block never passes the ring's end. */
static int wrap(struct journal *j)
{
    struct buf block = BUF_INIT(JOURNAL_PAGE);
    journal_begin(&block);
    journal_end(&block, JOURNAL_WRAP, j->head);
    int error = put(j, buf_slice(&block), j->head);
    buf_free(&block);
    if (error == 0)
        j->head += j->size - j->head % j->size;
    return error;
}

int journal_write(struct store *s)
{
    struct journal *j = &s->disk.journal;
    int error = 0;
    if (j->block.len == 0 || j->broken)
        return j->broken;
    /* The ring is full of messages that cannot get files: what is only about those
     * that are gone waits. has_room sees to it that this never meets a message. */
    uint64_t len = journal_pages(j->block.len), rest = j->size - j->head % j->size;
    if (used(j) + len + (len > rest ? rest : 0) > j->size)
        return j->block_messages ? ENOSPC : 0;
    if (len > rest)
        error = wrap(j);
    journal_end(&j->block, JOURNAL_RECORDS, j->head);
    if (error == 0)
        error = put(j, buf_slice(&j->block), j->head);
    if (error)
        return j->broken = error;
    for (struct list *n = j->order.prev; n != &j->order; n = n->prev) {
        struct kept *k = container_of(n, struct kept, order);
        if (k->written)
            break;
        k->written = true;
        k->block = j->head;
        k->at += j->head;
    }
    j->head += j->block.len;
    buf_clear(&j->block);
    j->block_messages = 0;
    changed(s);
    fault_point("journal.written");
    return 0;
}

/* ---- leaving the ring ------------------------------------------------------------- */

static void note(struct store *s, enum journal_type type, const struct id *id)
{
    struct journal *j = &s->disk.journal;
    if (j->block.len == 0)
        journal_begin(&j->block);
    if (journal_add(&j->block, type, id, SLICE(""), NULL) == 0)
        return;
    int error = journal_write(s);
    if (error)
        disk_bad(s, error, "writing to the journal");
    if (j->block.len > 0) /* no room: after a crash it may be delivered again (P4) */
        return;
    journal_begin(&j->block);
    journal_add(&j->block, type, id, SLICE(""), NULL);
}

bool journal_finish(struct store *s, const struct id *id)
{
    struct journal *j = &s->disk.journal;
    struct kept *k = map_remove(&j->live, id_slice(id));
    if (k == NULL)
        return false;
    note(s, JOURNAL_OVER, id);
    k->over = true;
    if (k->filed == 0) {
        kept_free(j, k);
        return true;
    }
    /* The file may come back torn while its way out of new/ is not durable: until
     * then the tail must not pass the words that it is over. */
    k->filed = s->disk.generation;
    list_remove(&k->stage);
    list_push(&j->filed, &k->stage);
    return false;
}

/* The message's bytes, from the ring; 0 or an errno value. */
static int read_kept(struct store *s, const struct kept *k, struct buf *out)
{
    struct journal *j = &s->disk.journal;
    buf_clear(out);
    if (buf_reserve(out, k->len) < 0)
        return ENOMEM;
    while (out->len < k->len) {
        ssize_t n = pread(j->fd, out->data + out->len, k->len - out->len,
                          (off_t)(place(j, k->at) + out->len));
        if (n <= 0 && !(n < 0 && errno == EINTR))
            return n < 0 ? errno : EIO;
        out->len += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* A file of this name may be there since before the power failed, whole or not. */
static int name_file(struct store *s, struct kept *k, struct free_file *f)
{
    struct bucket *b = bucket_get(s, store_bucket_of(&k->id), true);
    char name[STORE_PATH_MAX];
    if (b == NULL)
        return errno;
    bucket_changed(s, b); /* also if the file is there: its name may not be durable */
    snprintf(name, sizeof name, "%u", f->number);
    int error = fault_point("store.rename");
    if (error)
        return error;
    if (renameat2(s->disk.free_fd, name, b->fd, k->id.text, RENAME_NOREPLACE) < 0) {
        error = errno;
        if (error != EEXIST || message_is_sound(b->fd, &k->id))
            return error;
        if (renameat(s->disk.free_fd, name, b->fd, k->id.text) < 0)
            return errno;
    }
    b->in_batch = true; /* what is written to the file next may be waited for */
    return 0;
}

/* Writes the message into a file of its own; 0 or an errno value. */
static int file_kept(struct store *s, struct kept *k)
{
    struct disk *d = &s->disk;
    struct journal *j = &d->journal;
    int error = k->written ? 0 : journal_write(s);
    if (error == 0)
        error = read_kept(s, k, &j->scratch);
    if (error)
        return error;
    struct free_file *f = file_take(s);
    if (f == NULL)
        return errno;
    error = fault_point("store.write");
    if (error == 0)
        error = write_all(f->fd, buf_slice(&j->scratch), 0);
    if (error == 0)
        error = name_file(s, k, f);
    if (error && error != EEXIST) {
        file_give_back(s, f);
        return error;
    }
    if (error == EEXIST) {
        file_give_back(s, f); /* it is there, whole */
    } else {
        int fd = file_used(s, f);
        k->synced = !disk_may_syncfs(s) && fsync(fd) == 0;
        store_fd_close(s, fd);
    }
    k->filed = d->generation;
    list_remove(&k->stage);
    list_push(&j->filed, &k->stage);
    return 0;
}

int journal_file(struct store *s, const struct id *id)
{
    struct kept *k = map_get(&s->disk.journal.live, id_slice(id));
    return k && k->filed == 0 ? file_kept(s, k) : 0;
}

int journal_source(struct store *s, const struct id *id)
{
    struct journal *j = &s->disk.journal;
    struct kept *k = map_get(&j->live, id_slice(id));
    errno = 0;
    if (k == NULL || k->filed)
        return -1;
    int error = k->written ? 0 : journal_write(s);
    if (error == 0)
        error = read_kept(s, k, &j->scratch);
    int fd = error ? -1 : memfd_create("message", MFD_CLOEXEC);
    if (error == 0 && fd < 0)
        error = errno;
    if (error == 0)
        error = write_all(fd, buf_slice(&j->scratch), 0);
    if (error && fd >= 0)
        close(fd);
    errno = error;
    return error ? -1 : fd;
}

int journal_sync_files(struct store *s)
{
    int error = 0;
    list_each_safe(&s->disk.journal.filed, n)
    {
        struct kept *k = container_of(n, struct kept, stage);
        if (k->synced || k->over)
            continue;
        char path[STORE_PATH_MAX];
        store_path(path, store_bucket_of(&k->id), &k->id);
        int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0)
            error = errno;
        else
            k->synced = true;
        if (fd >= 0)
            close(fd);
    }
    return error;
}

void journal_durable(struct store *s, generation_t generation)
{
    struct journal *j = &s->disk.journal;
    while (!list_empty(&j->filed) && !s->disk.bad) {
        struct kept *k = container_of(j->filed.next, struct kept, stage);
        if (k->filed > generation)
            break;
        if (!k->over)
            note(s, JOURNAL_FILED, &k->id);
        kept_free(j, k);
    }
}

void journal_synced(struct store *s, generation_t generation, uint64_t tail)
{
    struct journal *j = &s->disk.journal;
    if (tail > j->tail)
        j->tail = tail;
    if (j->changed <= generation)
        j->unsynced = false;
}

/* ---- the superblock --------------------------------------------------------------- */

static int write_super(struct store *s)
{
    struct journal *j = &s->disk.journal;
    struct journal_super super = {.turn = ++j->turn, .size = j->size, .tail = tail_now(j)};
    char bytes[JOURNAL_SUPER];
    journal_super_encode(bytes, &super);
    int error = fault_point("journal.write");
    if (error == 0)
        error =
            write_all(j->fd, slice_make(bytes, sizeof bytes), super.turn % 2 * JOURNAL_SUPER_SLOT);
    if (error == 0)
        j->tail_written = super.tail;
    changed(s);
    return error;
}

int64_t journal_due(const struct store *s)
{
    const struct journal *j = &s->disk.journal;
    if (list_empty(&j->waiting) || s->disk.bad)
        return INT64_MAX;
    return container_of(j->waiting.next, struct kept, stage)->since + STORE_JOURNAL_STAY_US;
}

void journal_tick(struct store *s)
{
    struct journal *j = &s->disk.journal;
    bool pressed = journal_pressed(s);
    if (j->fd < 0 || s->disk.bad)
        return;
    for (int i = 0; i < STORE_JOURNAL_FILES && !list_empty(&j->waiting); i++) {
        struct kept *k = container_of(j->waiting.next, struct kept, stage);
        if ((!pressed && s->disk.now - k->since < STORE_JOURNAL_STAY_US) || !k->written)
            break;
        int error = file_kept(s, k);
        if (error) {
            /* it is safe where it is; tried again */
            k->since = s->disk.now;
            list_remove(&k->stage);
            list_push(&j->waiting, &k->stage);
            break;
        }
    }
    if (tail_now(j) - j->tail_written <= j->size / STORE_JOURNAL_TAIL_STEP)
        return;
    int error = write_super(s);
    if (error)
        disk_bad(s, error, "writing to the journal");
}

void journal_settle(struct store *s)
{
    struct journal *j = &s->disk.journal;
    if (j->fd < 0)
        return;
    list_each_safe(&j->waiting, n)
    {
        if (file_kept(s, container_of(n, struct kept, stage)) != 0)
            break; /* they stay in the ring until the next start */
    }
    dirty_sync(s);
    int error = journal_write(s);
    if (error == 0)
        error = write_super(s);
    if (error == 0 && fdatasync(j->fd) < 0)
        error = errno;
    if (error)
        store_say(s, "journal: %s", strerror(error));
}

/* ---- start ------------------------------------------------------------------------- */

/* The block at this position, read into j->block; 0, or -1 if there is none. */
static int read_block(struct journal *j, uint64_t position, enum journal_kind *kind,
                      struct slice *records)
{
    char header[JOURNAL_HEADER];
    if (pread(j->fd, header, sizeof header, (off_t)place(j, position)) != sizeof header)
        return -1;
    uint64_t len = journal_block_length(slice_make(header, sizeof header), position);
    buf_clear(&j->block);
    if (len == 0 || position % j->size + len > j->size || buf_reserve(&j->block, (size_t)len) < 0 ||
        pread(j->fd, j->block.data, (size_t)len, (off_t)place(j, position)) != (ssize_t)len)
        return -1;
    j->block.len = (size_t)len;
    return journal_block_decode(buf_slice(&j->block), position, kind, records);
}

/* A finished message's file whose way out of new/ was not durable. */
static void remove_file(struct store *s, const struct id *id)
{
    struct bucket *b = bucket_get(s, store_bucket_of(id), false);
    if (b && unlinkat(b->fd, id->text, 0) == 0)
        bucket_changed(s, b);
}

static void replay_records(struct store *s, uint64_t position, struct slice records)
{
    struct journal *j = &s->disk.journal;
    struct journal_record r;
    while (journal_next(&records, &r) > 0) {
        struct kept *k = map_get(&j->live, id_slice(&r.id));
        if (k)
            kept_free(j, k);
        if (r.type == JOURNAL_FILED)
            continue;
        if (r.type == JOURNAL_OVER) {
            remove_file(s, &r.id);
            continue;
        }
        k = kept_add(j, &r.id, position + (uint64_t)(r.bytes.ptr - j->block.data), r.bytes.len);
        k->block = position;
        k->written = true;
    }
}

/* All blocks of the last round; true if one was unreadable and others follow it. */
static bool replay(struct store *s)
{
    struct journal *j = &s->disk.journal;
    uint64_t end = j->tail + j->size;
    bool gap = false, damaged = false;
    for (uint64_t at = j->tail; at < end;) {
        enum journal_kind kind;
        struct slice records;
        if (read_block(j, at, &kind, &records) < 0) {
            gap = true; /* the end, as a rule */
            at += JOURNAL_PAGE;
            continue;
        }
        damaged |= gap;
        if (kind == JOURNAL_RECORDS)
            replay_records(s, at, records);
        at = kind == JOURNAL_WRAP ? at + j->size - at % j->size : at + j->block.len;
        j->head = at;
    }
    buf_clear(&j->block);
    return damaged;
}

static int fill(int fd, uint64_t size)
{
    static const char zeros[COPY_PIECE];
    for (uint64_t at = 0; at < size;) {
        uint64_t n = size - at < sizeof zeros ? size - at : sizeof zeros;
        int error = write_all(fd, slice_make(zeros, (size_t)n), at);
        if (error)
            return error;
        at += n;
    }
    return 0;
}

/* A new ring, empty; 0, or an errno value and there is none. Its blocks are written
 * now, so that later only data has to be synced. */
static int make_ring(struct store *s, uint64_t size)
{
    struct journal *j = &s->disk.journal;
    int fd = openat(j->dir, "ring.new", O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    int error = fill(fd, JOURNAL_PAGE + size);
    int old = j->fd;
    j->fd = fd;
    j->size = size;
    j->head = j->tail = 0;
    if (error == 0)
        error = write_super(s);
    if (error == 0 &&
        (fsync(fd) < 0 || renameat(j->dir, "ring.new", j->dir, "ring") < 0 || fsync(j->dir) < 0))
        error = errno;
    if (error) {
        unlinkat(j->dir, "ring.new", 0);
        close(fd);
        j->fd = -1;
    }
    if (old >= 0)
        close(old);
    j->unsynced = false;
    return error;
}

/* A damaged ring is kept for the operator: some of it may have been acknowledged. */
static int keep_copy(struct store *s, struct err *e)
{
    struct journal *j = &s->disk.journal;
    char name[STORE_PATH_MAX];
    snprintf(name, sizeof name, "journal.%lld", (long long)(clock_wall() / CLOCK_SECOND));
    int fd = openat(s->disk.corrupt_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, "corrupt/%s", name);
    char *piece = xmalloc(COPY_PIECE);
    int error = 0;
    ssize_t n;
    for (uint64_t at = 0; error == 0 && (n = pread(j->fd, piece, COPY_PIECE, (off_t)at)) > 0;
         at += (uint64_t)n)
        error = write_all(fd, slice_make(piece, (size_t)n), at);
    free(piece);
    if (error == 0 && fsync(fd) < 0)
        error = errno;
    close(fd);
    if (error) {
        errno = error;
        return err_sys(e, "corrupt/%s", name);
    }
    store_say(s,
              "journal/ring is damaged; a copy is in corrupt/%s. What could be read of it is in "
              "the queue",
              name);
    return 0;
}

/* Every message of the ring gets a file, durably; then the ring is empty. */
static int empty_ring(struct store *s, struct err *e)
{
    struct journal *j = &s->disk.journal;
    size_t count = j->live.count;
    errno = 0;
    list_each_safe(&j->waiting, n)
    {
        struct kept *k = container_of(n, struct kept, stage);
        errno = file_kept(s, k);
        if (errno)
            return err_sys(e, "cannot write message %s of the journal into a file in new/",
                           k->id.text);
    }
    if ((count > 0 || dirty_any(s)) && syncfs(s->disk.new_fd) < 0 &&
        ((errno = journal_sync_files(s)) != 0 || (errno = buckets_sync(s, true)) != 0))
        return err_sys(e, "cannot make the messages of the journal durable in new/");
    while (!list_empty(&j->order))
        kept_free(j, first_kept(j));
    /* Behind the end may lie blocks that were never acknowledged: the new ones
     * begin a round later, so that these are never taken for theirs. */
    j->head = (j->head / j->size + 2) * j->size;
    errno = write_super(s);
    if (errno || fdatasync(j->fd) < 0)
        return err_sys(e, "cannot write journal/ring");
    j->tail = j->tail_written;
    j->unsynced = false;
    return 0;
}

static int read_ring(struct store *s, struct err *e)
{
    struct journal *j = &s->disk.journal;
    struct journal_super super;
    struct stat st;
    char page[JOURNAL_PAGE];
    if (fstat(j->fd, &st) < 0 || pread(j->fd, page, sizeof page, 0) < 0)
        return err_sys(e, "cannot read journal/ring");
    if (file_kind_check(&st, e) < 0)
        return err_prefix(e, "journal/ring");
    if (journal_super_decode(slice_make(page, sizeof page), &super) < 0 ||
        (uint64_t)st.st_size != JOURNAL_PAGE + super.size) {
        j->size = 0;
        return keep_copy(s, e);
    }
    j->size = super.size;
    j->turn = super.turn;
    j->head = j->tail = j->tail_written = super.tail;
    if (replay(s) && keep_copy(s, e) < 0)
        return -1;
    return empty_ring(s, e);
}

int journal_open(struct store *s, struct err *e)
{
    struct journal *j = &s->disk.journal;
    uint64_t size = journal_pages(s->config.journal_size);
    if (size > 0 && size < JOURNAL_SIZE_MIN)
        size = JOURNAL_SIZE_MIN;
    j->fd = openat(j->dir, "ring", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (j->fd < 0 && errno != ENOENT)
        return err_sys(e, "cannot open journal/ring");
    if (j->fd >= 0 && read_ring(s, e) < 0)
        return -1;
    if (size > 0 && (j->fd < 0 || j->size != size)) {
        int error = make_ring(s, size);
        if (error)
            store_say(s, "there is no journal, each message gets a file at once: journal/ring: %s",
                      strerror(error));
    } else if (size == 0 && j->fd >= 0) {
        close(j->fd);
        j->fd = -1;
        unlinkat(j->dir, "ring", 0);
    }
    return 0;
}

void journal_init(struct store *s)
{
    struct journal *j = &s->disk.journal;
    j->fd = j->dir = -1;
    map_init(&j->live, kept_key);
    list_init(&j->order);
    list_init(&j->waiting);
    list_init(&j->filed);
    buf_init(&j->block, JOURNAL_BLOCK_MAX);
    buf_init(&j->scratch, JOURNAL_BYTES_MAX);
}

void journal_close(struct store *s)
{
    struct journal *j = &s->disk.journal;
    while (!list_empty(&j->order))
        kept_free(j, first_kept(j));
    map_free(&j->live);
    buf_free(&j->block);
    buf_free(&j->scratch);
    if (j->fd >= 0)
        close(j->fd);
    if (j->dir >= 0)
        close(j->dir);
}

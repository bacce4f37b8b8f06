/* The journal's ring: blocks are written round and round, and the superblock says
 * where the oldest is that counts. */
#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/mem.h"
#include "qmgr/store_internal.h"

enum { FILL_PIECE = 1024 * 1024 };

static uint64_t place(const struct journal *j, uint64_t position)
{
    return JOURNAL_PAGE + position % j->size;
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

struct journal_point journal_point(const struct store *s)
{
    const struct journal *j = &s->disk.journal;
    return (struct journal_point){.tail = j->tail_written, .head = j->head};
}

static void changed(struct store *s)
{
    struct journal *j = &s->disk.journal;
    if (j->lost)
        return;
    if (!dirty_any(s))
        s->disk.dirty_since = store_now();
    j->unsynced = true;
    j->changed = s->disk.generation;
}

uint64_t ring_random_key(void)
{
    uint64_t key;
    if (getrandom(&key, sizeof key, 0) != sizeof key)
        panic("getrandom failed");
    return key;
}

void journal_lost(struct store *s, int error)
{
    struct journal *j = &s->disk.journal;
    j->lost = true;
    j->unsynced = false;
    disk_bad(s, error, "fdatasync of journal/ring");
}

/* ---- blocks ----------------------------------------------------------------------- */

/* Room for a block this long, and for what may be lost before it where the ring ends. */
static bool has_room(const struct journal *j, size_t block, uint64_t reserve)
{
    return used(j) + 2 * journal_pages(block) + reserve <= j->size;
}

int ring_add(struct store *s, enum journal_type type, const struct id *id, struct slice bytes,
             uint64_t *at)
{
    struct journal *j = &s->disk.journal;
    size_t len = JOURNAL_RECORD + bytes.len + 7; /* filled up to a multiple of 8 */
    if (j->fd < 0 || j->broken)
        return j->broken ? j->broken : EBADF;
    if (j->block.len > 0 && j->block.len + len > STORE_JOURNAL_BLOCK) {
        int error = ring_write(s);
        if (error)
            return error;
    }
    uint64_t reserve = type == JOURNAL_MESSAGE ? j->size / STORE_JOURNAL_RESERVE : 0;
    size_t before = j->block.len ? j->block.len : JOURNAL_HEADER;
    if (!has_room(j, before + len, reserve))
        return ENOSPC;
    if (j->block.len == 0)
        journal_begin(&j->block);
    return journal_add(&j->block, type, id, bytes, at) < 0 ? EMSGSIZE : 0;
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
    journal_end(&block, JOURNAL_WRAP, j->head, j->durable, j->key);
    int error = put(j, buf_slice(&block), j->head);
    buf_free(&block);
    if (error == 0)
        j->head += j->size - j->head % j->size;
    return error;
}

int ring_write(struct store *s)
{
    struct journal *j = &s->disk.journal;
    size_t len = j->block.len;
    int error = 0;
    if (len == 0 || j->broken)
        return j->broken;
    if (journal_pages(len) > j->size - j->head % j->size)
        error = wrap(j);
    if (error == 0) {
        journal_end(&j->block, JOURNAL_RECORDS, j->head, j->durable, j->key);
        error = put(j, buf_slice(&j->block), j->head);
    }
    if (error) {
        /* tried again in the same place, with what is noted until then: nothing counts of
         * it yet */
        j->block.len = len;
        return error;
    }
    uint64_t position = j->head;
    j->head += j->block.len;
    buf_clear(&j->block);
    changed(s);
    kept_written(s, position);
    fault_point("journal.written");
    return 0;
}

int ring_read(struct store *s, const struct kept *k, struct buf *out)
{
    struct journal *j = &s->disk.journal;
    buf_clear(out);
    if (!k->written)
        return EAGAIN;
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

/* Reads at a position; the bytes that there are. An error is remembered. */
static size_t read_at(struct journal *j, char *to, size_t len, uint64_t position)
{
    ssize_t n = pread(j->fd, to, len, (off_t)place(j, position));
    while (n < 0 && errno == EINTR)
        n = pread(j->fd, to, len, (off_t)place(j, position));
    if (n < 0)
        j->unreadable = errno;
    return n < 0 ? 0 : (size_t)n;
}

int ring_read_block(struct journal *j, uint64_t position, struct journal_block *block)
{
    char header[JOURNAL_HEADER];
    if (read_at(j, header, sizeof header, position) != sizeof header)
        return -1;
    uint64_t len = journal_block_length(slice_make(header, sizeof header), position);
    buf_clear(&j->block);
    if (len == 0 || position % j->size + len > j->size || buf_reserve(&j->block, (size_t)len) < 0 ||
        read_at(j, j->block.data, (size_t)len, position) != len)
        return -1;
    j->block.len = (size_t)len;
    return journal_block_decode(buf_slice(&j->block), position, j->key, block);
}

/* ---- the superblock --------------------------------------------------------------- */

uint64_t ring_tail(const struct journal *j)
{
    if (list_empty(&j->order))
        return j->head;
    const struct kept *first = container_of(j->order.next, struct kept, order);
    return first->written ? first->block : j->head;
}

int ring_write_super(struct store *s, uint64_t tail)
{
    struct journal *j = &s->disk.journal;
    struct journal_super super = {
        .turn = j->turn + 1, .size = j->size, .tail = tail, .key = j->key};
    char bytes[JOURNAL_SUPER];
    journal_super_encode(bytes, &super);
    int error = fault_point("journal.write");
    if (error == 0)
        error =
            write_all(j->fd, slice_make(bytes, sizeof bytes), super.turn % 2 * JOURNAL_SUPER_SLOT);
    if (error)
        return error;
    j->turn++;
    j->tail_written = tail;
    changed(s);
    return 0;
}

/* ---- a new one ---------------------------------------------------------------------- */

/* Its blocks are written now, so that later only data has to be synced. */
static int fill(int fd, uint64_t size)
{
    static const char zeros[FILL_PIECE];
    for (uint64_t at = 0; at < size;) {
        uint64_t n = size - at < sizeof zeros ? size - at : sizeof zeros;
        int error = write_all(fd, slice_make(zeros, (size_t)n), at);
        if (error)
            return error;
        at += n;
    }
    return 0;
}

static int fill_and_name(struct store *s)
{
    struct journal *j = &s->disk.journal;
    int error = fill(j->fd, JOURNAL_PAGE + j->size);
    if (error == 0)
        error = ring_write_super(s, 0);
    if (error == 0 &&
        (fsync(j->fd) < 0 || renameat(j->dir, "ring.new", j->dir, "ring") < 0 || fsync(j->dir) < 0))
        error = errno;
    return error;
}

int ring_make(struct store *s, uint64_t size)
{
    struct journal *j = &s->disk.journal;
    if (j->fd >= 0)
        close(j->fd);
    j->fd = openat(j->dir, "ring.new", O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (j->fd < 0)
        return errno;
    j->size = size;
    j->head = j->tail = j->durable = 0;
    j->broken = 0;
    j->key = ring_random_key();
    int error = fill_and_name(s);
    if (error) {
        unlinkat(j->dir, "ring.new", 0);
        close(j->fd);
        j->fd = -1;
    }
    j->unsynced = false;
    return error;
}

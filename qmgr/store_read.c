/* Reads messages back: threads of their own, so that a cold disk delays no
 * commit, and several, so that many reads can wait for it side by side. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/fault.h"
#include "core/mem.h"
#include "qmgr/store_internal.h"

int file_kind_check(const struct stat *st, struct err *e)
{
    if (!S_ISREG(st->st_mode))
        return err_set(e, "is not a regular file");
    if (st->st_nlink != 1)
        return err_set(e, "has more than one name");
    if (st->st_uid != geteuid())
        return err_set(e, "belongs to another user (%u)", (unsigned)st->st_uid);
    return 0;
}

/* Reads len bytes; 0, or -1 with number 0 at the end of the file. */
static int read_at(int fd, void *to, size_t len, uint64_t at, struct err *e)
{
    char *p = to;
    if ((errno = fault_point("store.read")) != 0)
        return err_sys(e, "cannot be read");
    while (len) {
        ssize_t n = pread(fd, p, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "cannot be read");
        if (n == 0) {
            err_set(e, "ends before its header says");
            e->number = 0;
            return -1;
        }
        p += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

/* ---- what of the file is in memory while it is being read ---------------------- */

struct view {
    int fd;
    uint64_t size;
    char block[STORE_BLOCK];
    size_t block_len;
    struct buf head, records; /* of an image: when they do not fit into the block */
};

/* Reads the block; 0, or -1 as read_at. */
static int view_open(struct view *v, int fd, const struct stat *st, struct err *e)
{
    v->fd = fd;
    v->size = (uint64_t)st->st_size;
    v->block_len = v->size < STORE_BLOCK ? (size_t)v->size : STORE_BLOCK;
    return read_at(fd, v->block, v->block_len, 0, e);
}

/* Copies bytes, of which those behind the block are read. */
static int view_copy(const struct view *v, char *to, size_t len, uint64_t at, struct err *e)
{
    size_t have = at < v->block_len ? v->block_len - (size_t)at : 0;
    if (have > len)
        have = len;
    if (have)
        memcpy(to, v->block + at, have);
    return have < len ? read_at(v->fd, to + have, len - have, at + have, e) : 0;
}

/* ---- an image: all but the content ------------------------------------------- */

/* The bytes from `at`, from the block or else read into `into`. */
static int view_bytes(struct view *v, uint64_t at, size_t len, struct buf *into, struct slice *out,
                      struct err *e)
{
    if (at + len <= v->block_len) {
        *out = slice_make(v->block + at, len);
        return 0;
    }
    buf_clear(into);
    if (buf_reserve(into, len) < 0) {
        e->number = 0;
        return err_set(e, "is too large");
    }
    if (read_at(v->fd, into->data, len, at, e) < 0)
        return -1;
    into->len = len;
    *out = slice_make(into->data, len);
    return 0;
}

/* Reads until the list of records ends. */
static int view_records(struct view *v, const struct id *id, uint64_t at, struct slice *out,
                        struct err *e)
{
    uint64_t rest = v->size - at;
    size_t want = at + SPOOL_RECORDS_END <= v->block_len ? v->block_len - (size_t)at : STORE_BLOCK;
    for (;;) {
        struct slice bytes;
        bool more;
        if (want > rest)
            want = (size_t)rest;
        if (view_bytes(v, at, want, &v->records, &bytes, e) < 0)
            return -1;
        *out = slice_first(bytes, spool_records_length(bytes, id, &more));
        if (!more || want == rest || want >= STORE_RECORDS_MAX)
            return 0;
        want = want * 2 + SPOOL_RECORD_MAX;
    }
}

static struct message_image *image_make(const struct spool_layout *l, struct slice head,
                                        struct slice records, const struct stat *st)
{
    struct message_image *m = xmalloc(sizeof *m + head.len + records.len);
    memcpy(m->bytes, head.ptr, head.len);
    if (records.len)
        memcpy(m->bytes + head.len, records.ptr, records.len);
    list_init(&m->link);
    m->ring = false;
    m->found = (struct store_found){
        .id = l->id,
        .ref = {.fd = -1,
                .status_at = l->status_at,
                .prefix_len = (uint32_t)l->prefix_len,
                .body_at = l->body_at,
                .body_len = l->body_len,
                .records_end = l->records_at + records.len,
                .large = l->large},
        .envelope = &m->envelope,
        .status = m->bytes + l->envelope_len,
        .records = slice_make(m->bytes + head.len, records.len),
        .file_time = st->st_mtim.tv_sec * INT64_C(1000000) + st->st_mtim.tv_nsec / 1000,
    };
    return m;
}

static enum spool_verdict view_read(struct view *v, const struct id *expected,
                                    const struct stat *st, struct message_image **out,
                                    struct err *e)
{
    struct spool_layout l;
    struct slice header = slice_make(v->block, v->block_len), head, records;
    enum spool_verdict verdict = spool_decode_header(header, v->size, expected, &l, e);
    if (verdict != SPOOL_GOOD)
        return verdict;
    /* envelope and status, and in a large file the prefix behind them */
    size_t len = (size_t)(l.envelope_len + l.recipient_count + (l.large ? l.prefix_len : 0));
    if (view_bytes(v, l.envelope_at, len, &v->head, &head, e) < 0 ||
        view_records(v, expected, l.records_at, &records, e) < 0)
        return SPOOL_CORRUPT;
    struct message_image *m = image_make(&l, head, records, st);
    struct slice copy = slice_make(m->bytes, len);
    verdict = spool_decode_envelope(
        header, &l, slice_first(copy, (size_t)l.envelope_len),
        slice_first(slice_from(copy, (size_t)l.envelope_len), l.recipient_count),
        slice_from(copy, (size_t)l.envelope_len + l.recipient_count), &m->envelope, e);
    if (verdict == SPOOL_GOOD)
        *out = m;
    else
        free(m);
    return verdict;
}

enum spool_verdict image_read(int fd, const struct id *expected, const struct stat *st,
                              struct message_image **out, struct err *e)
{
    struct view v;
    *e = (struct err){0};
    v.head = v.records = BUF_INIT(SPOOL_ENVELOPE_MAX * 3ul);
    if (view_open(&v, fd, st, e) < 0)
        return SPOOL_CORRUPT;
    enum spool_verdict verdict = view_read(&v, expected, st, out, e);
    buf_free(&v.head);
    buf_free(&v.records);
    return verdict;
}

/* ---- the operations ----------------------------------------------------------- */

/* A damaged file goes to corrupt/ before its owner hears of it; of one that is
 * gone only the cached descriptor is closed. */
static void report_damage(struct store *s, struct op *op, const struct stat *st)
{
    struct op *q = op_new(OP_QUARANTINE, &op->id, &op->ref);
    q->u.bad.inode = st->st_ino;
    q->error = xstrdup(op->error);
    store_inject_one(s, q);
}

/* Opens the message's file and checks what it is. Sets *damaged if the message
 * is lost to the queue. */
static int open_message(struct store *s, struct op *op, struct stat *st, bool *damaged)
{
    char path[STORE_PATH_MAX];
    struct err e = {0};
    *st = (struct stat){0};
    store_path(path, op->ref.bucket, &op->id);
    bool own = op->source < 0;
    int fd = own ? open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : op->source;
    if (!own)
        atomic_fetch_sub(&s->stat_sources, 1);
    op->source = -1;
    if (fd < 0) {
        *damaged = errno == ENOENT;
        op_fail(op, "%s: %s", path, *damaged ? "the file is gone" : strerror(errno));
        if (*damaged)
            report_damage(s, op, st);
        return -1;
    }
    if (fstat(fd, st) < 0) {
        op_fail(op, "%s: %s", path, strerror(errno));
    } else if (own && file_kind_check(st, &e) < 0) {
        op_fail(op, "%s: %s", path, e.text);
    } else {
        return fd;
    }
    close(fd);
    return -1;
}

/* Reads prefix and body into op->bytes; true: good. *e has number 0 if the file
 * is to blame. */
static bool read_content(struct op *op, int fd, const struct stat *st, struct err *e)
{
    struct view v;
    struct spool_layout l;
    if (st->st_size < SPOOL_HEADER) {
        err_set(e, "is shorter than its header");
        e->number = 0;
        return false;
    }
    if (view_open(&v, fd, st, e) < 0 || spool_decode_header(slice_make(v.block, SPOOL_HEADER),
                                                            v.size, &op->id, &l, e) != SPOOL_GOOD)
        return false;
    uint64_t body = op->u.read.limit < l.body_len ? op->u.read.limit : l.body_len;
    buf_init(&op->bytes, (size_t)(l.prefix_len + body));
    if (buf_reserve(&op->bytes, (size_t)(l.prefix_len + body)) < 0)
        return false;
    char *to = op->bytes.data;
    if (view_copy(&v, to, (size_t)l.prefix_len, l.prefix_at, e) < 0 ||
        view_copy(&v, to + l.prefix_len, (size_t)body, l.body_at, e) < 0)
        return false;
    op->u.read.prefix_len = (size_t)l.prefix_len;
    op->bytes.len = (size_t)(l.prefix_len + body);
    size_t skip = l.large ? (size_t)l.prefix_len : 0;
    if (body == l.body_len && XXH3_64bits(to + skip, op->bytes.len - skip) != l.content_sum) {
        err_set(e, "the content's checksum is wrong");
        return false;
    }
    return true;
}

/* The message cannot be read; true if its file is to blame, which is moved then. Bytes
 * of the ring have no file to move: the next read is of the file that it gets. */
static bool judge_damage(struct store *s, struct op *op, const struct stat *st, const struct err *e)
{
    if (op->from_ring) {
        op_fail(op, "journal/ring: %s", e->text);
        return false;
    }
    op_fail(op, "%s", e->text);
    if (e->number != 0)
        return false;
    report_damage(s, op, st);
    return true;
}

static void run_read(struct store *s, struct op *op, struct list *done)
{
    struct stat st;
    struct err e = {0};
    int fd = open_message(s, op, &st, &op->u.read.damaged);
    if (fd >= 0 && !read_content(op, fd, &st, &e)) {
        op->u.read.damaged = judge_damage(s, op, &st, &e);
    }
    if (fd >= 0)
        close(fd);
    list_push(done, &op->link);
}

static void run_load(struct store *s, struct op *op, struct list *done)
{
    struct stat st;
    struct err e = {0};
    struct message_image *m = NULL;
    int fd = open_message(s, op, &st, &op->u.load.damaged);
    if (fd >= 0 && image_read(fd, &op->id, &st, &m, &e) != SPOOL_GOOD) {
        op->u.load.damaged = judge_damage(s, op, &st, &e);
    }
    if (fd >= 0)
        close(fd);
    if (m) {
        m->found.ref.bucket = op->ref.bucket;
        m->found.ref.fd = op->ref.fd;
        /* the offset as the loop counts it: dirty_record takes this off again */
        m->found.ref.records_end += op->u.load.shift;
        op->u.load.image = m;
    }
    list_push(done, &op->link);
}

void read_queue(struct store *s, struct op *op)
{
    pthread_mutex_lock(&s->read_mutex);
    list_push(&s->read_queue, &op->link);
    if (s->read_count++ % STORE_READ_CHUNK == 0) /* one reader for each chunk */
        pthread_cond_signal(&s->read_work);
    pthread_mutex_unlock(&s->read_mutex);
}

/* Takes some operations, when there are any. False: it is over. */
static bool take(struct store *s, struct list *chunk)
{
    pthread_mutex_lock(&s->read_mutex);
    while (list_empty(&s->read_queue) && !s->read_stop)
        pthread_cond_wait(&s->read_work, &s->read_mutex);
    struct list *n;
    for (int i = 0; i < STORE_READ_CHUNK && (n = list_pop(&s->read_queue)); i++) {
        list_push(chunk, n);
        s->read_count--;
    }
    pthread_mutex_unlock(&s->read_mutex);
    return !list_empty(chunk);
}

void *read_main(void *store)
{
    struct store *s = store;
    struct list chunk, done;
    list_init(&chunk);
    list_init(&done);
    while (take(s, &chunk)) {
        for (struct list *n; (n = list_pop(&chunk)) != NULL;) {
            struct op *op = container_of(n, struct op, link);
            if (op->kind == OP_READ)
                run_read(s, op, &done);
            else
                run_load(s, op, &done);
        }
        store_complete(s, &done);
    }
    return NULL;
}

/*
 * Group commit. Each message is written into a file and gets its name in new/
 * (commit_write); then all files are made durable side by side, then their
 * directories, and only then the completions go out (batch_sync).
 *
 * The name comes before the fsync: the file system then needs one commit of its
 * journal for a batch instead of two. What a power failure in between leaves
 * was never acknowledged; see doc/spool-crash-argument.md.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/mem.h"
#include "qmgr/store_internal.h"

int write_all(int fd, struct slice bytes, uint64_t at)
{
    while (bytes.len) {
        ssize_t n = pwrite(fd, bytes.ptr, bytes.len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : ENOSPC;
        bytes = slice_from(bytes, (size_t)n);
        at += (uint64_t)n;
    }
    return 0;
}

static void refuse(struct store *s, struct op *op, int code)
{
    op->u.commit.code = code;
    store_complete_one(s, op);
}

/* F21, F23: no space is the message's bad luck; F26: a disk that cannot be
 * written is everybody's. */
static void refuse_errno(struct store *s, struct op *op, int error, const char *what)
{
    op_fail(op, "%s: %s", what, strerror(error));
    if (error == EIO || error == EROFS)
        disk_bad(s, error, what);
    refuse(s, op, error == ENOSPC || error == EDQUOT ? 452 : 451);
}

void batch_add(struct store *s, struct op *op)
{
    struct disk *d = &s->disk;
    if (d->batch_count == d->batch_capacity) {
        d->batch_capacity = d->batch_capacity ? d->batch_capacity * 2 : 64;
        d->batch = xreallocarray(d->batch, d->batch_capacity, sizeof(struct op *));
    }
    d->batch[d->batch_count++] = op;
    d->batch_commits += op->kind == OP_COMMIT;
    d->batch_files += op->kind == OP_COMMIT ? !op->u.commit.journal : op->u.record.fd >= 0;
}

static void fill_ref(struct op *op, const struct spool_layout *l)
{
    op->u.commit.ref = (struct store_ref){.bucket = op->u.commit.bucket,
                                          .fd = -1,
                                          .status_at = l->status_at,
                                          .prefix_len = (uint32_t)l->prefix_len,
                                          .body_at = l->body_at,
                                          .body_len = l->body_len,
                                          .records_end = l->records_at,
                                          .large = l->large};
}

/* Gives the file its name in new/; 0 or an errno value. */
static int give_name(struct store *s, struct op *op, int from_fd, const char *from)
{
    if (op->u.commit.c->replace)
        dirty_forget(s, &op->id); /* of the file that is replaced */
    struct bucket *b = bucket_get(s, op->u.commit.bucket, true);
    int error = b ? fault_point("store.rename") : errno;
    if (error)
        return error;
    if (journal_has(s, &op->id))
        return EEXIST;
    if (op->u.commit.c->replace) {
        /* the old file is the only durable copy until the new one is */
        if (fault_point("store.file_fsync") || fsync(op->u.commit.fd) < 0)
            return EIO;
        error = renameat(from_fd, from, b->fd, op->id.text) < 0 ? errno : 0;
    } else {
        error = renameat2(from_fd, from, b->fd, op->id.text, RENAME_NOREPLACE) < 0 ? errno : 0;
    }
    if (error)
        return error;
    b->in_batch = true;
    bucket_changed(s, b);
    fault_point("store.renamed");
    return 0;
}

/* Whether another message has this ID. */
static bool is_taken(struct store *s, const struct op *op)
{
    struct stat st;
    if (journal_has(s, &op->id))
        return true;
    if (!op->u.commit.check) /* its owner knows all */
        return false;
    struct bucket *b = bucket_get(s, op->u.commit.bucket, false);
    return b && fstatat(b->fd, op->id.text, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* True: it is done with, one way or the other. */
static bool into_journal(struct store *s, struct op *op, const struct spool_layout *layout)
{
    if (is_taken(s, op)) {
        refuse_errno(s, op, EEXIST, "naming a message in new/");
        return true;
    }
    if (!journal_commit(s, &op->id, buf_slice(&s->disk.scratch)))
        return false;
    op->u.commit.fd = -1;
    op->u.commit.journal = true;
    fill_ref(op, layout);
    batch_add(s, op);
    return true;
}

static void write_small(struct store *s, struct op *op)
{
    struct disk *d = &s->disk;
    struct store_commit *c = op->u.commit.c;
    struct spool_layout layout;
    buf_clear(&d->scratch);
    if (spool_encode_small(&d->scratch, &layout, &op->id, &c->envelope, c->prefix, c->body) < 0) {
        op_fail(op, "the envelope is too large or its recipients are not %u",
                c->envelope.recipient_count);
        refuse(s, op, 452);
        return;
    }
    if (!c->replace && strlen(op->id.text) == ID_LEN && into_journal(s, op, &layout))
        return;
    struct free_file *f = file_take(s);
    if (f == NULL) {
        refuse_errno(s, op, errno, "a file in free/");
        return;
    }
    op->u.commit.fd = f->fd;
    int error = fault_point("store.write");
    if (error == 0)
        error = write_all(f->fd, buf_slice(&d->scratch), 0);
    const char *what = "writing a message";
    if (error == 0) {
        char name[16];
        snprintf(name, sizeof name, "%u", f->number);
        what = "naming a message in new/";
        error = give_name(s, op, file_directory(s, f), name);
    }
    if (error) {
        file_give_back(s, f);
        refuse_errno(s, op, error, what);
        return;
    }
    file_used(s, f);
    fill_ref(op, &layout);
    batch_add(s, op);
}

/* 0, or an errno value and *what. */
static int finish_large(struct store *s, struct op *op, struct spool_layout *layout,
                        const char **what)
{
    struct disk *d = &s->disk;
    const struct store_commit *c = op->u.commit.c;
    int fd = op->u.commit.fd;
    struct stat st;
    *what = "a large message";
    buf_clear(&d->scratch);
    buf_clear(&d->trailer);
    /* smtpd wrote it: more or less than it says is its mistake, or worse */
    if (fstat(fd, &st) < 0)
        return errno;
    if (c->large_len > INT64_MAX - SPOOL_LARGE_BODY ||
        (uint64_t)st.st_size != SPOOL_LARGE_BODY + c->large_len)
        return EBADMSG;
    if (spool_encode_large(&d->scratch, &d->trailer, layout, &op->id, &c->envelope, c->prefix,
                           c->large_len, c->large_sum) < 0)
        return EMSGSIZE;
    int error = fault_point("store.write");
    if (error == 0)
        error = write_all(fd, buf_slice(&d->trailer), layout->envelope_at);
    if (error == 0)
        error = write_all(fd, buf_slice(&d->scratch), 0);
    *what = error ? "writing a large message" : "naming a large message in new/";
    return error ? error : give_name(s, op, d->tmp_fd, op->id.text);
}

static void write_large(struct store *s, struct op *op)
{
    struct spool_layout layout;
    const char *what = "fsync of a large message";
    int error = op->error ? op->u.commit.code : finish_large(s, op, &layout, &what);
    if (error) {
        close(op->u.commit.fd);
        unlinkat(s->disk.tmp_fd, op->id.text, 0);
        refuse_errno(s, op, error, what);
        return;
    }
    store_fd_opened(s);
    fill_ref(op, &layout);
    batch_add(s, op);
}

void commit_write(struct store *s, struct op *op)
{
    struct disk *d = &s->disk;
    bool large = op->u.commit.c->large_fd >= 0;
    d->last_commit = d->now;
    if (d->bad) {
        if (large) {
            close(op->u.commit.fd);
            unlinkat(d->tmp_fd, op->id.text, 0);
        }
        op_fail(op, "the spool's disk has failed");
        refuse(s, op, 451);
        return;
    }
    if (large && !op->u.commit.presynced) {
        /* megabytes are written out beside the batches, not in one */
        sync_large(&s->sync, op);
        return;
    }
    op->u.commit.bucket = store_bucket_of(&op->id);
    if (large)
        write_large(s, op);
    else
        write_small(s, op);
    if (d->scratch.cap > STORE_SCRATCH_KEEP)
        buf_free(&d->scratch);
    if (d->trailer.cap > STORE_SCRATCH_KEEP)
        buf_free(&d->trailer);
}

/* ---- the batch --------------------------------------------------------------------- */

static void commit_succeeded(struct store *s, struct op *op)
{
    int fd = op->u.commit.fd;
    if (op->u.commit.ref.large || s->stat_open > s->config.open_max)
        store_fd_close(s, fd);
    else
        op->u.commit.ref.fd = fd;
    atomic_fetch_add(&s->stat_committed, 1);
}

/* It was not acknowledged and must leave no trace. The file is not used again:
 * nobody knows what the disk holds of it. */
static void commit_failed(struct store *s, struct op *op, int error)
{
    struct bucket *b = NULL;
    if (!op->u.commit.journal || !journal_finish(s, &op->id)) /* it may have got a file */
        b = bucket_get(s, op->u.commit.bucket, false);
    if (b) {
        unlinkat(b->fd, op->id.text, 0);
        bucket_changed(s, b);
    }
    store_fd_close(s, op->u.commit.fd);
    if (error == ENOSPC || error == EDQUOT)
        op_fail(op, "writing to the journal: %s", strerror(error));
    else
        op_fail(op, "the spool's disk has failed");
    op->u.commit.code = error == ENOSPC || error == EDQUOT ? 452 : 451;
}

static bool needs_journal(const struct op *op)
{
    return op->kind == OP_COMMIT ? op->u.commit.journal : op->u.record.ring;
}

/* The files of the batch, and the journal once for all that are in it. */
static size_t list_jobs(struct disk *d)
{
    size_t n = 0;
    if (d->job_capacity < d->batch_count + 1) {
        d->job_capacity = d->batch_capacity + 1;
        d->jobs = xreallocarray(d->jobs, d->job_capacity, sizeof *d->jobs);
    }
    bool journal = false;
    for (size_t i = 0; i < d->batch_count; i++) {
        const struct op *op = d->batch[i];
        int fd = op->kind == OP_COMMIT ? op->u.commit.fd : op->u.record.fd;
        journal |= needs_journal(op);
        if (fd >= 0)
            d->jobs[n++].fd = fd;
    }
    if (journal)
        d->jobs[n++].fd = d->journal.fd;
    return n;
}

/* Files side by side, then directories; 0 or an errno value. */
static int make_durable(struct store *s)
{
    struct disk *d = &s->disk;
    int error = 0;
    size_t jobs = list_jobs(d);
    if (sync_run(&s->sync, d->jobs, jobs) > 0) {
        for (size_t i = 0; i < jobs; i++)
            error = d->jobs[i].error ? d->jobs[i].error : error;
        disk_bad(s, error, "fsync of a message");
        const struct sync_job *last = &d->jobs[jobs - 1]; /* where list_jobs puts the ring */
        if (last->fd == d->journal.fd && last->error)
            journal_lost(s, last->error);
        return error;
    }
    fault_point("store.files_synced");
    if (d->batch_files > 0 && (error = buckets_sync(s, false)) != 0)
        disk_bad(s, error, "fsync of a directory of new/");
    fault_point("store.dirs_synced");
    return error;
}

void batch_failed(struct store *s, struct op **batch, size_t count, int error)
{
    struct list done;
    list_init(&done);
    for (size_t i = 0; i < count; i++) {
        struct op *op = batch[i];
        if (op->kind == OP_RECORD)
            op_fail(op, "fsync: %s", strerror(error));
        else
            commit_failed(s, op, error);
        list_push(&done, &op->link);
    }
    /* that they are over, before their clients hear it: they would come back if this process
     * died in between. Without room their block itself is not written yet. */
    if (error != ENOSPC && error != EDQUOT)
        (void)journal_write(s);
    store_complete(s, &done);
}

void batch_succeeded(struct store *s, struct op **batch, size_t count, struct list *done)
{
    for (size_t i = 0; i < count; i++) {
        if (batch[i]->kind == OP_COMMIT)
            commit_succeeded(s, batch[i]);
        list_push(done, &batch[i]->link);
    }
    atomic_fetch_add(&s->stat_batches, count > 0); /* a sweep is none */
}

bool batch_has(const struct store *s, const struct id *id)
{
    const struct disk *d = &s->disk;
    for (size_t i = 0; i < d->batch_count && d->batch_count > d->batch_commits; i++)
        if (d->batch[i]->kind == OP_RECORD && d->batch[i]->u.record.fd >= 0 &&
            slice_eq(id_slice(&d->batch[i]->id), id_slice(id)))
            return true;
    return flights_have(s, id);
}

/* The journal's block cannot be written (where even overwriting takes room, for want of it):
 * what of the batch is in it is refused. It is written later, with the words that these
 * messages are over. */
static void refuse_journalled(struct store *s, int error)
{
    struct disk *d = &s->disk;
    size_t kept = 0, refused = 0;
    struct op **out = d->batch_count ? xreallocarray(NULL, d->batch_count, sizeof *out) : NULL;
    for (size_t i = 0; i < d->batch_count; i++) {
        struct op *op = d->batch[i];
        bool waits = op->kind == OP_COMMIT ? op->u.commit.journal && !journal_is_written(s, &op->id)
                                           : op->u.record.ring;
        if (!waits) {
            d->batch[kept++] = op;
            continue;
        }
        d->batch_commits -= op->kind == OP_COMMIT;
        d->batch_files -= op->kind == OP_RECORD && op->u.record.fd >= 0;
        out[refused++] = op;
    }
    d->batch_count = kept;
    batch_failed(s, out, refused, error);
    free(out);
}

void batch_write_journal(struct store *s)
{
    int error = journal_write(s);
    if (error == 0)
        return;
    if (error != ENOSPC && error != EDQUOT)
        disk_bad(s, error, "writing to the journal");
    refuse_journalled(s, error);
}

void batch_sync_each(struct store *s)
{
    struct disk *d = &s->disk;
    struct list done;
    flights_wait(s);
    batch_write_journal(s);
    if (d->batch_count == 0)
        return;
    list_init(&done);
    int error = make_durable(s);
    if (error)
        batch_failed(s, d->batch, d->batch_count, error);
    else
        batch_succeeded(s, d->batch, d->batch_count, &done);
    d->batch_count = d->batch_commits = d->batch_files = 0;
    store_complete(s, &done);
}

/* Whether a thread may sync the batch with one call. */
static bool can_fly(const struct store *s)
{
    return s->disk.batch_files == 0 || disk_may_syncfs(s);
}

static void sync_batch(struct store *s, bool (*wait)(struct store *s))
{
    bool failed = wait(s);
    batch_write_journal(s);
    if (!failed && s->disk.batch_count > 0 && can_fly(s) && flight_start(s)) {
        failed = wait(s);
        batch_write_journal(s);
    }
    if (failed || s->disk.batch_count > 0)
        batch_sync_each(s);
}

void batch_sync(struct store *s)
{
    sync_batch(s, flights_wait);
}

void batch_sync_beside(struct store *s)
{
    sync_batch(s, flights_wait_batches);
}

void batch_send(struct store *s)
{
    struct disk *d = &s->disk;
    batch_write_journal(s);
    while (d->batch_count > 0 && can_fly(s)) {
        if (flight_start(s) || d->batch_commits < s->config.batch_max)
            return;
        if (flights_wait_for_one(s))
            break;
    }
    if (d->batch_count > 0)
        batch_sync_each(s);
}

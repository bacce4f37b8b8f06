#include "qmgr/store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/mem.h"
#include "qmgr/store_internal.h"

enum { DESCRIPTORS_FOR_OTHERS = 256 };

static void on_submit(evutil_socket_t fd, short what, void *arg)
{
    struct store *s = arg;
    (void)fd;
    (void)what;
    if (!list_empty(&s->outbox))
        store_inject(s, &s->outbox);
}

/* What is called in one turn of the loop goes to the disk thread together, so
 * that one group commit takes it all. */
static void submit(struct store *s, struct op *op, bool completes)
{
    if (list_empty(&s->outbox))
        event_active(s->submit, EV_TIMEOUT, 0);
    list_push(&s->outbox, &op->link);
    s->outstanding += completes;
}

/* ---- the calls ---------------------------------------------------------------- */

static struct slice recent_key(const void *value)
{
    return id_slice(value);
}

void store_remember(struct store *s, const struct id *id)
{
    struct id *copy = xmalloc(sizeof *copy);
    *copy = *id;
    free(map_put(&s->recent, copy));
}

void store_commit(struct store *s, struct store_commit *c)
{
    if (!s->scan_over)
        store_remember(s, &c->id);
    struct op *op = op_new(OP_COMMIT, &c->id, NULL);
    op->u.commit.c = c;
    op->u.commit.fd = c->large_fd;
    op->u.commit.check = !s->scan_over;
    submit(s, op, true);
}

void store_large_create(struct store *s, const struct id *id,
                        void (*done)(int fd, const char *error, int code, void *arg), void *arg)
{
    struct op *op = op_new(OP_LARGE_CREATE, id, NULL);
    op->u.create.done = done;
    op->u.create.fd = -1;
    op->arg = arg;
    submit(s, op, true);
}

int store_large_writer(struct store *s, const struct id *id, struct err *e)
{
    int fd = openat(s->disk.tmp_fd, id->text, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "tmp/%s", id->text);
    if (lseek(fd, SPOOL_LARGE_BODY, SEEK_SET) != SPOOL_LARGE_BODY) {
        err_sys(e, "tmp/%s", id->text);
        close(fd);
        return -1;
    }
    return fd;
}

void store_large_abort(struct store *s, const struct id *id, int fd)
{
    struct op *op = op_new(OP_LARGE_ABORT, id, NULL);
    op->u.create.fd = fd;
    submit(s, op, false);
}

void store_mark(struct store *s, const struct id *id, struct store_ref *ref, uint32_t recipient,
                enum spool_status status)
{
    struct op *op = op_new(OP_MARK, id, ref);
    op->u.mark.recipient = recipient;
    op->u.mark.status = (char)status;
    submit(s, op, false);
}

void store_record(struct store *s, const struct id *id, struct store_ref *ref, struct slice record,
                  void (*done)(const char *error, void *arg), void *arg)
{
    struct op *op = op_new(OP_RECORD, id, ref);
    static const char end[SPOOL_RECORDS_END];
    buf_init(&op->bytes, SIZE_MAX);
    buf_adds(&op->bytes, record);
    buf_add(&op->bytes, end, sizeof end);
    op->u.record.done = done;
    op->arg = arg;
    ref->records_end += record.len;
    submit(s, op, done != NULL);
}

void store_sync(struct store *s, void (*done)(const char *error, void *arg), void *arg)
{
    struct op *op = op_new(OP_SYNC, NULL, NULL);
    op->u.sync.done = done;
    op->arg = arg;
    submit(s, op, true);
}

void store_unload(struct store *s, const struct id *id, struct store_ref *ref)
{
    if (ref->fd < 0)
        return;
    struct op *op = op_new(OP_UNLOAD, id, ref);
    ref->fd = -1;
    submit(s, op, false);
}

void store_finish(struct store *s, const struct id *id, struct store_ref *ref)
{
    struct op *op = op_new(OP_FINISH, id, ref);
    ref->fd = -1;
    submit(s, op, false);
}

void store_read(struct store *s, const struct id *id, const struct store_ref *ref, uint64_t limit,
                void (*done)(struct slice prefix, struct slice body, const char *error, void *arg),
                void *arg)
{
    struct op *op = op_new(OP_READ, id, ref);
    op->u.read.done = done;
    op->u.read.limit = limit;
    op->arg = arg;
    submit(s, op, true);
}

void store_load(struct store *s, const struct id *id, const struct store_ref *ref,
                void (*done)(const struct store_found *found, const char *error, void *arg),
                void *arg)
{
    struct op *op = op_new(OP_LOAD, id, ref);
    op->u.load.done = done;
    op->arg = arg;
    submit(s, op, true);
}

int store_reader(struct store *s, const struct id *id, const struct store_ref *ref, struct err *e)
{
    char path[STORE_PATH_MAX];
    (void)s;
    store_path(path, ref->bucket, id);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? err_sys(e, "%s", path) : fd;
}

int store_state(const struct store *s)
{
    return s->state;
}

void store_yield(struct store *s, uint64_t bytes, uint64_t files)
{
    s->yield_bytes = bytes;
    s->yield_files = files;
}

bool store_is_quarantined(const struct store *s, struct slice id)
{
    char name[ID_MAX + 1];
    struct stat st;
    if (id.len > ID_MAX || !id_valid(id))
        return false;
    snprintf(name, sizeof name, "%.*s", SLICE_ARG(id));
    return fstatat(s->disk.corrupt_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

void store_stats(const struct store *s, struct store_stats *out)
{
    *out = (struct store_stats){.bytes_free = s->stat_bytes,
                                .inodes_free = s->stat_inodes,
                                .pending = s->outstanding,
                                .batches = s->stat_batches,
                                .committed = s->stat_committed,
                                .free_files = s->stat_free,
                                .open_files = s->stat_open};
}

/* ---- start and stop ----------------------------------------------------------- */

static void init_shared(struct store *s)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->work, &monotonic);
    pthread_mutex_init(&s->read_mutex, NULL);
    pthread_cond_init(&s->read_work, NULL);
    pthread_mutex_init(&s->scan_mutex, NULL);
    pthread_cond_init(&s->scan_room, NULL);
    pthread_condattr_destroy(&monotonic);
    list_init(&s->outbox);
    list_init(&s->inbox);
    list_init(&s->donebox);
    list_init(&s->read_queue);
    map_init(&s->recent, recent_key);
    map_hash(SLICE("")); /* chooses its key here, before there are threads */
}

static void free_shared(struct store *s)
{
    store_on_done(s->event_fd, 0, s); /* the last log lines */
    close(s->event_fd);
    map_clear(&s->recent, free);
    map_free(&s->recent);
    pthread_mutex_destroy(&s->mutex);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->read_mutex);
    pthread_cond_destroy(&s->read_work);
    pthread_mutex_destroy(&s->scan_mutex);
    pthread_cond_destroy(&s->scan_room);
}

/* Cached descriptors must leave room for the others of this process. */
static void limit_descriptors(struct store *s)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    rlim_t want = (rlim_t)s->config.open_max + DESCRIPTORS_FOR_OTHERS + STORE_BUCKETS_OPEN_MAX;
    if (limit.rlim_cur < want) {
        limit.rlim_cur = want < limit.rlim_max ? want : limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    rlim_t others = DESCRIPTORS_FOR_OTHERS + STORE_BUCKETS_OPEN_MAX;
    rlim_t room = limit.rlim_cur > others ? limit.rlim_cur - others : 16;
    if (s->config.open_max > room)
        s->config.open_max = (unsigned)room;
}

static int start_threads(struct store *s, struct err *e)
{
    int error = 0;
    if (sync_open(s, s->config.sync_threads, e) < 0 || flights_open(s, e) < 0)
        return -1;
    for (; error == 0 && s->reader_count < STORE_READERS; s->reader_count += error == 0)
        error = pthread_create(&s->read_threads[s->reader_count], NULL, read_main, s);
    if (error == 0)
        error = pthread_create(&s->disk_thread, NULL, disk_main, s);
    if (error) {
        errno = error;
        return err_sys(e, "cannot start the spool's threads");
    }
    return 0;
}

/* What an earlier process renamed to free/ may not be durable: it must be, before
 * it is overwritten (see the crash argument). Where that cannot be known, because
 * somebody's write failed, it is not used again but removed, little by little. */
static int bring_up(struct store *s, struct err *e)
{
    disk_ask_kernel(s);
    if (syncfs(s->disk.new_fd) < 0)
        files_doom(s);
    return journal_open(s, e);
}

int store_open(struct event_base *base, const struct store_config *config,
               const struct store_ops *ops, void *arg, struct store **out, struct err *e)
{
    struct store *s = xcalloc(1, sizeof *s);
    s->base = base;
    s->config = *config;
    s->ops = *ops;
    s->arg = arg;
    init_shared(s);
    limit_descriptors(s);
    s->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (s->event_fd < 0)
        panic("eventfd: %s", strerror(errno));
    s->disk.generation = 1;
    if (files_open(s, e) < 0 || bring_up(s, e) < 0)
        goto fail;
    s->wake = event_new(base, s->event_fd, EV_READ | EV_PERSIST, store_on_done, s);
    s->submit = event_new(base, -1, 0, on_submit, s);
    if (s->wake == NULL || s->submit == NULL || event_add(s->wake, NULL) < 0)
        panic("event_new failed");
    if (start_threads(s, e) < 0)
        panic("%s", e->text); /* threads run already: no orderly way back */
    *out = s;
    return 0;
fail:
    files_close(s);
    free_shared(s);
    free(s);
    return -1;
}

void store_scan(struct store *s)
{
    if (s->scan_started)
        return;
    int error = pthread_create(&s->scan_thread, NULL, scan_main, s);
    if (error)
        panic("cannot start the scan of the spool: %s", strerror(error));
    s->scan_started = true;
}

static void stop_scan(struct store *s)
{
    if (!s->scan_started)
        return;
    s->scan_stop = true;
    pthread_mutex_lock(&s->scan_mutex);
    pthread_cond_signal(&s->scan_room);
    pthread_mutex_unlock(&s->scan_mutex);
    pthread_join(s->scan_thread, NULL);
}

static void stop_threads(struct store *s)
{
    pthread_mutex_lock(&s->mutex);
    s->stop = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->mutex);
    pthread_join(s->disk_thread, NULL);
    pthread_mutex_lock(&s->read_mutex);
    s->read_stop = true;
    pthread_cond_broadcast(&s->read_work);
    pthread_mutex_unlock(&s->read_mutex);
    for (unsigned i = 0; i < s->reader_count; i++)
        pthread_join(s->read_threads[i], NULL);
    flights_close(s);
    sync_close(&s->sync);
}

void store_close(struct store *s)
{
    if (s == NULL)
        return;
    s->closing = true;
    stop_scan(s);
    do {
        on_submit(-1, 0, s);
        struct pollfd p = {.fd = s->event_fd, .events = POLLIN};
        if (s->outstanding && poll(&p, 1, -1) < 0 && errno != EINTR)
            panic("poll: %s", strerror(errno));
        store_on_done(s->event_fd, 0, s);
    } while (s->outstanding || !list_empty(&s->outbox));
    stop_threads(s);
    files_close(s);
    event_free(s->wake);
    event_free(s->submit);
    free_shared(s);
    free(s);
}

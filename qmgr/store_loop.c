/* Operations on their way between the loop and the threads, and what is done
 * with them when they come back. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "ipc/ipc.h"
#include "qmgr/store_internal.h"

/* ---- operations -------------------------------------------------------------- */

struct op *op_new(enum op_kind kind, const struct id *id, const struct store_ref *ref)
{
    struct op *op = xcalloc(1, sizeof *op);
    op->kind = kind;
    if (id)
        op->id = *id;
    if (ref)
        op->ref = *ref;
    op->source = -1;
    list_init(&op->link);
    return op;
}

void op_free(struct op *op)
{
    buf_free(&op->bytes);
    if (op->source >= 0)
        close(op->source);
    free(op->error);
    if (op->kind == OP_LOAD)
        free(op->u.load.image);
    free(op);
}

void op_fail(struct op *op, const char *format, ...)
{
    if (op->error)
        return;
    char text[STORE_ERROR_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    op->error = xstrdup(text);
}

void store_inject(struct store *s, struct list *ops)
{
    pthread_mutex_lock(&s->mutex);
    list_splice(&s->inbox, ops);
    bool wake = s->idle;
    s->idle = false;
    pthread_mutex_unlock(&s->mutex);
    if (wake)
        pthread_cond_signal(&s->work);
}

void store_inject_one(struct store *s, struct op *op)
{
    struct list one;
    list_init(&one);
    list_push(&one, &op->link);
    store_inject(s, &one);
}

void store_complete(struct store *s, struct list *ops)
{
    if (list_empty(ops))
        return;
    pthread_mutex_lock(&s->mutex);
    list_splice(&s->donebox, ops);
    bool wake = !s->notified;
    s->notified = true;
    pthread_mutex_unlock(&s->mutex);
    uint64_t one = 1;
    if (wake && write(s->event_fd, &one, sizeof one) != sizeof one)
        panic("eventfd: %s", strerror(errno));
}

void store_complete_one(struct store *s, struct op *op)
{
    struct list one;
    list_init(&one);
    list_push(&one, &op->link);
    store_complete(s, &one);
}

void store_say(struct store *s, const char *format, ...)
{
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct op *op = op_new(OP_LOG, NULL, NULL);
    op->error = xstrdup(text);
    store_complete_one(s, op);
}

uint32_t store_bucket_of(const struct id *id)
{
    return (uint32_t)((uint64_t)id_time(id) >> STORE_BUCKET_SHIFT);
}

void store_path(char path[STORE_PATH_MAX], uint32_t bucket, const struct id *id)
{
    snprintf(path, STORE_PATH_MAX, "new/%x/%s", bucket, id->text);
}

int64_t store_now(void)
{
    return clock_mono();
}

/* ---- completions on the loop -------------------------------------------------- */

static void deliver_found(struct store *s, struct op *op)
{
    for (struct list *n; (n = list_pop(&op->u.found.images)) != NULL;) {
        struct message_image *m = container_of(n, struct message_image, link);
        bool known = map_get(&s->recent, id_slice(&m->found.id)) != NULL;
        if (m->ring && !s->scan_over) /* the scan may see the file that it gets */
            store_remember(s, &m->found.id);
        /* taken after the start: its owner knows it already */
        if (!s->closing && !known)
            s->ops.found(&m->found, s->arg);
        free(m);
    }
    pthread_mutex_lock(&s->scan_mutex);
    s->scan_batches--;
    pthread_mutex_unlock(&s->scan_mutex);
    pthread_cond_signal(&s->scan_room);
}

static void deliver_scanned(struct store *s, const struct op *op)
{
    s->scan_over = true;
    map_clear(&s->recent, free);
    if (!s->closing)
        s->ops.scanned(op->u.scanned.messages, op->u.scanned.quarantined, s->arg);
}

static void deliver_state(struct store *s, const struct op *op)
{
    s->state = op->u.state;
    if (op->u.state == SPOOL_OK)
        log_info("spool: %s", op->error);
    else if (op->u.state == SPOOL_FULL)
        log_warning("spool: %s", op->error);
    else
        log_error("spool: %s", op->error);
    if (s->ops.state)
        s->ops.state(op->u.state, op->error, s->arg);
}

static void deliver_read(struct store *s, struct op *op)
{
    struct slice all = buf_slice(&op->bytes);
    if (op->error)
        all.len = 0;
    if (op->u.read.damaged && s->ops.quarantined)
        s->ops.quarantined(&op->id, op->error, s->arg);
    op->u.read.done(slice_first(all, op->u.read.prefix_len), slice_from(all, op->u.read.prefix_len),
                    op->error, op->arg);
}

static void deliver_load(struct store *s, struct op *op)
{
    struct message_image *m = op->error ? NULL : op->u.load.image;
    if (op->u.load.damaged && s->ops.quarantined)
        s->ops.quarantined(&op->id, op->error, s->arg);
    op->u.load.done(m ? &m->found : NULL, op->error, op->arg);
}

static void deliver(struct store *s, struct op *op)
{
    s->outstanding -= op->kind < OP_FOUND;
    switch (op->kind) {
    case OP_COMMIT: {
        struct store_commit *c = op->u.commit.c;
        if (op->error) /* a name that was taken: the scan must tell of the one that has it */
            free(map_remove(&s->recent, id_slice(&op->id)));
        c->ref = op->u.commit.ref;
        c->done(c, op->error, op->u.commit.code, c->arg);
        break;
    }
    case OP_LARGE_CREATE:
        op->u.create.done(op->u.create.fd, op->error, op->u.create.code, op->arg);
        break;
    case OP_RECORD:
        op->u.record.done(op->error, op->arg);
        break;
    case OP_SYNC:
        op->u.sync.done(op->error, op->arg);
        break;
    case OP_READ:
        deliver_read(s, op);
        break;
    case OP_LOAD:
        deliver_load(s, op);
        break;
    case OP_FOUND:
        deliver_found(s, op);
        break;
    case OP_SCANNED:
        deliver_scanned(s, op);
        break;
    case OP_LOG:
        log_error("spool: %s", op->error);
        break;
    case OP_STATE:
        deliver_state(s, op);
        break;
    default:
        panic("completion of an operation of kind %d", (int)op->kind);
    }
}

void store_on_done(evutil_socket_t fd, short what, void *arg)
{
    struct store *s = arg;
    struct list done;
    uint64_t count;
    (void)what;
    list_init(&done);
    if (read(fd, &count, sizeof count) != sizeof count && errno != EAGAIN)
        panic("eventfd: %s", strerror(errno));
    pthread_mutex_lock(&s->mutex);
    list_splice(&done, &s->donebox);
    s->notified = false;
    pthread_mutex_unlock(&s->mutex);
    for (struct list *n; (n = list_pop(&done)) != NULL;) {
        struct op *op = container_of(n, struct op, link);
        deliver(s, op);
        op_free(op);
    }
}

/*
 * Durability off the loop. Changes are applied by the loop; one thread makes them
 * durable, all that came while it was busy together (group commit). Another makes
 * checkpoints and snapshots, which take long.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "quota/frozen.h"

enum { CHECKPOINT_SECONDS = 60, SNAPSHOT_SECONDS = 86400, SNAPSHOT_LOG_BYTES = 512 * 1024 * 1024 };

struct waiter {
    void (*done)(void *arg);
    void *arg;
};

struct waiters {
    struct waiter *list;
    size_t count, room;
};

struct sync {
    struct quota *q;
    pthread_t syncer, keeper;
    pthread_mutex_t lock;
    pthread_cond_t work, upkeep;
    int wake; /* eventfd: something is done */
    struct event *event;
    bool stop;
    /* under the lock */
    bool wanted, busy;
    struct waiters waiting, durable;
    struct err failed;
    /* the keeper's */
    bool checkpoint, snapshot, snapshot_over;
    struct err snapshot_error;
    /* the loop's */
    void (*snapshot_done)(const char *error, void *arg);
    void *snapshot_arg;
    bool snapshotting;
    int64_t last_checkpoint, last_snapshot;
};

static void add(struct waiters *w, struct waiter one)
{
    if (w->count == w->room) {
        w->room = w->room ? w->room * 2 : 64;
        w->list = xreallocarray(w->list, w->room, sizeof *w->list);
    }
    w->list[w->count++] = one;
}

static void tell_loop(struct sync *s)
{
    const uint64_t one = 1;
    if (write(s->wake, &one, sizeof one) < 0 && errno != EAGAIN)
        panic("eventfd: %s", strerror(errno));
}

/* ---- the threads ------------------------------------------------------------------- */

static void *syncer(void *arg)
{
    struct sync *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->wanted && !s->stop)
            pthread_cond_wait(&s->work, &s->lock);
        if (!s->wanted)
            break;
        struct waiters mine = s->waiting;
        struct err e = {0, ""};
        s->waiting = (struct waiters){NULL, 0, 0};
        s->wanted = false;
        pthread_mutex_unlock(&s->lock);
        int rc = kv_sync(s->q->kv, &e);
        pthread_mutex_lock(&s->lock);
        if (rc < 0)
            s->failed = e;
        for (size_t i = 0; i < mine.count; i++)
            add(&s->durable, mine.list[i]);
        free(mine.list);
        tell_loop(s);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void *keeper(void *arg)
{
    struct sync *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->checkpoint && !s->snapshot && !s->stop)
            pthread_cond_wait(&s->upkeep, &s->lock);
        if (s->stop)
            break;
        struct err e = {0, ""};
        bool snapshot = s->snapshot;
        s->checkpoint = false;
        pthread_mutex_unlock(&s->lock);
        int rc = snapshot ? kv_snapshot(s->q->kv, &e) : kv_checkpoint(s->q->kv, &e);
        pthread_mutex_lock(&s->lock);
        if (snapshot) {
            s->snapshot = false;
            s->snapshot_over = true;
            s->snapshot_error = e;
        } else if (rc < 0) {
            s->failed = e;
        }
        tell_loop(s);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- the loop ---------------------------------------------------------------------- */

static void end_snapshot(struct sync *s, const struct err *e)
{
    const char *error = e->text[0] ? e->text : NULL;
    s->snapshotting = false;
    if (error)
        log_error("no snapshot of the accounts was made: %s", error);
    else
        log_info("a snapshot of the accounts was made");
    if (s->snapshot_done)
        s->snapshot_done(error, s->snapshot_arg);
    s->snapshot_done = NULL;
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct sync *s = arg;
    uint64_t count;
    (void)what;
    if (read(fd, &count, sizeof count) < 0 && errno != EAGAIN)
        panic("eventfd: %s", strerror(errno));
    pthread_mutex_lock(&s->lock);
    struct waiters durable = s->durable;
    struct err failed = s->failed, snapshot_error = s->snapshot_error;
    bool over = s->snapshot_over;
    s->durable = (struct waiters){NULL, 0, 0};
    s->snapshot_over = false;
    pthread_mutex_unlock(&s->lock);
    if (failed.text[0]) { /* nothing that waits was promised; a new start recovers */
        log_error("%s; quota ends and starts anew", failed.text);
        log_flush();
        _exit(1);
    }
    for (size_t i = 0; i < durable.count; i++)
        durable.list[i].done(durable.list[i].arg);
    free(durable.list);
    if (over)
        end_snapshot(s, &snapshot_error);
}

static void apply(struct quota *q, struct slice batch)
{
    struct err e;
    frozen_note(q, batch);
    if (batch.len && kv_apply(q->kv, batch, &e) < 0) {
        log_error("%s; quota ends and starts anew", e.text);
        log_flush();
        _exit(1);
    }
}

static void make_durable(struct sync *s, void (*done)(void *arg), void *arg)
{
    pthread_mutex_lock(&s->lock);
    if (done)
        add(&s->waiting, (struct waiter){done, arg});
    if (!s->wanted) {
        s->wanted = true;
        pthread_cond_signal(&s->work);
    }
    pthread_mutex_unlock(&s->lock);
}

void sync_apply(struct quota *q, struct slice batch, void (*done)(void *arg), void *arg)
{
    apply(q, batch);
    if (lookups_changed(&q->lookups, batch))
        gate_changed(q);
    if (done || batch.len)
        make_durable(q->sync, done, arg);
}

void sync_apply_unseen(struct quota *q, struct slice batch)
{
    apply(q, batch);
    make_durable(q->sync, NULL, NULL);
}

int sync_snapshot(struct quota *q, void (*done)(const char *error, void *arg), void *arg)
{
    struct sync *s = q->sync;
    if (s->snapshotting)
        return -1;
    s->snapshotting = true;
    s->snapshot_done = done;
    s->snapshot_arg = arg;
    s->last_snapshot = clock_mono();
    pthread_mutex_lock(&s->lock);
    s->snapshot = true;
    pthread_cond_signal(&s->upkeep);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

void sync_tick(struct quota *q)
{
    struct sync *s = q->sync;
    int64_t now = clock_mono();
    if (now - s->last_checkpoint < CHECKPOINT_SECONDS * CLOCK_SECOND)
        return;
    s->last_checkpoint = now;
    if (!q->disk_full && (now - s->last_snapshot > SNAPSHOT_SECONDS * CLOCK_SECOND ||
                          kv_log_bytes(q->kv) > SNAPSHOT_LOG_BYTES))
        (void)sync_snapshot(q, NULL, NULL);
    pthread_mutex_lock(&s->lock);
    s->checkpoint = true;
    pthread_cond_signal(&s->upkeep);
    pthread_mutex_unlock(&s->lock);
}

struct sync *sync_new(struct quota *q, struct err *e)
{
    struct sync *s = xcalloc(1, sizeof *s);
    s->q = q;
    s->last_checkpoint = clock_mono();
    s->last_snapshot = s->last_checkpoint - (SNAPSHOT_SECONDS - 600) * CLOCK_SECOND;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->upkeep, NULL);
    s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->event =
        s->wake < 0 ? NULL : event_new(q->s->base, s->wake, EV_READ | EV_PERSIST, on_wake, s);
    if (!s->event || event_add(s->event, NULL) < 0 ||
        pthread_create(&s->syncer, NULL, syncer, s) != 0 ||
        pthread_create(&s->keeper, NULL, keeper, s) != 0) {
        err_set(e, "cannot start the threads that write");
        return NULL;
    }
    return s;
}

void sync_free(struct sync *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->work);
    pthread_cond_signal(&s->upkeep);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->syncer, NULL);
    pthread_join(s->keeper, NULL);
    event_free(s->event);
    close(s->wake);
    free(s->waiting.list);
    free(s->durable.list);
    free(s);
}

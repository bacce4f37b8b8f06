/*
 * Flights: a thread makes a batch durable with one syncfs and answers for it,
 * while the disk thread writes the next batch, which may set off before this one
 * has landed. So a message never waits for a sync that began before it came. One
 * flight has no batch: it makes durable what nobody waits for, with one syncfs.
 *
 * A flight that fails says nothing about any single file, and the kernel tells an
 * error once to each descriptor: what another flight would be told is its own
 * descriptor's, but what was written while the failed one was in the air and has
 * not set off yet might not be told again. So these operations and those of the
 * failed flight are synced file by file, where each file has its own verdict. A
 * flight of the journal alone was about the journal alone: its batch is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/mem.h"
#include "qmgr/store_internal.h"

static void fly(struct store *s, struct flight *f, struct list *done)
{
    int64_t start = store_now();
    if (f->whole)
        f->failed = fault_point("store.syncfs") || syncfs(f->fd) < 0;
    else
        f->failed = fault_point("journal.sync") || fdatasync(f->ring) < 0;
    f->took = f->whole ? store_now() - start : 0;
    if (f->failed)
        return;
    fault_point("store.dirs_synced");
    batch_succeeded(s, f->batch, f->count, done);
}

static void *flight_main(void *flight)
{
    struct flight *f = flight;
    struct store *s = f->store;
    struct list done;
    list_init(&done);
    pthread_mutex_lock(&s->mutex);
    for (;;) {
        while (f->state != FLIGHT_FLYING && !s->flights_over)
            pthread_cond_wait(&f->start, &s->mutex);
        if (f->state != FLIGHT_FLYING)
            break;
        pthread_mutex_unlock(&s->mutex);
        fly(s, f, &done);
        pthread_mutex_lock(&s->mutex);
        f->state = FLIGHT_LANDED;
        s->landed++;
        pthread_cond_signal(&s->work);
        pthread_mutex_unlock(&s->mutex);
        /* after it landed: what follows from an answer finds its files free */
        store_complete(s, &done);
        pthread_mutex_lock(&s->mutex);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

int flights_open(struct store *s, struct err *e)
{
    for (size_t i = 0; i <= STORE_SWEEP; i++) {
        struct flight *f = &s->disk.flights[i];
        f->store = s;
        pthread_cond_init(&f->start, NULL);
        f->fd = openat(s->disk.new_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (f->fd < 0)
            return err_sys(e, "cannot open the spool's directory new");
        f->ring = -1;
        if (s->disk.journal.fd >= 0)
            f->ring = openat(s->disk.journal.dir, "ring", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (s->disk.journal.fd >= 0 && f->ring < 0)
            return err_sys(e, "cannot open journal/ring");
        int error = pthread_create(&f->thread, NULL, flight_main, f);
        if (error) {
            errno = error;
            return err_sys(e, "cannot start the spool's threads");
        }
    }
    return 0;
}

void flights_close(struct store *s)
{
    pthread_mutex_lock(&s->mutex);
    s->flights_over = true;
    for (size_t i = 0; i <= STORE_SWEEP; i++)
        pthread_cond_signal(&s->disk.flights[i].start);
    pthread_mutex_unlock(&s->mutex);
    for (size_t i = 0; i <= STORE_SWEEP; i++) {
        struct flight *f = &s->disk.flights[i];
        pthread_join(f->thread, NULL);
        pthread_cond_destroy(&f->start);
        close(f->fd);
        if (f->ring >= 0)
            close(f->ring);
        free(f->batch);
        free(f->records);
    }
}

static struct flight *idle_flight(struct disk *d)
{
    for (size_t i = 0; i < STORE_FLIGHTS; i++)
        if (!d->flights[i].away)
            return &d->flights[i];
    return NULL;
}

static void note_records(struct flight *f)
{
    f->record_count = 0;
    for (size_t i = 0; i < f->count && f->count > f->commits; i++) {
        if (f->batch[i]->kind != OP_RECORD || f->batch[i]->u.record.fd < 0)
            continue;
        if (f->record_count == f->record_capacity) {
            f->record_capacity = f->record_capacity ? f->record_capacity * 2 : 16;
            f->records = xreallocarray(f->records, f->record_capacity, sizeof *f->records);
        }
        f->records[f->record_count++] = f->batch[i]->id;
    }
}

static void take_off(struct store *s, struct flight *f)
{
    f->point = journal_point(s);
    f->generation = disk_next_generation(s);
    f->away = true;
    if (f->whole)
        s->disk.dirty_since = store_now(); /* what was changed before is on its way */
    pthread_mutex_lock(&s->mutex);
    f->state = FLIGHT_FLYING;
    pthread_cond_signal(&f->start);
    pthread_mutex_unlock(&s->mutex);
}

bool flight_sweep(struct store *s)
{
    struct flight *f = &s->disk.flights[STORE_SWEEP];
    if (f->away || !disk_may_syncfs(s))
        return false;
    f->whole = true;
    take_off(s, f);
    return true;
}

bool flight_sweeps(const struct store *s)
{
    return s->disk.flights[STORE_SWEEP].away;
}

bool flight_start(struct store *s)
{
    struct disk *d = &s->disk;
    struct flight *f = idle_flight(d);
    if (f == NULL)
        return false;
    struct op **batch = f->batch;
    size_t capacity = f->capacity;
    f->batch = d->batch;
    f->count = d->batch_count;
    f->commits = d->batch_commits;
    f->capacity = d->batch_capacity;
    d->batch = batch;
    d->batch_capacity = capacity;
    f->whole = d->batch_files > 0;
    d->batch_count = d->batch_commits = d->batch_files = 0;
    note_records(f);
    take_off(s, f);
    return true;
}

static void land_safely(struct store *s, struct flight *f)
{
    f->away = false;
    f->record_count = 0;
    journal_synced(s, f->generation, f->point);
    if (!f->whole)
        return;
    disk_durable(s, f->generation);
    disk_syncfs_took(s, f->took);
}

static void crash(struct store *s, struct flight *f)
{
    f->away = false;
    f->record_count = 0;
    if (f->generation <= s->disk.durable) {
        /* a later one has made it durable, and was not told of the error */
        struct list done;
        list_init(&done);
        batch_succeeded(s, f->batch, f->count, &done);
        store_complete(s, &done);
        return;
    }
    if (!f->whole) { /* the journal's own: never tried again (F24) */
        journal_lost(s, EIO);
        batch_failed(s, f->batch, f->count, EIO);
        return;
    }
    s->disk.doubtful = true;
    for (size_t i = 0; i < f->count; i++)
        batch_add(s, f->batch[i]);
}

/* With the mutex held, which is given up. */
static bool land_all(struct store *s)
{
    bool landed[STORE_SWEEP + 1], failed = false;
    for (size_t i = 0; i <= STORE_SWEEP; i++) {
        struct flight *f = &s->disk.flights[i];
        landed[i] = f->state == FLIGHT_LANDED;
        if (landed[i])
            f->state = FLIGHT_IDLE;
    }
    s->landed = 0;
    pthread_mutex_unlock(&s->mutex);
    for (size_t i = 0; i <= STORE_SWEEP; i++)
        if (landed[i] && !s->disk.flights[i].failed)
            land_safely(s, &s->disk.flights[i]);
    for (size_t i = 0; i <= STORE_SWEEP; i++) {
        if (landed[i] && s->disk.flights[i].failed) {
            crash(s, &s->disk.flights[i]);
            failed = true;
        }
    }
    return failed;
}

bool flights_land(struct store *s)
{
    pthread_mutex_lock(&s->mutex);
    return land_all(s);
}

/* How many of the first so many are in the air; with the mutex held. */
static size_t flying(const struct disk *d, size_t first)
{
    size_t count = 0;
    for (size_t i = 0; i < first; i++)
        count += d->flights[i].state == FLIGHT_FLYING;
    return count;
}

bool flights_wait(struct store *s)
{
    pthread_mutex_lock(&s->mutex);
    while (flying(&s->disk, STORE_SWEEP + 1) > 0)
        pthread_cond_wait(&s->work, &s->mutex);
    return land_all(s);
}

bool flights_wait_batches(struct store *s)
{
    pthread_mutex_lock(&s->mutex);
    while (flying(&s->disk, STORE_FLIGHTS) > 0)
        pthread_cond_wait(&s->work, &s->mutex);
    return land_all(s);
}

bool flights_wait_for_one(struct store *s)
{
    pthread_mutex_lock(&s->mutex);
    while (flying(&s->disk, STORE_FLIGHTS) == STORE_FLIGHTS)
        pthread_cond_wait(&s->work, &s->mutex);
    return land_all(s);
}

bool flights_have(const struct store *s, const struct id *id)
{
    for (size_t i = 0; i < STORE_FLIGHTS; i++) {
        const struct flight *f = &s->disk.flights[i];
        for (size_t k = 0; k < f->record_count; k++)
            if (slice_eq(id_slice(&f->records[k]), id_slice(id)))
                return true;
    }
    return false;
}

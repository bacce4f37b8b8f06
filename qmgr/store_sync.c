/* Threads that fsync side by side: the waits for the disk overlap, and the file
 * system commits its journal once for all of them. */
#include <errno.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/mem.h"
#include "qmgr/store_internal.h"

/* Takes jobs until none is left; the mutex is held at entry and exit. */
static void take_jobs(struct sync_pool *p)
{
    while (p->next < p->count) {
        struct sync_job *job = &p->jobs[p->next++];
        pthread_mutex_unlock(&p->mutex);
        job->error = fault_point("store.file_fsync");
        if (job->error == 0 && fsync(job->fd) < 0)
            job->error = errno;
        pthread_mutex_lock(&p->mutex);
        if (++p->done == p->count)
            pthread_cond_signal(&p->finished);
    }
}

static void take_large(struct sync_pool *p)
{
    struct op *op = container_of(list_pop(&p->large), struct op, link);
    pthread_mutex_unlock(&p->mutex);
    int error = fault_point("store.large_fsync");
    if (error == 0 && fdatasync(op->u.commit.fd) < 0)
        error = errno;
    if (error)
        op_fail(op, "fsync of tmp/%s: %s", op->id.text, strerror(error));
    op->u.commit.code = error;
    op->u.commit.presynced = true;
    store_inject_one(p->store, op);
    pthread_mutex_lock(&p->mutex);
}

static void *helper_main(void *pool)
{
    struct sync_pool *p = pool;
    pthread_mutex_lock(&p->mutex);
    while (!p->stop) {
        if (p->next < p->count)
            take_jobs(p);
        else if (!list_empty(&p->large))
            take_large(p);
        else
            pthread_cond_wait(&p->work, &p->mutex);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

int sync_open(struct store *s, unsigned threads, struct err *e)
{
    struct sync_pool *p = &s->sync;
    p->store = s;
    p->threads = xcalloc(threads ? threads : 1, sizeof *p->threads);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->finished, NULL);
    list_init(&p->large);
    do {
        int error = pthread_create(&p->threads[p->thread_count], NULL, helper_main, p);
        if (error) {
            errno = error;
            return err_sys(e, "cannot start the spool's threads");
        }
    } while (++p->thread_count < threads);
    return 0;
}

void sync_close(struct sync_pool *p)
{
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->thread_count; i++)
        pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->finished);
    xfree(&p->threads);
}

size_t sync_run(struct sync_pool *p, struct sync_job *jobs, size_t count)
{
    size_t failed = 0;
    if (count == 0)
        return 0;
    pthread_mutex_lock(&p->mutex);
    p->jobs = jobs;
    p->count = count;
    p->next = p->done = 0;
    /* this thread works too, so that large messages never hold a batch up */
    for (size_t i = 1; i < count && i <= p->thread_count; i++)
        pthread_cond_signal(&p->work);
    take_jobs(p);
    while (p->done < p->count)
        pthread_cond_wait(&p->finished, &p->mutex);
    p->count = p->next = 0;
    pthread_mutex_unlock(&p->mutex);
    for (size_t i = 0; i < count; i++)
        failed += jobs[i].error != 0;
    return failed;
}

void sync_large(struct sync_pool *p, struct op *op)
{
    pthread_mutex_lock(&p->mutex);
    list_push(&p->large, &op->link);
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->mutex);
}

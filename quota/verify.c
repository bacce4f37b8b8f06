#include "quota/verify.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/mem.h"
#include "quota/prepare.h"

enum { THREADS_MAX = 64 };

struct verify {
    pthread_t threads[THREADS_MAX];
    unsigned count;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct list waiting, done;
    size_t queued; /* the loop's: added and not told yet */
    bool stop;
    int wake;
    struct event *event;
};

/* A password that is not ASCII costs a hash for each form that it may have been stored
 * in; that is so for users that do not exist, too. */
static enum hash_verdict compare(const char *stored, struct slice password)
{
    struct password_forms forms;
    struct scram_keys keys;
    enum hash_verdict verdict = HASH_MISMATCH;
    bool has_keys = scram_parse(slice_str(stored), &keys) == 0;
    password_forms(password, &forms);
    for (unsigned i = 0; i < forms.count && verdict == HASH_MISMATCH; i++) {
        struct slice form = slice_make(forms.text[i], forms.len[i]);
        verdict = has_keys ? scram_verify(&keys, form) : hash_verify(stored, form);
    }
    password_forms_wipe(&forms);
    OPENSSL_cleanse(&keys, sizeof keys);
    return verdict;
}

/* Of the prepared password, whichever form of it a hash was of: SCRAM's clients prepare it
 * themselves (RFC 5802 section 5.1). */
static void make_keys(struct verify_job *j, struct slice prepared)
{
    struct scram_keys keys;
    int rc = j->salted ? scram_make_with(prepared, j->scram_iterations, j->scram_salt, &keys)
                       : scram_make(prepared, j->scram_iterations, &keys);
    if (rc == 0)
        scram_print(&keys, j->scram);
    OPENSSL_cleanse(&keys, sizeof keys);
}

static void work(struct verify_job *j)
{
    char text[PASSWORD_MAX];
    struct slice password = slice_make(j->password, j->password_len);
    struct slice prepared = slice_make(text, prepare_password(password, text));
    j->scram[0] = '\0';
    if (j->make)
        j->verdict = hash_make(prepared, j->hash) == 0 ? HASH_MATCH : HASH_UNUSABLE;
    else
        j->verdict = compare(j->hash, password);
    if (j->scram_iterations && j->verdict == HASH_MATCH)
        make_keys(j, prepared);
    OPENSSL_cleanse(text, sizeof text);
    OPENSSL_cleanse(j->password, sizeof j->password);
}

static void *thread(void *arg)
{
    struct verify *v = arg;
    const uint64_t one = 1;
    pthread_mutex_lock(&v->lock);
    while (!v->stop) {
        struct list *n = list_pop(&v->waiting);
        if (!n) {
            pthread_cond_wait(&v->work, &v->lock);
            continue;
        }
        struct verify_job *j = container_of(n, struct verify_job, link);
        pthread_mutex_unlock(&v->lock);
        work(j);
        pthread_mutex_lock(&v->lock);
        list_push(&v->done, &j->link);
        if (write(v->wake, &one, sizeof one) < 0 && errno != EAGAIN)
            panic("eventfd: %d", errno);
    }
    pthread_mutex_unlock(&v->lock);
    return NULL;
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct verify *v = arg;
    struct list done, *n;
    uint64_t count;
    (void)what;
    if (read(fd, &count, sizeof count) < 0 && errno != EAGAIN)
        panic("eventfd: %d", errno);
    list_init(&done);
    pthread_mutex_lock(&v->lock);
    list_splice(&done, &v->done);
    pthread_mutex_unlock(&v->lock);
    while ((n = list_pop(&done))) {
        struct verify_job *j = container_of(n, struct verify_job, link);
        v->queued--;
        j->done(j, j->arg);
    }
}

struct verify *verify_new(struct event_base *base, unsigned threads, struct err *e)
{
    struct verify *v = xcalloc(1, sizeof *v);
    list_init(&v->waiting);
    list_init(&v->done);
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->work, NULL);
    v->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    v->event = v->wake < 0 ? NULL : event_new(base, v->wake, EV_READ | EV_PERSIST, on_wake, v);
    bool good = v->event && event_add(v->event, NULL) == 0;
    while (good && v->count < threads && v->count < THREADS_MAX) {
        good = pthread_create(&v->threads[v->count], NULL, thread, v) == 0;
        v->count += good;
    }
    if (good)
        return v;
    err_set(e, "cannot start the threads that verify passwords");
    return NULL;
}

static void drop(struct list *jobs)
{
    struct list *n;
    while ((n = list_pop(jobs))) {
        struct verify_job *j = container_of(n, struct verify_job, link);
        OPENSSL_cleanse(j->password, sizeof j->password);
        free(j);
    }
}

void verify_free(struct verify *v)
{
    if (!v)
        return;
    pthread_mutex_lock(&v->lock);
    v->stop = true;
    pthread_cond_broadcast(&v->work);
    pthread_mutex_unlock(&v->lock);
    for (unsigned i = 0; i < v->count; i++)
        pthread_join(v->threads[i], NULL);
    drop(&v->waiting);
    drop(&v->done);
    event_free(v->event);
    close(v->wake);
    free(v);
}

bool verify_add(struct verify *v, struct verify_job *job, size_t limit)
{
    if (v->queued >= limit)
        return false;
    v->queued++;
    pthread_mutex_lock(&v->lock);
    list_push(&v->waiting, &job->link);
    pthread_cond_signal(&v->work);
    pthread_mutex_unlock(&v->lock);
    return true;
}

size_t verify_waiting(const struct verify *v)
{
    return v->queued;
}

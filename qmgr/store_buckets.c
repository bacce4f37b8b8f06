/* The directories of new/: each holds the messages of 1024 seconds. Runs on the disk
 * thread. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/fault.h"
#include "core/mem.h"
#include "qmgr/store_internal.h"

enum { NAME_TEXT = 16 };

static struct slice bucket_key(const void *value)
{
    const struct bucket *b = value;
    return slice_make(&b->number, sizeof b->number);
}

static void bucket_name(char name[NAME_TEXT], uint32_t number)
{
    snprintf(name, NAME_TEXT, "%x", number);
}

static void bucket_drop(struct store *s, struct bucket *b)
{
    if (s->disk.last_bucket == b)
        s->disk.last_bucket = NULL;
    map_remove(&s->disk.buckets, bucket_key(b));
    list_remove(&b->link);
    close(b->fd);
    free(b);
}

static bool bucket_clean(const struct bucket *b)
{
    return list_empty(&b->link) && !b->in_batch && b->freed_count == 0;
}

/* IDs come from smtpd, and their times with them: directories that are open
 * must stay few whatever it sends. */
static void limit_open_buckets(struct store *s)
{
    struct map *all = &s->disk.buckets;
    if (all->count < STORE_BUCKETS_OPEN_MAX)
        return;
    struct bucket *clean[STORE_BUCKETS_OPEN_MAX], *b;
    size_t cursor = 0, n = 0;
    while ((b = map_next(all, &cursor)) != NULL && n < STORE_BUCKETS_OPEN_MAX)
        if (bucket_clean(b))
            clean[n++] = b;
    while (n > 0)
        bucket_drop(s, clean[--n]);
}

static void new_changed(struct disk *d)
{
    d->new_dirty = true;
    d->new_changed = d->generation;
}

struct bucket *bucket_get(struct store *s, uint32_t number, bool make)
{
    struct disk *d = &s->disk;
    if (d->last_bucket && d->last_bucket->number == number)
        return d->last_bucket;
    struct bucket *b = map_get(&d->buckets, slice_make(&number, sizeof number));
    if (b)
        return d->last_bucket = b;
    char name[NAME_TEXT];
    bucket_name(name, number);
    if (make) {
        errno = fault_point("store.mkdir");
        if (errno)
            return NULL;
        if (mkdirat(d->new_fd, name, 0700) == 0)
            new_changed(d);
        else if (errno != EEXIST)
            return NULL;
    }
    int fd = openat(d->new_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    limit_open_buckets(s);
    b = xcalloc(1, sizeof *b);
    b->number = number;
    b->fd = fd;
    list_init(&b->freed);
    list_init(&b->link);
    map_put(&d->buckets, b);
    return d->last_bucket = b;
}

void bucket_changed(struct store *s, struct bucket *b)
{
    struct disk *d = &s->disk;
    b->changed = d->generation;
    if (!list_empty(&b->link))
        return;
    if (!dirty_any(s))
        d->dirty_since = store_now();
    list_push(&d->dirty_buckets, &b->link);
}

/* Its files that were freed up to then may be overwritten now. */
static void bucket_durable(struct store *s, struct bucket *b, generation_t generation)
{
    while (!list_empty(&b->freed)) {
        struct free_file *f = container_of(b->freed.next, struct free_file, link);
        if (f->freed > generation)
            break;
        list_remove(&f->link);
        list_push(&s->disk.ready, &f->link);
        b->freed_count--;
    }
    if (b->changed > generation)
        return;
    list_remove(&b->link);
    b->in_batch = false;
}

static int directory_sync(int fd)
{
    int error = fault_point("store.dir_fsync");
    return error ? error : fsync(fd) < 0 ? errno : 0;
}

int buckets_sync(struct store *s, bool all)
{
    struct disk *d = &s->disk;
    int error = d->new_dirty ? directory_sync(d->new_fd) : 0;
    d->new_dirty = false;
    list_each_safe(&d->dirty_buckets, n)
    {
        struct bucket *b = container_of(n, struct bucket, link);
        if (!all && !b->in_batch && b->freed_count < STORE_BUCKET_SYNC_FREED)
            continue;
        int failed = directory_sync(b->fd);
        if (failed) {
            /* never again, so its freed files are never overwritten */
            error = failed;
            b->in_batch = false;
            list_remove(&b->link);
        } else {
            bucket_durable(s, b, d->generation);
        }
    }
    return error;
}

void buckets_durable(struct store *s, generation_t generation)
{
    struct disk *d = &s->disk;
    if (d->new_changed <= generation)
        d->new_dirty = false;
    list_each_safe(&d->dirty_buckets, n)
    {
        bucket_durable(s, container_of(n, struct bucket, link), generation);
    }
}

/* Removes directories of times gone by that are empty. */
void buckets_sweep(struct store *s)
{
    struct disk *d = &s->disk;
    int64_t current = (clock_wall() / CLOCK_SECOND) >> STORE_BUCKET_SHIFT;
    int fd = openat(d->new_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char *end;
        unsigned long number = strtoul(entry->d_name, &end, 16);
        if (*end || end == entry->d_name || (int64_t)number + 1 >= current)
            continue;
        uint32_t key = (uint32_t)number;
        struct bucket *b = map_get(&d->buckets, slice_make(&key, sizeof key));
        if (b && !bucket_clean(b))
            continue;
        /* not empty is the usual answer */
        if (unlinkat(d->new_fd, entry->d_name, AT_REMOVEDIR) == 0) {
            new_changed(d);
            if (b)
                bucket_drop(s, b);
        }
    }
    closedir(dir);
}

void buckets_init(struct store *s)
{
    map_init(&s->disk.buckets, bucket_key);
    list_init(&s->disk.dirty_buckets);
}

void buckets_close(struct store *s)
{
    struct map *all = &s->disk.buckets;
    struct bucket *b;
    for (size_t cursor = 0; (b = map_next(all, &cursor)) != NULL;) {
        files_drop(s, &b->freed);
        close(b->fd);
        free(b);
    }
    map_free(all);
}

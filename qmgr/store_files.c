/* Names and descriptors: free files, quarantine. Runs on the disk thread
 * (files_open and files_close: before and after it). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/fault.h"
#include "core/mem.h"
#include "qmgr/store_internal.h"

enum { NAME_TEXT = 16, FRESH_TRIES = 1000 };

void store_fd_opened(struct store *s)
{
    atomic_fetch_add(&s->stat_open, 1);
}

void store_fd_close(struct store *s, int fd)
{
    if (fd < 0)
        return;
    close(fd);
    atomic_fetch_sub(&s->stat_open, 1);
}

/* ---- free files ----------------------------------------------------------------- */

static void free_name(char name[NAME_TEXT], uint32_t number)
{
    snprintf(name, NAME_TEXT, "%u", number);
}

static uint32_t number_take(struct disk *d)
{
    return d->number_count ? d->numbers[--d->number_count] : d->next_number++;
}

static void number_unused(struct disk *d, uint32_t number)
{
    if (d->number_count == d->number_capacity) {
        d->number_capacity = d->number_capacity ? d->number_capacity * 2 : 64;
        d->numbers = xreallocarray(d->numbers, d->number_capacity, sizeof *d->numbers);
    }
    d->numbers[d->number_count++] = number;
}

static void count_free(struct store *s, int change)
{
    s->disk.free_count += (uint32_t)change;
    s->stat_free = s->disk.free_count;
}

int file_make(struct store *s, struct free_file *f)
{
    struct disk *d = &s->disk;
    errno = fault_point("store.create");
    for (int tries = 0; errno == 0 && tries < FRESH_TRIES; tries++) {
        char name[NAME_TEXT];
        f->number = number_take(d);
        free_name(name, f->number);
        f->fd = nursery_create(s, name, &f->nursed);
        if (f->fd >= 0)
            return 0;
        if (errno != EEXIST) {
            number_unused(d, f->number);
            return -1;
        }
        errno = 0; /* a name that somebody put there: never used again */
    }
    errno = errno ? errno : EEXIST;
    return -1;
}

struct free_file *file_take(struct store *s)
{
    struct disk *d = &s->disk;
    for (struct list *n; (n = list_pop(&d->ready)) != NULL;) {
        struct free_file *f = container_of(n, struct free_file, link);
        count_free(s, -1);
        if (f->fd >= 0)
            return f;
        char name[NAME_TEXT];
        free_name(name, f->number);
        f->fd = openat(d->free_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (f->fd >= 0) {
            store_fd_opened(s);
            return f;
        }
        free(f); /* removed by hand, or worse: its number is not used again */
    }
    struct free_file *f = xcalloc(1, sizeof *f);
    list_init(&f->link);
    if (file_make(s, f) < 0) {
        int error = errno;
        free(f);
        errno = error;
        return NULL;
    }
    store_fd_opened(s);
    return f;
}

int file_directory(const struct store *s, const struct free_file *f)
{
    return f->nursed ? s->disk.nursery.fd : s->disk.free_fd;
}

/* From the nursery into free/; false: it is gone. */
static bool come_of_age(struct store *s, struct free_file *f)
{
    struct disk *d = &s->disk;
    char name[NAME_TEXT];
    free_name(name, f->number);
    if (renameat2(d->nursery.fd, name, d->free_fd, name, RENAME_NOREPLACE) == 0) {
        f->nursed = false;
        return true;
    }
    unlinkat(d->nursery.fd, name, 0);
    store_fd_close(s, f->fd);
    free(f);
    return false;
}

bool file_give_back(struct store *s, struct free_file *f)
{
    if (f->nursed && !come_of_age(s, f))
        return false;
    list_push(&s->disk.ready, &f->link);
    count_free(s, 1);
    return true;
}

int file_used(struct store *s, struct free_file *f)
{
    int fd = f->fd;
    number_unused(&s->disk, f->number);
    free(f);
    return fd;
}

static void remove_message(struct store *s, struct bucket *b, const struct id *id, int fd)
{
    if (unlinkat(b->fd, id->text, 0) < 0)
        store_say(s, "new/%x/%s cannot be removed and may be delivered again: %s", b->number,
                  id->text, strerror(errno));
    store_fd_close(s, fd);
    bucket_changed(s, b);
}

void file_retire(struct store *s, const struct id *id, uint32_t bucket, int fd, bool unlink_it)
{
    struct disk *d = &s->disk;
    struct bucket *b = bucket_get(s, bucket, false);
    if (b == NULL) {
        store_say(s, "new/%x is gone with message %s in it: %s", bucket, id->text, strerror(errno));
        store_fd_close(s, fd);
        return;
    }
    d->last_finish = d->now;
    if (unlink_it || d->bad || d->free_count >= s->config.free_max + s->config.surplus_max) {
        remove_message(s, b, id, fd);
        return;
    }
    char name[NAME_TEXT];
    uint32_t number = number_take(d);
    free_name(name, number);
    if (renameat(b->fd, id->text, d->free_fd, name) < 0) {
        number_unused(d, number);
        remove_message(s, b, id, fd);
        return;
    }
    if (fd >= 0 && s->stat_open > s->config.open_max) {
        store_fd_close(s, fd);
        fd = -1;
    }
    struct free_file *f = xcalloc(1, sizeof *f);
    f->number = number;
    f->fd = fd;
    f->freed = d->generation;
    list_push(&b->freed, &f->link);
    b->freed_count++;
    count_free(s, 1);
    bucket_changed(s, b);
}

static void file_remove(struct store *s, struct free_file *f)
{
    char name[NAME_TEXT];
    free_name(name, f->number);
    if (unlinkat(s->disk.free_fd, name, 0) == 0)
        number_unused(&s->disk, f->number);
    store_fd_close(s, f->fd);
    list_remove(&f->link);
    free(f);
    count_free(s, -1);
}

/* Which one goes next; NULL: none. */
static struct free_file *to_remove(struct disk *d, uint32_t keep)
{
    struct list *from = &d->doomed;
    if (list_empty(from))
        from = &d->ready;
    else
        keep = 0;
    return d->free_count > keep && !list_empty(from)
               ? container_of(from->prev, struct free_file, link)
               : NULL;
}

void files_trim(struct store *s, uint32_t keep, uint32_t most, int64_t us)
{
    struct free_file *f;
    int64_t until = store_now() + us;
    for (uint32_t i = 0; i < most && (f = to_remove(&s->disk, keep)) != NULL; i++) {
        file_remove(s, f);
        if (store_now() >= until)
            break;
    }
}

bool files_removable(const struct store *s)
{
    return !list_empty(&s->disk.ready) || !list_empty(&s->disk.doomed);
}

void files_doom(struct store *s)
{
    list_splice(&s->disk.doomed, &s->disk.ready);
}

/* ---- quarantine ------------------------------------------------------------------ */

void file_quarantine(struct store *s, const struct op *op)
{
    struct disk *d = &s->disk;
    struct bucket *b = bucket_get(s, op->ref.bucket, false);
    struct stat st;
    /* the cached descriptor stays: marks that were called before its owner heard
     * of this still use it; it comes back by store_unload */
    /* a notice may have been replaced by a good one since it was looked at */
    if (b == NULL || fstatat(b->fd, op->id.text, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        st.st_ino != op->u.bad.inode)
        return;
    char name[STORE_PATH_MAX];
    int result = -1;
    snprintf(name, sizeof name, "%s", op->id.text);
    for (int i = 1; i < STORE_CORRUPT_NAMES; i++) {
        result = renameat2(b->fd, op->id.text, d->corrupt_fd, name, RENAME_NOREPLACE);
        if (result == 0 || errno != EEXIST)
            break;
        snprintf(name, sizeof name, "%s.%d", op->id.text, i);
    }
    if (result < 0)
        store_say(s, "new/%x/%s cannot be moved to corrupt/: %s", b->number, op->id.text,
                  strerror(errno));
    else if (!op->u.bad.silent)
        store_say(s, "new/%x/%s: %s; moved to corrupt/%s. Restore it from a copy, or remove it",
                  b->number, op->id.text, op->error, name);
    bucket_changed(s, b);
}

/* ---- start and stop ---------------------------------------------------------------- */

static int open_directory(const char *name, int *fd, struct err *e)
{
    struct stat st;
    if (mkdir(name, 0700) < 0 && errno != EEXIST)
        return err_sys(e, "cannot make the spool's directory %s", name);
    *fd = open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0 || fstat(*fd, &st) < 0)
        return err_sys(e, "cannot open the spool's directory %s", name);
    if (st.st_uid != geteuid())
        return err_set(e, "the spool's directory %s belongs to user %u; it must belong to user %u",
                       name, (unsigned)st.st_uid, (unsigned)geteuid());
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return err_set(e, "the spool's directory %s is writable by others; chmod go-w it", name);
    return 0;
}

/* Calls each(name) for the entries of a directory. */
static int each_entry(struct store *s, int fd, const char *what,
                      void (*each)(struct store *s, const char *name), struct err *e)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (dir == NULL)
        return err_sys(e, "cannot read the spool's directory %s", what);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            each(s, entry->d_name);
    closedir(dir);
    return 0;
}

/* What is in tmp/ was never acknowledged. */
static void sweep_tmp(struct store *s, const char *name)
{
    if (unlinkat(s->disk.tmp_fd, name, 0) < 0)
        store_say(s, "tmp/%s cannot be removed: %s", name, strerror(errno));
}

static void sweep_journal(struct store *s, const char *name)
{
    if (strcmp(name, "ring.new") == 0)
        unlinkat(s->disk.journal.dir, name, 0);
    else
        (void)nursery_sweep(s, name);
}

static void adopt_free(struct store *s, const char *name)
{
    struct disk *d = &s->disk;
    struct stat st;
    uint64_t number;
    char canonical[NAME_TEXT];
    if (slice_u64(slice_str(name), &number) < 0 || number >= UINT32_MAX)
        return;
    free_name(canonical, (uint32_t)number);
    if (strcmp(name, canonical) != 0 || fstatat(d->free_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        file_kind_check(&st, NULL) < 0)
        return;
    if (number >= d->next_number)
        d->next_number = (uint32_t)number + 1;
    if (st.st_size > STORE_RECYCLE_MAX) {
        unlinkat(d->free_fd, name, 0);
        return;
    }
    /* however many: removing them would take minutes, which the start has not */
    struct free_file *f = xcalloc(1, sizeof *f);
    f->number = (uint32_t)number;
    f->fd = -1;
    list_init(&f->link);
    file_give_back(s, f);
}

static struct slice dirty_key(const void *value)
{
    return id_slice(&((const struct dirty *)value)->id);
}

static struct slice shift_key(const void *value)
{
    return id_slice(&((const struct shift *)value)->id);
}

int files_open(struct store *s, struct err *e)
{
    struct disk *d = &s->disk;
    d->new_fd = d->free_fd = d->tmp_fd = d->corrupt_fd = d->nursery.fd = -1;
    journal_init(s);
    buckets_init(s);
    map_init(&d->dirty, dirty_key);
    map_init(&d->shifts, shift_key);
    list_init(&d->dirty_order);
    list_init(&d->ready);
    list_init(&d->doomed);
    buf_init(&d->scratch, SIZE_MAX);
    buf_init(&d->trailer, SIZE_MAX);
    if (open_directory("new", &d->new_fd, e) < 0 || open_directory("free", &d->free_fd, e) < 0 ||
        open_directory("tmp", &d->tmp_fd, e) < 0 ||
        open_directory("corrupt", &d->corrupt_fd, e) < 0 ||
        open_directory("journal", &d->journal.dir, e) < 0)
        return -1;
    if (each_entry(s, d->tmp_fd, "tmp", sweep_tmp, e) < 0 ||
        each_entry(s, d->journal.dir, "journal", sweep_journal, e) < 0 ||
        each_entry(s, d->free_fd, "free", adopt_free, e) < 0)
        return -1;
    return 0;
}

void files_drop(struct store *s, struct list *files)
{
    for (struct list *n; (n = list_pop(files)) != NULL;) {
        struct free_file *f = container_of(n, struct free_file, link);
        store_fd_close(s, f->fd);
        free(f);
    }
}

static void close_one(int fd)
{
    if (fd >= 0)
        close(fd);
}

void files_close(struct store *s)
{
    struct disk *d = &s->disk;
    buckets_close(s);
    files_drop(s, &d->ready);
    files_drop(s, &d->doomed);
    map_clear(&d->dirty, free);
    map_free(&d->dirty);
    map_clear(&d->shifts, free);
    map_free(&d->shifts);
    buf_free(&d->scratch);
    buf_free(&d->trailer);
    xfree(&d->numbers);
    xfree(&d->batch);
    xfree(&d->jobs);
    nursery_close(s);
    journal_close(s);
    close_one(d->new_fd);
    close_one(d->free_fd);
    close_one(d->tmp_fd);
    close_one(d->corrupt_fd);
}

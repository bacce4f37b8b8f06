/*
 * Reads all of new/ once, on a thread of its own, while mail is taken. It only
 * looks: what has to be renamed is sent to the disk thread, with the inode that
 * was looked at. A file that vanishes meanwhile was finished.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/mem.h"
#include "qmgr/store_internal.h"

struct scan {
    struct store *store;
    struct list images;
    unsigned image_count, alerts;
    uint64_t messages, quarantined;
};

static bool may_say(struct scan *c)
{
    if (++c->alerts == STORE_SCAN_ALERTS)
        store_say(c->store, "more than %d bad files: the others are not named here, see corrupt/",
                  STORE_SCAN_ALERTS);
    return c->alerts < STORE_SCAN_ALERTS;
}

static void leave(struct scan *c, const char *directory, const char *name, const char *why,
                  const char *advice)
{
    if (may_say(c))
        store_say(c->store, "new/%s%s%s: %s; left alone. %s", directory, *directory ? "/" : "",
                  name, why, advice);
}

static void skip(struct scan *c, const char *directory, const char *name, const char *why)
{
    leave(c, directory, name, why, "It is not mail of this relay: remove it");
}

/* F25: the disk's fault, perhaps for now. The mail is there and must stay. */
static void unreadable(struct scan *c, const char *directory, const char *name, const char *why)
{
    leave(c, directory, name, why, "It is read again when the service is restarted");
}

/* Passes what was found on; waits while the loop has enough to do. */
static void flush(struct scan *c)
{
    struct store *s = c->store;
    if (c->image_count == 0)
        return;
    pthread_mutex_lock(&s->scan_mutex);
    while (s->scan_batches >= STORE_SCAN_BATCHES && !s->scan_stop)
        pthread_cond_wait(&s->scan_room, &s->scan_mutex);
    s->scan_batches++;
    pthread_mutex_unlock(&s->scan_mutex);
    struct op *op = op_new(OP_FOUND, NULL, NULL);
    list_init(&op->u.found.images);
    list_splice(&op->u.found.images, &c->images);
    c->image_count = 0;
    store_complete_one(s, op);
}

static void send_bad(struct scan *c, enum op_kind kind, const struct id *id, uint32_t bucket,
                     const struct stat *st, const char *why)
{
    struct op *op = op_new(kind, id, NULL);
    op->ref.bucket = bucket;
    op->ref.fd = -1;
    op->u.bad.inode = st->st_ino;
    if (kind == OP_QUARANTINE) {
        op->u.bad.silent = !may_say(c);
        op->error = xstrdup(why);
        c->quarantined++;
    }
    store_inject_one(c->store, op);
}

static void judge(struct scan *c, int fd, const struct id *id, uint32_t bucket,
                  const char *directory, const struct stat *st)
{
    struct message_image *m = NULL;
    struct err e;
    switch (image_read(fd, id, st, &m, &e)) {
    case SPOOL_GOOD:
        m->found.ref.bucket = bucket;
        list_push(&c->images, &m->link);
        c->messages++;
        if (++c->image_count >= STORE_SCAN_BATCH)
            flush(c);
        break;
    case SPOOL_OTHER_ID:
        send_bad(c, OP_RETIRE, id, bucket, st, NULL);
        break;
    case SPOOL_NEWER:
        leave(c, directory, id->text, e.text, "It is mail of a later version: keep it");
        break;
    case SPOOL_CORRUPT:
        if (e.number == 0)
            send_bad(c, OP_QUARANTINE, id, bucket, st, e.text);
        else
            unreadable(c, directory, id->text, e.text);
        break;
    }
}

static void scan_file(struct scan *c, int dir, const char *directory, uint32_t bucket,
                      const char *name)
{
    struct id id;
    struct stat st;
    struct err e = {0};
    if (id_parse(slice_str(name), &id) < 0) {
        skip(c, directory, name, "the name is not a message's");
        return;
    }
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ELOOP)
            skip(c, directory, name, "is a symbolic link");
        else if (errno != ENOENT)
            unreadable(c, directory, name, strerror(errno));
        return;
    }
    if (fstat(fd, &st) < 0)
        unreadable(c, directory, name, strerror(errno));
    else if (file_kind_check(&st, &e) < 0)
        skip(c, directory, name, e.text);
    else
        judge(c, fd, &id, bucket, directory, &st);
    close(fd);
}

/* Lower case hexadecimal without leading zeros, as we write it. */
static int bucket_parse(const char *name, uint32_t *number)
{
    size_t len = strlen(name);
    if (len == 0 || len > 8 || strspn(name, "0123456789abcdef") != len ||
        (name[0] == '0' && len > 1))
        return -1;
    *number = (uint32_t)strtoul(name, NULL, 16);
    return 0;
}

static DIR *open_dir(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? NULL : fdopendir(fd);
}

static void scan_bucket(struct scan *c, const char *name)
{
    uint32_t number;
    if (bucket_parse(name, &number) < 0) {
        skip(c, "", name, "the name is not a directory's of messages");
        return;
    }
    DIR *dir = open_dir(c->store->disk.new_fd, name);
    if (dir == NULL) {
        if (errno == ELOOP || errno == ENOTDIR)
            skip(c, "", name, "is not a directory");
        else if (errno != ENOENT)
            unreadable(c, "", name, strerror(errno));
        return;
    }
    for (struct dirent *entry; !c->store->scan_stop && (entry = readdir(dir)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            scan_file(c, dirfd(dir), name, number, entry->d_name);
    closedir(dir);
}

/* What the journal could not give files to. */
static void take_from_journal(struct scan *c)
{
    struct list *found = &c->store->disk.journal.found;
    for (struct list *n; (n = list_pop(found)) != NULL;) {
        list_push(&c->images, n);
        c->messages++;
        if (++c->image_count >= STORE_SCAN_BATCH)
            flush(c);
    }
}

void *scan_main(void *store)
{
    struct scan c = {.store = store};
    struct store *s = store;
    list_init(&c.images);
    take_from_journal(&c);
    DIR *dir = open_dir(s->disk.new_fd, ".");
    if (dir == NULL)
        store_say(s, "new/ cannot be read: %s", strerror(errno));
    for (struct dirent *entry; dir && !s->scan_stop && (entry = readdir(dir)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            scan_bucket(&c, entry->d_name);
    if (dir)
        closedir(dir);
    flush(&c);
    struct op *op = op_new(OP_SCANNED, NULL, NULL);
    op->u.scanned.messages = c.messages;
    op->u.scanned.quarantined = c.quarantined;
    store_complete_one(s, op);
    return NULL;
}

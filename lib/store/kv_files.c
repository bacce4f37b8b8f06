/* Files and directories of the database: copied, removed, made durable. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/mem.h"
#include "store/kv_private.h"

enum {
    COPY_BYTES = 256 * 1024,
    SYNC_BYTES = 16 * 1024 * 1024, /* of a copy between two syncs, so that none takes minutes */
    TEXT_MAX = 4096                /* of a file that is read as a whole */
};

void kv_path(const struct kv *kv, const char *name, char out[static KV_DIRECTORY_MAX])
{
    snprintf(out, KV_DIRECTORY_MAX, "%s/%s", kv->directory, name);
}

static void path_in(const char *directory, const char *name, char out[static KV_PATH_MAX])
{
    snprintf(out, KV_PATH_MAX, "%.*s/%s", KV_DIRECTORY_MAX, directory, name);
}

bool kv_exists(const struct kv *kv, const char *name)
{
    char path[KV_DIRECTORY_MAX];
    struct stat st;
    kv_path(kv, name, path);
    return lstat(path, &st) == 0;
}

bool kv_is_log(const char *name)
{
    return strncmp(name, "log.", 4) == 0;
}

bool kv_is_table(const char *name)
{
    return slice_ends(slice_str(name), SLICE(".db"));
}

static bool is_entry(const char *name)
{
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

int kv_each_file(const char *directory, bool (*wanted)(const char *name),
                 int (*each)(const char *directory, const char *name, void *arg, struct err *e),
                 void *arg, struct err *e)
{
    DIR *d = opendir(directory);
    struct dirent *entry;
    int rc = 0;
    if (!d)
        return errno == ENOENT ? 0 : err_sys(e, "%s: cannot open", directory);
    while (rc == 0 && (entry = readdir(d)))
        if (wanted(entry->d_name))
            rc = each(directory, entry->d_name, arg, e);
    closedir(d);
    return rc;
}

/* ---- removing ---------------------------------------------------------------- */

int kv_remove_file(const char *directory, const char *name, void *arg, struct err *e)
{
    char path[KV_PATH_MAX];
    (void)arg;
    path_in(directory, name, path);
    return unlink(path) < 0 ? err_sys(e, "%s: cannot remove", path) : 0;
}

int kv_remove_directory(const struct kv *kv, const char *name, struct err *e)
{
    char path[KV_DIRECTORY_MAX];
    kv_path(kv, name, path);
    if (kv_each_file(path, is_entry, kv_remove_file, NULL, e) < 0)
        return -1;
    return rmdir(path) < 0 && errno != ENOENT ? err_sys(e, "%s: cannot remove", path) : 0;
}

/* ---- durability -------------------------------------------------------------- */

static int sync_path(const char *path, int flags, struct err *e)
{
    int fd = open(path, flags | O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 ? -1 : fsync(fd);
    if (rc < 0)
        err_sys(e, "%s: cannot be made durable", path);
    if (fd >= 0)
        close(fd);
    return rc;
}

int kv_sync_directory(const struct kv *kv, const char *name, struct err *e)
{
    char path[KV_DIRECTORY_MAX];
    kv_path(kv, name, path);
    return sync_path(path, O_DIRECTORY, e);
}

static int sync_file(const char *directory, const char *name, void *arg, struct err *e)
{
    char path[KV_PATH_MAX];
    path_in(directory, name, path);
    kv_alive(arg);
    return sync_path(path, 0, e);
}

int kv_sync_files(const struct kv *kv, const char *name, struct err *e)
{
    char path[KV_DIRECTORY_MAX];
    kv_path(kv, name, path);
    if (kv_each_file(path, is_entry, sync_file, (void *)(uintptr_t)kv, e) < 0)
        return -1;
    return kv_sync_directory(kv, name, e);
}

int kv_sync_log(const struct kv *kv, const char *name, struct err *e)
{
    char path[KV_DIRECTORY_MAX];
    kv_path(kv, name, path);
    if (kv_each_file(path, kv_is_log, sync_file, (void *)(uintptr_t)kv, e) < 0)
        return -1;
    return kv_sync_directory(kv, name, e);
}

/* ---- copying ----------------------------------------------------------------- */

/* A test makes a copy slow by this point. */
static void nap_if_slow(void)
{
    const struct timespec nap = {0, 300 * 1000 * 1000};
    if (fault_point("kv.copy.slow"))
        (void)nanosleep(&nap, NULL);
}

static int copy_bytes(const struct kv *kv, int from, int to)
{
    char *block = xmalloc(COPY_BYTES);
    ssize_t n;
    size_t unsynced = 0;
    while ((n = read(from, block, COPY_BYTES)) > 0) {
        errno = ENOSPC; /* what a short write means */
        if (write(to, block, (size_t)n) != n) {
            n = -1;
            break;
        }
        unsynced += (size_t)n;
        if (unsynced >= SYNC_BYTES && fdatasync(to) < 0) {
            n = -1;
            break;
        }
        unsynced %= SYNC_BYTES;
        nap_if_slow();
        kv_alive(kv);
    }
    free(block);
    return n == 0 ? fsync(to) : -1;
}

struct copying {
    const struct kv *kv;
    const char *to;
};

static int copy_file(const char *directory, const char *name, void *arg, struct err *e)
{
    const struct copying *c = arg;
    char source[KV_PATH_MAX], target[KV_PATH_MAX];
    path_in(directory, name, source);
    path_in(c->to, name, target);
    int from = open(source, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return err_sys(e, "%s: cannot open", source);
    int to = open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int rc = 0;
    if (to < 0 && errno != EEXIST)
        rc = err_sys(e, "%s: cannot create", target);
    else if (to >= 0 && copy_bytes(c->kv, from, to) < 0)
        rc = err_sys(e, "%s: cannot copy to %s", source, target);
    if (to >= 0)
        close(to);
    close(from);
    return rc;
}

int kv_copy_files(const struct kv *kv, const char *from, const char *to,
                  bool (*wanted)(const char *name), struct err *e)
{
    char source[KV_DIRECTORY_MAX], target[KV_DIRECTORY_MAX];
    kv_path(kv, from, source);
    kv_path(kv, to, target);
    struct copying c = {kv, target};
    return kv_each_file(source, wanted, copy_file, &c, e);
}

/* ---- small files ------------------------------------------------------------- */

int kv_write_file(const struct kv *kv, const char *directory, const char *name, struct slice text,
                  struct err *e)
{
    char folder[KV_DIRECTORY_MAX], path[KV_PATH_MAX], fresh[KV_PATH_MAX + 8];
    kv_path(kv, directory, folder);
    path_in(folder, name, path);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    errno = fd < 0 ? errno : ENOSPC;
    bool good = fd >= 0 && write(fd, text.ptr, text.len) == (ssize_t)text.len && fsync(fd) == 0;
    if (!good)
        err_sys(e, "%s: cannot be written", fresh);
    if (fd >= 0)
        close(fd);
    if (!good) {
        (void)unlink(fresh);
        return -1;
    }
    if (rename(fresh, path) < 0)
        return err_sys(e, "%s: cannot rename", fresh);
    return kv_sync_directory(kv, directory, e);
}

bool kv_read_file(const struct kv *kv, const char *directory, const char *name, struct buf *out)
{
    char folder[KV_DIRECTORY_MAX], path[KV_PATH_MAX], text[TEXT_MAX];
    kv_path(kv, directory, folder);
    path_in(folder, name, path);
    buf_clear(out);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    return n >= 0 && buf_add(out, text, (size_t)n) == 0;
}

#include "qmgr/kept_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/log.h"
#include "core/mem.h"

enum { SUM_LINE = 21 }; /* "sum " and 16 digits and the end of the line */

static void sum_line(struct slice text, char out[static SUM_LINE + 1])
{
    snprintf(out, SUM_LINE + 1, "sum %016llx\n",
             (unsigned long long)XXH3_64bits(text.ptr ? text.ptr : "", text.len));
}

/* ---- reading --------------------------------------------------------------------------- */

int file_read_whole(const char *name, struct buf *text, struct err *e)
{
    int fd = open(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    ssize_t n = 1;
    if (fd < 0 && errno == ENOENT)
        return 1;
    if (fd < 0)
        return err_sys(e, "%s", name);
    int rc =
        fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? 0 : err_set(e, "%s: not a regular file", name);
    while (rc == 0 && n > 0) {
        if (buf_reserve(text, 65536) < 0)
            rc = err_set(e, "%s: longer than %zu bytes", name, text->max);
        else if ((n = read(fd, text->data + text->len, text->cap - text->len)) < 0)
            rc = err_sys(e, "%s", name);
        else
            text->len += (size_t)n;
    }
    close(fd);
    return rc;
}

int kept_file_read(const char *name, struct buf *out, struct err *e)
{
    char expected[SUM_LINE + 1];
    out->max = KEPT_FILE_MAX;
    int rc = file_read_whole(name, out, e);
    if (rc != 0)
        return rc;
    size_t body = out->len < SUM_LINE ? 0 : out->len - SUM_LINE;
    sum_line(slice_make(out->data, body), expected);
    if (slice_eq(slice_from(buf_slice(out), body), slice_str(expected))) {
        out->len = body;
        return 0;
    }
    char *aside = xasprintf("%s.damaged", name);
    bool kept = rename(name, aside) == 0;
    rc = err_set(e, "%s is damaged%s%s", name, kept ? ", kept as " : "", kept ? aside : "");
    free(aside);
    return rc;
}

/* ---- writing --------------------------------------------------------------------------- */

static int write_whole(int fd, struct slice text)
{
    while (text.len) {
        ssize_t n = write(fd, text.ptr, text.len);
        if (n < 0 && errno != EINTR)
            return -1;
        text = slice_from(text, n > 0 ? (size_t)n : 0);
    }
    return fsync(fd);
}

static int sync_directory(void)
{
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? -1 : fsync(fd);
    if (fd >= 0)
        close(fd);
    return rc;
}

int file_replace(const char *name, struct slice text, struct err *e)
{
    char *fresh = xasprintf("%s.new", name);
    int rc = 0, fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || write_whole(fd, text) < 0)
        rc = err_sys(e, "%s", fresh);
    if (fd >= 0)
        close(fd);
    if (rc == 0 && (rename(fresh, name) < 0 || sync_directory() < 0))
        rc = err_sys(e, "%s", name);
    if (rc < 0)
        (void)unlink(fresh);
    free(fresh);
    return rc;
}

static void *run(void *arg)
{
    struct kept_file *k = arg;
    k->failed = file_replace(k->name, buf_slice(&k->text), &k->error) < 0;
    atomic_store(&k->finished, true);
    return NULL;
}

struct buf *kept_file_begin(struct kept_file *k)
{
    buf_clear(&k->text);
    k->text.max = KEPT_FILE_MAX;
    return &k->text;
}

void kept_file_save(struct kept_file *k)
{
    char sum[SUM_LINE + 1];
    sum_line(buf_slice(&k->text), sum);
    buf_addstr(&k->text, sum);
    atomic_store(&k->finished, false);
    k->running = pthread_create(&k->thread, NULL, run, k) == 0;
    k->failed = !k->running;
    if (!k->running)
        log_warning("%s: cannot be written: no thread can be made", k->name);
}

bool kept_file_busy(struct kept_file *k, bool wait)
{
    if (!k->running || (!wait && !atomic_load(&k->finished)))
        return k->running;
    pthread_join(k->thread, NULL);
    k->running = false;
    buf_free(&k->text);
    if (k->failed && !k->complained)
        log_error("%s: cannot be written, and is behind: %s", k->name, k->error.text);
    k->complained = k->failed;
    return false;
}

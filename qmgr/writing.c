#include "qmgr/writing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"

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
        if (buf_reserve(text, FILE_READ_STEP) < 0)
            rc = err_set(e, "%s: longer than %zu bytes", name, text->max);
        else if ((n = read(fd, text->data + text->len, text->cap - text->len)) < 0)
            rc = err_sys(e, "%s", name);
        else
            text->len += (size_t)n;
    }
    close(fd);
    return rc;
}

int file_keep_aside(const char *name, struct err *e)
{
    char *aside = xasprintf("%s.damaged", name);
    struct err said = *e;
    if (rename(name, aside) == 0)
        (void)err_set(e, "%s, kept as %s", said.text, aside);
    free(aside);
    return -1;
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
    struct writing *w = arg;
    w->failed = file_replace(w->name, buf_slice(&w->text), &w->error) < 0;
    atomic_store(&w->finished, true);
    return NULL;
}

struct buf *writing_begin(struct writing *w, size_t max)
{
    buf_clear(&w->text);
    w->text.max = max;
    return &w->text;
}

void writing_start(struct writing *w)
{
    atomic_store(&w->finished, false);
    w->running = pthread_create(&w->thread, NULL, run, w) == 0;
    w->failed = !w->running;
    if (!w->running)
        log_warning("%s: cannot be written: no thread can be made", w->name);
}

bool writing_runs(struct writing *w, bool wait)
{
    if (!w->running || (!wait && !atomic_load(&w->finished)))
        return w->running;
    pthread_join(w->thread, NULL);
    w->running = false;
    buf_free(&w->text);
    if (w->failed && !w->complained)
        log_error("%s: cannot be written, and is behind: %s", w->name, w->error.text);
    w->complained = w->failed;
    return false;
}

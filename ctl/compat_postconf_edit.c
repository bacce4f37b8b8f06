/* postconf -e, -X, -#: main.cf is written anew beside the old one, which it replaces in
 * one step. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/cf_edit.h"
#include "conf/cf_lines.h"
#include "conf/params.h"
#include "core/mem.h"
#include "ctl/compat_postconf.h"

static int write_all(int fd, struct slice bytes)
{
    while (bytes.len) {
        ssize_t n = write(fd, bytes.ptr, bytes.len);
        if (n < 0 && errno != EINTR)
            return -1;
        bytes = slice_from(bytes, n > 0 ? (size_t)n : 0);
    }
    return 0;
}

/* With owner and mode of the old file. */
static int write_like(const char *path, const struct stat *like, struct slice text, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, "open %s", path);
    int rc = 0;
    struct stat now;
    if (fstat(fd, &now) < 0 || write_all(fd, text) < 0 ||
        ((now.st_uid != like->st_uid || now.st_gid != like->st_gid) &&
         fchown(fd, like->st_uid, like->st_gid) < 0) ||
        fchmod(fd, like->st_mode & 07777) < 0 || fsync(fd) < 0)
        rc = err_sys(e, "write %s", path);
    close(fd);
    if (rc < 0)
        unlink(path);
    return rc;
}

/* `directory` is open and locked: whoever else changes main.cf waits. */
static int replace(int directory, const char *path, struct slice text, struct err *e)
{
    struct stat st;
    char *fresh = xasprintf("%s.tmp", path);
    int rc = stat(path, &st) < 0 ? err_sys(e, "%s", path) : write_like(fresh, &st, text, e);
    if (rc == 0 && rename(fresh, path) < 0) {
        rc = err_sys(e, "rename %s to %s", fresh, path);
        unlink(fresh);
    }
    if (rc == 0 && fsync(directory) < 0)
        rc = err_sys(e, "fsync of the directory of %s", path);
    free(fresh);
    return rc;
}

/* The name of the file itself, if main.cf is a link; the caller frees. */
static char *real_path(const struct postconf *pc, struct err *e)
{
    char *path = postconf_path(pc, "main.cf"), *real = realpath(path, NULL);
    if (!real)
        err_sys(e, "open %s", path);
    free(path);
    return real;
}

static int open_locked(const char *path, struct err *e)
{
    char *directory = slice_dup(slice_first(slice_str(path), (size_t)(strrchr(path, '/') - path)));
    int fd = open(*directory ? directory : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        err_sys(e, "open %s", directory);
    while (fd >= 0 && flock(fd, LOCK_EX) < 0 && errno == EINTR)
        ;
    free(directory);
    return fd;
}

/* One that Postern does not know would keep it from starting. */
static int check_known(const struct cf_change *c, struct err *e)
{
    if (c->kind != CF_SET || param_find(c->name) >= 0)
        return 0;
    return err_set(e, "%.*s: unknown parameter; main.cf was not changed", SLICE_ARG(c->name));
}

/* As cf_edit has it: of several changes of one name the last counts. */
static void warn_of_earlier(const struct cf_change *changes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (slice_eq(changes[i].name, changes[count].name) && changes[i].kind == CF_SET)
            compat_say("warning: ignoring earlier request: '%.*s = %.*s'",
                       SLICE_ARG(changes[i].name), SLICE_ARG(changes[i].value));
}

static int parse_words(const struct postconf *pc, struct cf_change *changes, struct err *e)
{
    enum cf_change_kind kind = pc->mode == 'e' ? CF_SET : pc->mode == 'X' ? CF_REMOVE : CF_COMMENT;
    for (size_t i = 0; pc->words[i]; i++) {
        if (cf_change_parse(&changes[i], kind, slice_str(pc->words[i]), e) < 0 ||
            check_known(&changes[i], e) < 0)
            return -1;
        warn_of_earlier(changes, i);
    }
    return 0;
}

/* What was asked for is done, even if more has to follow before it makes sense. */
static void warn(const struct postconf *pc, struct slice text)
{
    struct err e;
    struct config *c = config_parse(text, "main.cf", pc->ctl->directory, &e);
    if (!c)
        compat_say("warning: the relay would refuse this configuration: %s", e.text);
    config_free(c);
}

static int edit_file(const struct postconf *pc, const struct cf_change *changes, size_t count,
                     const char *path, struct err *e)
{
    struct buf text = BUF_INIT(0), changed = BUF_INIT(CF_FILE_MAX);
    int directory = open_locked(path, e);
    int rc = directory < 0 ? -1 : cf_read_file(path, &text, e);
    if (rc == 0)
        rc = cf_edit(buf_slice(&text), changes, count, &changed, e);
    if (rc == 0 && !slice_eq(buf_slice(&text), buf_slice(&changed)))
        rc = replace(directory, path, buf_slice(&changed), e);
    if (rc == 0)
        warn(pc, buf_slice(&changed));
    if (directory >= 0)
        close(directory);
    buf_free(&text);
    buf_free(&changed);
    return rc;
}

int postconf_edit(const struct postconf *pc)
{
    size_t count = 0;
    struct err e;
    while (pc->words[count])
        count++;
    struct cf_change *changes = xcalloc(count, sizeof *changes);
    char *path = real_path(pc, &e);
    int rc = path ? parse_words(pc, changes, &e) : -1;
    if (rc == 0)
        rc = edit_file(pc, changes, count, path, &e);
    free(path);
    free(changes);
    return rc < 0 ? compat_fatal(EXIT_FAILURE, "%s", e.text) : EXIT_SUCCESS;
}

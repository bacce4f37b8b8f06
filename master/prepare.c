#include "master/prepare.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "io/net.h"

enum {
    OPEN_FILES_WANTED = 65536,
    OPEN_FILES_FEW = 8192 /* worth a warning */
};

/* ---- directories -------------------------------------------------------------- */

struct wanted {
    const char *parameter, *path;
    uid_t uid;
    gid_t gid;
    mode_t mode;
};

static int make_parents(const char *path, struct err *e)
{
    char *copy = xstrdup(path);
    int rc = 0;
    for (char *p = strchr(copy + 1, '/'); p && rc == 0; p = strchr(p + 1, '/')) {
        *p = '\0';
        if (mkdir(copy, 0755) == 0)
            rc = chmod(copy, 0755); /* whatever the umask */
        else if (errno != EEXIST)
            rc = -1;
        if (rc < 0)
            err_sys(e, "%s: cannot create", copy);
        *p = '/';
    }
    free(copy);
    return rc;
}

/* Whether a directory that belongs to somebody else may be made ours: it is
 * empty, or has a spool's folders. A slip in main.cf must not take /home. */
static bool looks_like_spool(int fd)
{
    struct stat st;
    if (fstatat(fd, "new", &st, AT_SYMLINK_NOFOLLOW) == 0 ||
        fstatat(fd, "public", &st, AT_SYMLINK_NOFOLLOW) == 0)
        return true;
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = again >= 0 ? fdopendir(again) : NULL;
    if (!d) {
        if (again >= 0)
            close(again);
        return false;
    }
    int entries = 0;
    while (readdir(d))
        entries++;
    closedir(d);
    return entries <= 2;
}

/* A directory that is there already must be ours, or free to become so. */
static int check_owner(int fd, const struct wanted *w, struct stat *st, struct err *e)
{
    if (fstat(fd, st) < 0)
        return err_sys(e, "%s", w->path);
    if (st->st_uid != w->uid && w->uid != 0 && !looks_like_spool(fd))
        return err_set(e,
                       "%s = %s: holds other files and belongs to another user; give a "
                       "directory of its own",
                       w->parameter, w->path);
    return 0;
}

static int repair(int fd, const struct wanted *w, bool fresh, struct err *e)
{
    struct stat st;
    if (check_owner(fd, w, &st, e) < 0)
        return -1;
    if (st.st_uid == w->uid && st.st_gid == w->gid && (st.st_mode & 07777) == w->mode)
        return 0;
    if (fchown(fd, w->uid, w->gid) < 0 || fchmod(fd, w->mode) < 0)
        return err_sys(e, "%s: cannot set owner and mode", w->path);
    if (!fresh)
        log_warning("%s: owner and mode were %u:%u %04o, set to %u:%u %04o", w->path, st.st_uid,
                    st.st_gid, st.st_mode & 07777u, w->uid, w->gid, w->mode);
    return 0;
}

static int open_directory(const struct wanted *w, struct err *e)
{
    int fd = open(w->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? err_sys(e, "%s = %s: cannot open as a directory", w->parameter, w->path) : fd;
}

/* What ensure would fail with, without a change. */
static int examine(const struct wanted *w, bool privileged, struct err *e)
{
    struct stat st;
    if (strcmp(w->path, "/") == 0)
        return err_set(e, "%s: must not be the root directory", w->parameter);
    if (!privileged || lstat(w->path, &st) < 0)
        return 0; /* made when it starts; 'postern check' looks at who may */
    int fd = open_directory(w, e);
    int rc = fd < 0 ? -1 : check_owner(fd, w, &st, e);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int ensure(const struct wanted *w, bool privileged, struct err *e)
{
    if (strcmp(w->path, "/") == 0)
        return err_set(e, "%s: must not be the root directory", w->parameter);
    if (make_parents(w->path, e) < 0)
        return -1;
    bool fresh = mkdir(w->path, w->mode) == 0;
    if (!fresh && errno != EEXIST)
        return err_sys(e, "%s = %s: cannot create", w->parameter, w->path);
    int fd = open_directory(w, e);
    if (fd < 0)
        return -1;
    int rc = 0;
    if (privileged)
        rc = repair(fd, w, fresh, e);
    else if (access(w->path, W_OK | X_OK) < 0)
        rc = err_sys(e, "%s = %s: cannot write to it", w->parameter, w->path);
    close(fd);
    return rc;
}

static int each_directory(const struct plan *plan, bool privileged,
                          int (*deal)(const struct wanted *w, bool privileged, struct err *e),
                          struct err *e)
{
    const struct config *c = plan->config;
    char *public = xasprintf("%s/public", c->queue_directory);
    /* everybody passes through the spool to the sockets in public/, nothing more:
     * the other folders are open to qmgr's user only */
    const struct wanted all[] = {
        {"data_directory", c->data_directory, 0, 0, 0755},
        {"empty_directory", c->empty_directory, 0, 0, 0755},
        {"pid_directory", c->pid_directory, 0, 0, 0755},
        {"queue_directory", c->queue_directory, plan->queue_uid, plan->control_gid, 0711},
        {"queue_directory", public, 0, plan->control_gid, 0711},
        {"accounts_directory", c->accounts_directory, plan->quota_uid, plan->control_gid, 0700},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && rc == 0; i++) {
        struct wanted w = all[i];
        if (w.path == c->accounts_directory && !c->accounts_enable)
            continue;
        if (!privileged)
            w.mode |= S_IRWXU;
        rc = deal(&w, privileged, e);
    }
    free(public);
    return rc;
}

int prepare_directories(const struct plan *plan, bool privileged, struct err *e)
{
    return each_directory(plan, privileged, ensure, e);
}

int prepare_check(const struct plan *plan, bool privileged, struct err *e)
{
    return each_directory(plan, privileged, examine, e);
}

/* ---- one master ------------------------------------------------------------------ */

static int already_running(const struct pid_file *f, struct err *e)
{
    char text[32] = "";
    ssize_t n = pread(f->fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return err_set(e, "Postern is running already, as process %s (%s)", *text ? text : "unknown",
                   f->path);
}

/* Whether the name still leads to the file: the master that had it may have
 * removed it between our open and our lock. */
static bool is_current(const struct pid_file *f)
{
    struct stat ours, named;
    return fstat(f->fd, &ours) == 0 && lstat(f->path, &named) == 0 && ours.st_dev == named.st_dev &&
           ours.st_ino == named.st_ino;
}

static int lock_pid_file(struct pid_file *f, struct err *e)
{
    for (;;) {
        f->fd = open(f->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (f->fd < 0)
            return err_sys(e, "%s: cannot create", f->path);
        if (flock(f->fd, LOCK_EX | LOCK_NB) < 0)
            return errno == EWOULDBLOCK ? already_running(f, e) : err_sys(e, "%s: lock", f->path);
        if (is_current(f))
            return 0;
        close(f->fd);
    }
}

int prepare_pid_file(struct pid_file *f, const struct config *config, struct err *e)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%d\n", (int)getpid());
    f->path = xasprintf("%s/master.pid", config->pid_directory);
    if (lock_pid_file(f, e) < 0)
        return -1;
    if (fchmod(f->fd, 0644) < 0 || ftruncate(f->fd, 0) < 0 ||
        pwrite(f->fd, text, (size_t)len, 0) != len)
        return err_sys(e, "%s: cannot write", f->path);
    return 0;
}

void prepare_remove_pid_file(struct pid_file *f)
{
    if (f->fd >= 0 && unlink(f->path) < 0)
        log_warning("%s: cannot remove", f->path);
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
    xfree(&f->path);
}

static void check_address(const struct config *c, const char *name, const char *address)
{
    if (*address && !net_text_is_ours(address))
        log_warning("%s: %s = %s is not an address of this machine; mail waits in the queue until "
                    "it is: correct it, or add it to an interface",
                    config_where(c, name), name, address);
}

void prepare_check_addresses(const struct plan *p)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct config *c = p->services[i].config;
        if (p->services[i].line->command != command_find(SLICE("relay")))
            continue;
        check_address(c, "smtp_bind_address", c->smtp_bind_address);
        check_address(c, "smtp_bind_address6", c->smtp_bind_address6);
    }
}

void prepare_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_max >= OPEN_FILES_WANTED)
        return;
    bool few = files.rlim_max < OPEN_FILES_FEW;
    files.rlim_max = OPEN_FILES_WANTED;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0 && few)
        log_warning("a process may open %llu files only, which limits the sessions; raise the "
                    "limit (ulimit -n, or LimitNOFILE in the unit)",
                    (unsigned long long)files.rlim_cur);
}

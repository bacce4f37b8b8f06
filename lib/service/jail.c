#include "service/jail.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "service/sanitized.h"

static int raise_limits(struct err *e)
{
    struct rlimit none = {0, 0}, files;
    if (!SANITIZED && setrlimit(RLIMIT_CORE, &none) < 0)
        return err_sys(e, "cannot forbid core dumps");
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return err_sys(e, "getrlimit");
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0)
        return err_sys(e, "cannot raise the limit of open files");
    return 0;
}

/* Two queue managers in one spool would deliver everything twice, and two quotas
 * would ruin their database: after master was killed, the old one may still be
 * finishing (F17). The lock lives as long as the process. */
static int lock_directory(const char *path, struct err *e)
{
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "%s: cannot open", path);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0; /* fd stays open for the life of the process */
    if (errno == EWOULDBLOCK)
        err_set(e, "%s: is in use by another process of this service, which has to end first",
                path);
    else
        err_sys(e, "%s: cannot lock", path);
    close(fd);
    return -1;
}

/* An empty_directory that the service's user could write would be no jail. */
static int check_empty(const char *path, struct err *e)
{
    struct stat st;
    if (stat(".", &st) < 0)
        return err_sys(e, "%s", path);
    if (st.st_uid != 0 || (st.st_mode & (S_IWGRP | S_IWOTH)))
        return err_set(e,
                       "%s: must belong to root and be writable by root only; run: chown root: "
                       "%s && chmod 755 %s",
                       path, path, path);
    return 0;
}

/* The directory that the service works in, or NULL. */
static const char *own_directory(const struct service_ops *ops, const struct config *config)
{
    if (ops->jail == JAIL_SPOOL)
        return config->queue_directory;
    return ops->jail == JAIL_ACCOUNTS ? config->accounts_directory : NULL;
}

static int change_root(const struct service_ops *ops, const struct config *config, struct err *e)
{
    const char *own = own_directory(ops, config);
    const char *path = own ? own : config->empty_directory;
    if (chdir(path) < 0)
        return err_sys(e, "%s: cannot enter", path);
    if (!own && check_empty(path, e) < 0)
        return -1;
    if (chroot(".") < 0)
        return err_sys(e, "%s: cannot make it the root directory", path);
    return chdir("/") < 0 ? err_sys(e, "%s: cannot enter", path) : 0;
}

static int change_user(const struct passwd *user, struct err *e)
{
    capng_clear(CAPNG_SELECT_BOTH);
    if (capng_apply(CAPNG_SELECT_BOUNDS) < 0)
        return err_set(e, "cannot give up the capability bounding set");
    if (setgroups(0, NULL) < 0 || setresgid(user->pw_gid, user->pw_gid, user->pw_gid) < 0 ||
        setresuid(user->pw_uid, user->pw_uid, user->pw_uid) < 0)
        return err_sys(e, "cannot become user %s", user->pw_name);
    if (capng_apply(CAPNG_SELECT_CAPS) < 0)
        return err_set(e, "cannot give up capabilities");
    if (setuid(0) == 0)
        return err_set(e, "root can be had back after becoming user %s", user->pw_name);
    return 0;
}

static int leave_root(const struct service_ops *ops, const struct config *config, struct err *e)
{
    errno = 0;
    const struct passwd *user = getpwnam(ops->user);
    if (!user && errno)
        return err_sys(e, "user %s: cannot look it up", ops->user);
    if (!user || user->pw_uid == 0)
        return err_set(e,
                       "user %s: %s; run: useradd --system --user-group --no-create-home "
                       "--home-dir /nonexistent --shell /usr/sbin/nologin %s",
                       ops->user, user ? "must not be root" : "does not exist", ops->user);
    tzset(); /* reads /etc/localtime while it can be seen */
    if (change_root(ops, config, e) < 0)
        return -1;
    return change_user(user, e);
}

int jail_enter(const struct service_ops *ops, const struct config *config, struct err *e)
{
    const char *own = own_directory(ops, config);
    if (raise_limits(e) < 0)
        return -1;
    if (geteuid() == 0) {
        if (leave_root(ops, config, e) < 0)
            return -1;
    } else if (own && chdir(own) < 0) {
        return err_sys(e, "%s: cannot enter", own);
    }
    if (own && lock_directory(own, e) < 0)
        return -1;
    /* the leak checker of a sanitized build attaches to its own process */
    if (!SANITIZED && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return err_sys(e, "cannot forbid debugging");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_sys(e, "cannot give up new privileges");
    return jail_filter(ops->network, ops->threads, e);
}

#if SANITIZED
int __lsan_is_turned_off(void);

/* Asked by the leak checker at the end of the process. It reads /proc, which is
 * not there in a chroot. */
int __lsan_is_turned_off(void)
{
    return access("/proc/self/task", R_OK) != 0;
}
#endif

#include "master/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"

enum { BACKLOG = 1024, PUBLIC_BACKLOG = 64 };

int listen_find(const struct list *listeners, const char *text)
{
    list_each(listeners, n)
    {
        const struct listener *l = container_of(n, struct listener, link);
        if (strcmp(l->text, text) == 0)
            return l->fd;
    }
    return -1;
}

void listen_close(struct list *listeners)
{
    struct list *n;
    while ((n = list_pop(listeners))) {
        struct listener *l = container_of(n, struct listener, link);
        close(l->fd);
        free(l);
    }
}

static int bind_error(const struct plan_address *a, struct err *e)
{
    if (errno == EADDRINUSE)
        return err_set(e, "%s: another program listens there; 'ss -ltnp' tells which", a->text);
    if (errno == EACCES)
        return err_set(e, "%s: only root may listen on ports below 1024", a->text);
    if (errno == EADDRNOTAVAIL)
        return err_set(e,
                       "%s: this machine does not have the address; see inet_interfaces and "
                       "master.cf",
                       a->text);
    return err_sys(e, "%s: cannot listen", a->text);
}

static int open_socket(const struct plan_address *a, struct err *e)
{
    int one = 1;
    int fd = socket(a->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(e, "%s: cannot make a socket", a->text);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
        (a->address.ss_family != AF_INET6 ||
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) == 0) &&
        bind(fd, (const struct sockaddr *)&a->address, a->len) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int number = errno;
    bind_error(a, e);
    if (e)
        e->number = number;
    close(fd);
    return -1;
}

/* Our own listener on this port, which a wildcard address keeps from being opened
 * beside it; NULL if there is none. */
static const struct listener *find_port(const struct list *listeners, const char *text)
{
    list_each(listeners, n)
    {
        const struct listener *l = container_of(n, struct listener, link);
        if (strcmp(strrchr(l->text, ':'), strrchr(text, ':')) == 0)
            return l;
    }
    return NULL;
}

static int add_listener(struct list *fresh, const struct list *current,
                        const struct plan_address *a, const struct plan *plan, bool privileged,
                        struct err *e)
{
    int old = listen_find(current, a->text), fd;
    if (old >= 0)
        fd = fcntl(old, F_DUPFD_CLOEXEC, 0);
    else if (a->public_name)
        fd = listen_public(plan, a->public_name, PUBLIC_EVERYONE, privileged, e);
    else
        fd = open_socket(a, e);
    if (old >= 0 && fd < 0)
        return err_sys(e, "%s", a->text);
    if (fd < 0 && a->optional && (e->number == EAFNOSUPPORT || e->number == EADDRNOTAVAIL)) {
        log_info("%s: the system does not have this address family; not listening there", a->text);
        return 0;
    }
    if (fd < 0 && !a->public_name && e->number == EADDRINUSE) {
        const struct listener *ours = find_port(current, a->text);
        return ours ? err_set(e,
                              "%s: cannot be opened while Postern itself listens on %s; stop and "
                              "start instead of reloading",
                              a->text, ours->text)
                    : -1;
    }
    if (fd < 0)
        return -1;
    struct listener *l = xcalloc(1, sizeof *l);
    memcpy(l->text, a->text, sizeof l->text);
    l->fd = fd;
    list_push(fresh, &l->link);
    return 0;
}

int listen_open(struct list *fresh, const struct list *current, const struct plan *plan,
                bool privileged, struct err *e)
{
    list_init(fresh);
    for (size_t i = 0; i < plan->count; i++)
        for (unsigned k = 0; k < plan->services[i].address_count; k++)
            if (add_listener(fresh, current, &plan->services[i].addresses[k], plan, privileged, e) <
                0) {
                listen_close(fresh);
                return -1;
            }
    return 0;
}

/* Binds the name in the current directory with its final owner and mode from
 * the start, so that nothing has to be changed by name afterwards. */
static int bind_here(int fd, const char *name, enum public_access access, const struct plan *plan,
                     bool privileged)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    gid_t group = getegid();
    snprintf(address.sun_path, sizeof address.sun_path, "%s", name);
    if (unlink(name) < 0 && errno != ENOENT)
        return -1;
    if (privileged && setegid(plan->control_gid) < 0)
        return -1;
    mode_t mask = umask(access == PUBLIC_GROUP ? 0117 : 0111);
    int rc = bind(fd, (const struct sockaddr *)&address, sizeof address);
    int number = errno;
    umask(mask);
    if (privileged && setegid(group) < 0)
        panic("cannot get the group back");
    errno = number;
    return rc;
}

/* queue_directory/public. The spool belongs to qmgr's user, who could put a link
 * or a directory of its own there: root does nothing behind one. */
static int open_public(const char *path, bool privileged, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        err_sys(e, "%s", path);
    else if (!privileged || st.st_uid == 0)
        return fd;
    else
        err_set(e, "%s: must belong to root", path);
    if (fd >= 0)
        close(fd);
    return -1;
}

static void remove_name(int directory, const char *path, const char *name)
{
    if (unlinkat(directory, name, 0) < 0 && errno != ENOENT)
        log_warning("%s/%s: cannot remove: %m", path, name);
}

void listen_remove_public(const struct plan *plan, bool privileged)
{
    char *path = xasprintf("%s/public", plan->config->queue_directory);
    struct err e;
    int directory = open_public(path, privileged, &e);
    if (directory < 0) {
        log_warning("the sockets in %s are not removed: %s", path, e.text);
    } else {
        remove_name(directory, path, "control");
        remove_name(directory, path, "showq");
        remove_name(directory, path, "accounts");
        for (size_t i = 0; i < plan->count; i++)
            if (plan->services[i].line->command->inet && plan->services[i].line->local)
                remove_name(directory, path, plan->services[i].line->name);
        close(directory);
    }
    free(path);
}

int listen_public(const struct plan *plan, const char *name, enum public_access access,
                  bool privileged, struct err *e)
{
    char *path = xasprintf("%s/public", plan->config->queue_directory);
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int directory = open_public(path, privileged, e);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = -1;
    if (here < 0 || fd < 0)
        err_sys(e, "%s", path);
    else if (directory < 0)
        rc = -1; /* told already */
    else if (fchdir(directory) < 0 || bind_here(fd, name, access, plan, privileged) < 0 ||
             listen(fd, PUBLIC_BACKLOG) < 0)
        err_sys(e, "%s/%s: cannot listen", path, name);
    else
        rc = 0;
    if (here >= 0 && fchdir(here) < 0)
        panic("cannot go back to the working directory");
    if (here >= 0)
        close(here);
    if (directory >= 0)
        close(directory);
    if (rc < 0 && fd >= 0)
        close(fd);
    free(path);
    return rc == 0 ? fd : -1;
}

/* Users, directories, programs, disk space. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/mem.h"
#include "ctl/check.h"

static void check_users(struct check *c)
{
    unsigned before = c->errors;
    if (!c->root) {
        check_say(c, CHECK_NOTE,
                  "not run as root: services would run as this user and without a "
                  "jail, and what only root may see is not checked");
        return;
    }
    for (size_t i = 0; i < command_count; i++)
        if (!getpwnam(commands[i].user))
            check_say(c, CHECK_ERROR,
                      "the user %s of %s does not exist; do: useradd --system --user-group "
                      "--no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin %s",
                      commands[i].user, commands[i].name, commands[i].user);
    if (!getgrnam(c->config->control_group))
        check_say(c, CHECK_ERROR, "control_group = %s does not exist; do: groupadd --system %s",
                  c->config->control_group, c->config->control_group);
    if (c->errors == before)
        check_say(c, CHECK_OK, "users and groups of the services exist");
}

/* The directory or the nearest one above it that exists. */
static char *existing(const char *path)
{
    char *copy = xstrdup(path);
    struct stat st;
    while (stat(copy, &st) < 0 && errno == ENOENT) {
        char *slash = strrchr(copy, '/');
        if (!slash || slash == copy) {
            strcpy(copy, "/");
            break;
        }
        *slash = '\0';
    }
    return copy;
}

static void check_directory(struct check *c, const char *name, const char *path, bool private_)
{
    struct stat st;
    char *parent = existing(path);
    if (strcmp(parent, path) != 0 && access(parent, W_OK | X_OK) < 0)
        check_say(c, CHECK_ERROR,
                  "%s = %s does not exist, and %s cannot be written; create it, or "
                  "start as root",
                  name, path, parent);
    else if (strcmp(parent, path) == 0 && stat(path, &st) < 0)
        check_say(c, CHECK_ERROR, "%s = %s: %s", name, path, strerror(errno));
    else if (strcmp(parent, path) == 0 && !S_ISDIR(st.st_mode))
        check_say(c, CHECK_ERROR, "%s = %s is not a directory; name another one", name, path);
    else if (strcmp(parent, path) == 0 && (st.st_mode & S_IWOTH))
        check_say(c, CHECK_ERROR, "%s = %s may be written by everybody; do: chmod o-w %s", name,
                  path, path);
    else if (strcmp(parent, path) == 0 && private_ && (st.st_mode & S_IROTH))
        check_say(c, CHECK_WARNING, "%s = %s can be listed by everybody; do: chmod 711 %s", name,
                  path, path);
    free(parent);
}

/* With services in jails all above the spool and the empty directory must let
 * them pass. */
static void check_passage(struct check *c, const char *name, const char *path)
{
    char *part = xstrdup(path);
    struct stat st;
    for (char *p = strchr(part + 1, '/'); p && c->root; p = strchr(p + 1, '/')) {
        *p = '\0';
        if (stat(part, &st) == 0 && !(st.st_mode & S_IXOTH))
            check_say(c, CHECK_WARNING, "%s = %s: members of %s cannot pass %s; do: chmod o+x %s",
                      name, path, c->config->control_group, part, part);
        *p = '/';
    }
    free(part);
}

static void check_directories(struct check *c)
{
    const struct config *k = c->config;
    unsigned before = c->errors;
    check_directory(c, "queue_directory", k->queue_directory, true);
    check_directory(c, "data_directory", k->data_directory, false);
    check_directory(c, "empty_directory", k->empty_directory, false);
    check_directory(c, "pid_directory", k->pid_directory, false);
    check_passage(c, "queue_directory", k->queue_directory);
    if (c->errors == before)
        check_say(c, CHECK_OK, "directories are there or can be created");
}

static void check_programs(struct check *c)
{
    const char *directory = c->config->program_directory;
    unsigned before = c->errors;
    for (size_t i = 0; i <= command_count; i++) {
        const char *name = i < command_count ? commands[i].name : "master";
        char *path = xasprintf("%s/%s", directory, name);
        struct stat st;
        if (access(path, X_OK) < 0)
            check_say(c, CHECK_ERROR, "program %s: %s; install it, or correct program_directory",
                      path, strerror(errno));
        else if (stat(path, &st) == 0 && (st.st_mode & S_IWOTH))
            check_say(c, CHECK_ERROR, "program %s may be written by everybody; do: chmod o-w %s",
                      path, path);
        free(path);
    }
    if (c->errors == before)
        check_say(c, CHECK_OK, "programs are in %s", directory);
}

static void check_disk(struct check *c)
{
    char *path = existing(c->config->queue_directory), space[32], least[32];
    struct statvfs fs;
    if (statvfs(path, &fs) < 0) {
        check_say(c, CHECK_WARNING, "%s: free space is not known: %s", path, strerror(errno));
        free(path);
        return;
    }
    unsigned long long bytes = (unsigned long long)fs.f_bavail * fs.f_frsize;
    print_size(space, sizeof space, (double)bytes);
    print_size(least, sizeof least, (double)c->config->queue_minfree);
    bool inodes = fs.f_files == 0 || fs.f_favail >= (fsfilcnt_t)c->config->queue_minfree_inodes;
    if (bytes < (unsigned long long)c->config->queue_minfree)
        check_say(c, CHECK_ERROR,
                  "%s has %s free, less than queue_minfree (%s), so no mail is "
                  "taken; make room",
                  path, space, least);
    else if (!inodes)
        check_say(c, CHECK_ERROR,
                  "%s has %llu free inodes, less than queue_minfree_inodes, so no "
                  "mail is taken; delete files",
                  path, (unsigned long long)fs.f_favail);
    else
        check_say(c, CHECK_OK, "the spool's disk has %s free", space);
    free(path);
}

void check_system(struct check *c)
{
    check_users(c);
    check_directories(c);
    check_programs(c);
    check_disk(c);
}

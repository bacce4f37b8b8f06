/*
 * Where new files are made. ext4 puts a file's inode near its directory's, and
 * steps one by one over those that were deleted there in the last minutes: behind
 * thousands of them a file takes ten times as long to make. When that shows, files
 * are made in a fresh directory for which ext4 is asked to look elsewhere on the
 * disk (as for the home directories of users), and leave it when they are written. On
 * other file systems nothing of this happens.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/mem.h"
#include "qmgr/store_internal.h"

#define NURSERY_PREFIX "made."
enum { NURSERY_NAME = 24 };

static void nursery_name(char name[NURSERY_NAME], uint32_t number)
{
    snprintf(name, NURSERY_NAME, NURSERY_PREFIX "%u", number);
}

static void leave(struct store *s)
{
    struct nursery *n = &s->disk.nursery;
    char name[NURSERY_NAME];
    if (n->fd < 0)
        return;
    close(n->fd);
    n->fd = -1;
    nursery_name(name, n->number);
    unlinkat(s->disk.journal.dir, name, AT_REMOVEDIR);
}

/* Makes directories in journal/ be put where there is room, not beside it. */
static bool spread_directories(int fd)
{
    int flags = 0;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
        return false;
    if (flags & FS_TOPDIR_FL)
        return true;
    flags |= FS_TOPDIR_FL;
    return ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
}

static void move_elsewhere(struct store *s)
{
    struct disk *d = &s->disk;
    struct nursery *n = &d->nursery;
    char name[NURSERY_NAME];
    int64_t now = store_now();
    if (now < n->stay_until)
        return;
    n->stay_until = now + STORE_NURSERY_STAY_US;
    if (d->journal.apart || !spread_directories(d->journal.dir))
        return;
    /* the old one goes last: where it is there is no room */
    uint32_t number; /* at random: ext4 begins to look at the name's hash */
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        panic("getrandom failed");
    nursery_name(name, number);
    if (mkdirat(d->journal.dir, name, 0700) < 0 && errno != EEXIST)
        return;
    int fd = openat(d->journal.dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    leave(s);
    n->number = number;
    n->fd = fd;
}

static int create(int fd, const char *name)
{
    return openat(fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

int nursery_create(struct store *s, const char *name, bool *nursed)
{
    struct nursery *n = &s->disk.nursery;
    if (n->made == STORE_NURSERY_FILES) {
        if (n->spent > (int64_t)STORE_NURSERY_FILES * STORE_NURSERY_SLOW_US)
            move_elsewhere(s);
        n->made = 0;
        n->spent = 0;
    }
    int64_t start = store_now();
    int fd = create(n->fd < 0 ? s->disk.free_fd : n->fd, name);
    if (fd < 0 && errno == ENOENT && n->fd >= 0) { /* removed by hand */
        leave(s);
        fd = create(s->disk.free_fd, name);
    }
    *nursed = n->fd >= 0;
    int error = errno;
    n->spent += store_now() - start;
    n->made++;
    errno = error;
    return fd;
}

int nursery_sweep(struct store *s, const char *name)
{
    int tmp = s->disk.journal.dir;
    if (strncmp(name, NURSERY_PREFIX, strlen(NURSERY_PREFIX)) != 0)
        return -1;
    int fd = openat(tmp, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL)
        return -1;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        unlinkat(fd, entry->d_name, 0); /* one at most: it was never used */
    closedir(dir);
    return unlinkat(tmp, name, AT_REMOVEDIR);
}

void nursery_close(struct store *s)
{
    leave(s);
}

#include "master/authorities.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/cf_lines.h"

/* A file that nobody else may write to; -1 with errno. */
static int open_file(int directory, const char *name, struct err *e)
{
    struct stat st;
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_sys(e, "%s", name);
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && cf_check_owner(fd, name, e) == 0)
        return fd;
    if (!S_ISREG(st.st_mode))
        err_set(e, "%s: is not a file", name);
    errno = 0;
    close(fd);
    return -1;
}

/* Appends a file and an end of line; nothing of one that holds no certificate. */
static int copy(int fd, int out, off_t *size, struct err *e)
{
    static char block[256 * 1024];
    ssize_t n;
    bool first = true;
    while ((n = read(fd, block, sizeof block - 1)) > 0) {
        if (first && !memmem(block, (size_t)n, "-----BEGIN ", 11))
            return 0;
        first = false;
        block[n] = '\n';
        size_t len = (size_t)n + ((size_t)n < sizeof block - 1);
        if (*size + (off_t)len > AUTHORITIES_BYTES_MAX)
            return err_set(e, "are more than %d bytes", AUTHORITIES_BYTES_MAX);
        if (pwrite(out, block, len, *size) != (ssize_t)len)
            return err_sys(e, "memory for them");
        *size += (off_t)len;
    }
    return n < 0 ? err_sys(e, "read") : 0;
}

static int copy_file(int directory, const char *name, int out, off_t *size, struct err *e)
{
    int fd = open_file(directory, name, e);
    if (fd < 0)
        return -1;
    int rc = copy(fd, out, size, e);
    close(fd);
    return rc;
}

/* Every file of the directory once: its hash links lead to the same ones. */
static int copy_directory(const char *path, int out, off_t *size, struct err *e)
{
    DIR *d = opendir(path);
    struct dirent *entry;
    struct err ignored;
    int rc = 0;
    if (!d)
        return err_sys(e, "%s", path);
    for (int n = 0; rc == 0 && (entry = readdir(d)) != NULL && n < AUTHORITY_FILES_MAX; n++) {
        struct stat st;
        if (fstatat(dirfd(d), entry->d_name, &st, 0) < 0 || !S_ISREG(st.st_mode))
            continue;
        off_t before = *size;
        if (copy_file(dirfd(d), entry->d_name, out, size, &ignored) < 0)
            *size = before; /* one bad file among many is no reason to trust nobody */
    }
    closedir(d);
    return rc;
}

static bool may_be_missing(const struct config *c)
{
    return strcmp(c->smtp_tls_CAfile, AUTHORITIES_DEFAULT) == 0 &&
           access(AUTHORITIES_DEFAULT, F_OK) < 0;
}

int authorities_open(const struct config *c, struct err *e)
{
    int out = memfd_create("authorities", MFD_CLOEXEC);
    off_t size = 0;
    int rc = 0;
    if (out < 0)
        return err_sys(e, "memfd_create");
    if (*c->smtp_tls_CAfile && !may_be_missing(c)) {
        rc = copy_file(AT_FDCWD, c->smtp_tls_CAfile, out, &size, e);
        if (rc < 0)
            err_prefix(e, "smtp_tls_CAfile");
    }
    if (rc == 0 && *c->smtp_tls_CApath) {
        rc = copy_directory(c->smtp_tls_CApath, out, &size, e);
        if (rc < 0)
            err_prefix(e, "smtp_tls_CApath");
    }
    if (rc == 0 && ftruncate(out, size) == 0 && lseek(out, 0, SEEK_SET) == 0)
        return out;
    close(out);
    return -1;
}

int authorities_check(const struct config *c, struct err *e)
{
    int fd = authorities_open(c, e);
    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

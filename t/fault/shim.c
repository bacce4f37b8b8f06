/*
 * Preloaded into qmgr, smtpd and quota by tests (t/fault/shim.py): writes down every
 * call that changes the spool or the accounts' database, with its data, and makes chosen calls
 * fail, be slow or short, do nothing, or end the process.
 *
 * All of it goes through one file that is mapped before the jail closes: struct
 * shared, then records. POSTERN_SHIM names the file. Records are in the order of
 * their beginnings; `begin` and `end` come from one counter of all processes, so
 * a call was over before another one began if its `end` is below the other's
 * `begin`. What is not on the device of the spool is not looked at; a file is
 * known by its inode, a name by its directory's inode.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The numbers are shim.py's, too. */
enum call {
    CALL_CREATE = 1, /* open that may make a file; recorded if it made one */
    CALL_WRITE,
    CALL_TRUNCATE,
    CALL_RENAME,
    CALL_UNLINK,
    CALL_MKDIR,
    CALL_RMDIR,
    CALL_FSYNC, /* fsync, fdatasync */
    CALL_SYNCFS,
    CALL_SEND, /* sendmsg: what the outside may know from now on */
    CALL_OPEN, /* of what exists; never recorded */
    CALL_READ  /* never recorded */
};

enum action {
    ACTION_SHORT = -1,  /* half of a write is done */
    ACTION_KILL = -2,   /* SIGKILL once the call is done */
    ACTION_IGNORE = -3, /* success, but nothing is done or recorded */
    ACTION_BEFORE = -4  /* SIGKILL before the call is done */
};

enum { RULES = 12, PATH_PART_MAX = 256 };

/* From the first-th matching call on, `count` calls get the action (an errno
 * value or enum action). */
struct rule {
    _Atomic uint32_t calls; /* bit mask of enum call; 0: unused */
    _Atomic int32_t action;
    _Atomic uint64_t first, count, seen, hits;
    _Atomic uint32_t directories; /* CALL_FSYNC: 0 any, 1 files only, 2 directories only */
    _Atomic uint32_t programs;    /* bit mask of POSTERN_SHIM_PROGRAM; 0: all */
};

struct shared {
    _Atomic uint64_t used, size; /* bytes of records; room for them */
    _Atomic uint64_t clock;
    _Atomic uint64_t device;
    _Atomic uint64_t overflow;            /* records that found no room */
    _Atomic uint32_t fsync_us, syncfs_us; /* added to each */
    struct rule rules[RULES];
};

struct record {
    _Atomic uint32_t length;  /* of all of it, a multiple of 8 */
    uint16_t call, directory; /* fsync: of a directory */
    uint32_t pid;
    int32_t error; /* errno */
    uint64_t begin;
    _Atomic uint64_t end;      /* 0: the process died in it */
    int64_t begin_ns, end_ns;  /* CLOCK_REALTIME */
    uint64_t inode, from, to;  /* of the file and of directories */
    uint64_t at, size;         /* of a write, and the new length for CALL_TRUNCATE */
    uint32_t from_len, to_len; /* names, which follow; then the data written */
};

static struct shared *shared;
static char *records;
static bool is_qmgr;
static unsigned program; /* its number, by which rules are for it */

#define REAL(name) ((__typeof__(&name))(uintptr_t)real_of(#name))

static void *real_of(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL)
        abort();
    return found;
}

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("POSTERN_SHIM");
    struct stat st;
    if (path == NULL)
        return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0 || fstat(fd, &st) < 0)
        abort();
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        abort();
    shared = map;
    records = (char *)map + 4096;
    is_qmgr = getenv("POSTERN_SHIM_SENDS") != NULL;
    const char *number = getenv("POSTERN_SHIM_PROGRAM");
    program = number ? (unsigned)atoi(number) % 32 : 0;
}

/* ---- what is to happen ---------------------------------------------------------- */

static int32_t action_for(enum call call, bool directory)
{
    for (int i = 0; shared && i < RULES; i++) {
        struct rule *r = &shared->rules[i];
        uint32_t which = r->directories, programs = r->programs;
        if ((programs && !(programs >> program & 1)) || !(r->calls >> call & 1) ||
            (call == CALL_FSYNC && which && (which == 2) != directory))
            continue;
        uint64_t n = atomic_fetch_add(&r->seen, 1) + 1;
        if (n < r->first || n - r->first >= r->count)
            continue;
        atomic_fetch_add(&r->hits, 1);
        return r->action;
    }
    return 0;
}

static void die(void)
{
    raise(SIGKILL); /* a service may not kill(2), not even itself */
    for (;;)
        pause();
}

static void wait_us(uint32_t us)
{
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    if (us)
        nanosleep(&t, NULL);
}

/* ---- records ------------------------------------------------------------------------ */

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

struct name {
    uint64_t directory;
    const char *text;
    size_t len;
    bool ours; /* on the spool's device */
};

static struct name name_of(int directory, const char *path)
{
    char part[PATH_PART_MAX] = ".";
    const char *slash = strrchr(path, '/');
    struct stat st;
    struct name n = {.text = slash ? slash + 1 : path};
    n.len = strlen(n.text);
    if (slash && slash != path && (size_t)(slash - path) < sizeof part) {
        memcpy(part, path, (size_t)(slash - path));
        part[slash - path] = '\0';
    } else if (slash) {
        strcpy(part, "/");
    }
    int error = errno;
    n.ours = shared && fstatat(directory, part, &st, 0) == 0 && st.st_dev == shared->device;
    n.directory = n.ours ? st.st_ino : 0;
    errno = error;
    return n;
}

static struct record *begin(enum call call, const struct name *from, const struct name *to,
                            const void *data, size_t size)
{
    size_t from_len = from ? from->len : 0, to_len = to ? to->len : 0;
    size_t length = (sizeof(struct record) + from_len + to_len + size + 7) / 8 * 8;
    uint64_t at = atomic_fetch_add(&shared->used, length);
    if (at + length > shared->size) {
        atomic_fetch_add(&shared->overflow, 1);
        return NULL;
    }
    struct record *r = (struct record *)(void *)(records + at);
    char *end = (char *)(r + 1);
    r->length = (uint32_t)length;
    r->call = (uint16_t)call;
    r->pid = (uint32_t)getpid();
    r->from = from ? from->directory : 0;
    r->to = to ? to->directory : 0;
    r->from_len = (uint32_t)from_len;
    r->to_len = (uint32_t)to_len;
    r->size = size;
    if (from)
        memcpy(end, from->text, from_len);
    if (to)
        memcpy(end + from_len, to->text, to_len);
    if (size)
        memcpy(end + from_len + to_len, data, size);
    r->begin_ns = now();
    r->begin = atomic_fetch_add(&shared->clock, 1) + 1;
    return r;
}

static void end(struct record *r, bool good)
{
    if (r == NULL)
        return;
    int error = errno;
    r->error = good ? 0 : error;
    r->end_ns = now();
    r->end = atomic_fetch_add(&shared->clock, 1) + 1;
    errno = error;
}

/* The inode, or 0 if it is not a file or directory of the spool. What is only
 * appended to is a log. */
static uint64_t inode_of(int fd, bool *directory)
{
    struct stat st;
    int error = errno;
    uint64_t inode = 0;
    if (shared && fstat(fd, &st) == 0 && st.st_dev == shared->device &&
        (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && !(fcntl(fd, F_GETFL) & O_APPEND)) {
        inode = st.st_ino;
        *directory = S_ISDIR(st.st_mode);
    }
    errno = error;
    return inode;
}

static uint64_t inode_at(int directory, const char *path)
{
    struct stat st;
    int error = errno;
    uint64_t inode = fstatat(directory, path, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_ino : 0;
    errno = error;
    return inode;
}

/* What stands before each call: true, and errno, if it is to fail. Sets *kill_after. */
static bool fails(enum call call, bool directory, int32_t *action)
{
    *action = action_for(call, directory);
    if (*action == ACTION_BEFORE)
        die();
    if (*action > 0)
        errno = *action;
    return *action > 0;
}

static void finish(struct record *r, bool good, int32_t action)
{
    end(r, good);
    if (action == ACTION_KILL)
        die();
}

/* ---- names -------------------------------------------------------------------------- */

static int open_any(int directory, const char *path, int flags, mode_t mode)
{
    struct name name = name_of(directory, path);
    if (!name.ours)
        return REAL(openat)(directory, path, flags, mode);
    int32_t action;
    bool makes = flags & O_CREAT && inode_at(directory, path) == 0;
    if (fails(makes ? CALL_CREATE : CALL_OPEN, false, &action))
        return -1;
    struct record *r = makes ? begin(CALL_CREATE, &name, NULL, NULL, 0) : NULL;
    int fd = REAL(openat)(directory, path, flags, mode);
    bool is_directory;
    if (r && fd >= 0)
        r->inode = inode_of(fd, &is_directory);
    finish(r, fd >= 0, action);
    return fd;
}

static mode_t mode_of(int flags, va_list args)
{
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(args, mode_t) : 0;
}

int openat(int directory, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return open_any(directory, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return open_any(AT_FDCWD, path, flags, mode);
}

static int make_directory(int directory, const char *path, mode_t mode)
{
    struct name name = name_of(directory, path);
    int32_t action;
    if (!name.ours)
        return REAL(mkdirat)(directory, path, mode);
    if (fails(CALL_MKDIR, false, &action))
        return -1;
    struct record *r = begin(CALL_MKDIR, &name, NULL, NULL, 0);
    int result = REAL(mkdirat)(directory, path, mode);
    if (r && result == 0)
        r->inode = inode_at(directory, path);
    finish(r, result == 0, action);
    return result;
}

int mkdirat(int directory, const char *path, mode_t mode)
{
    return make_directory(directory, path, mode);
}

int mkdir(const char *path, mode_t mode)
{
    return make_directory(AT_FDCWD, path, mode);
}

static int rename_any(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    struct name a = name_of(from_fd, from), b = name_of(to_fd, to);
    int32_t action;
    if (!a.ours || !b.ours)
        return REAL(renameat2)(from_fd, from, to_fd, to, flags);
    if (fails(CALL_RENAME, false, &action))
        return -1;
    struct record *r = begin(CALL_RENAME, &a, &b, NULL, 0);
    if (r)
        r->inode = inode_at(from_fd, from);
    int result = REAL(renameat2)(from_fd, from, to_fd, to, flags);
    finish(r, result == 0, action);
    return result;
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    return rename_any(from_fd, from, to_fd, to, flags);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return rename_any(from_fd, from, to_fd, to, 0);
}

int rename(const char *from, const char *to)
{
    return rename_any(AT_FDCWD, from, AT_FDCWD, to, 0);
}

static int unlink_any(int directory, const char *path, int flags)
{
    struct name name = name_of(directory, path);
    enum call call = flags & AT_REMOVEDIR ? CALL_RMDIR : CALL_UNLINK;
    int32_t action;
    if (!name.ours)
        return REAL(unlinkat)(directory, path, flags);
    if (fails(call, false, &action))
        return -1;
    struct record *r = begin(call, &name, NULL, NULL, 0);
    if (r)
        r->inode = inode_at(directory, path);
    int result = REAL(unlinkat)(directory, path, flags);
    finish(r, result == 0, action);
    return result;
}

int unlinkat(int directory, const char *path, int flags)
{
    return unlink_any(directory, path, flags);
}

int unlink(const char *path)
{
    return unlink_any(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return unlink_any(AT_FDCWD, path, AT_REMOVEDIR);
}

/* ---- content ------------------------------------------------------------------------ */

static ssize_t write_any(int fd, const void *data, size_t size, off_t at, bool has_offset)
{
    bool directory;
    uint64_t inode = inode_of(fd, &directory);
    int32_t action = 0;
    if (inode && fails(CALL_WRITE, false, &action))
        return -1;
    if (action == ACTION_SHORT && size > 1)
        size /= 2;
    if (!inode)
        return has_offset ? REAL(pwrite)(fd, data, size, at) : REAL(write)(fd, data, size);
    struct record *r = begin(CALL_WRITE, NULL, NULL, data, size);
    if (r) {
        r->inode = inode;
        r->at = (uint64_t)(has_offset ? at : lseek(fd, 0, SEEK_CUR));
    }
    ssize_t n = has_offset ? REAL(pwrite)(fd, data, size, at) : REAL(write)(fd, data, size);
    if (r && n >= 0)
        r->size = (uint64_t)n;
    finish(r, n >= 0, action);
    return n;
}

ssize_t write(int fd, const void *data, size_t size)
{
    return write_any(fd, data, size, 0, false);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    return write_any(fd, data, size, at, true);
}

ssize_t pread(int fd, void *to, size_t size, off_t at)
{
    bool directory;
    int32_t action;
    if (inode_of(fd, &directory) && fails(CALL_READ, false, &action))
        return -1;
    return REAL(pread)(fd, to, size, at);
}

int ftruncate(int fd, off_t length)
{
    bool directory;
    uint64_t inode = inode_of(fd, &directory);
    int32_t action;
    if (!inode)
        return REAL(ftruncate)(fd, length);
    if (fails(CALL_TRUNCATE, false, &action))
        return -1;
    struct record *r = begin(CALL_TRUNCATE, NULL, NULL, NULL, 0);
    if (r) {
        r->inode = inode;
        r->size = (uint64_t)length;
    }
    int result = REAL(ftruncate)(fd, length);
    finish(r, result == 0, action);
    return result;
}

/* ---- durability ------------------------------------------------------------------------ */

static int sync_any(int fd, enum call call, int (*real)(int))
{
    bool directory = false;
    uint64_t inode = inode_of(fd, &directory);
    int32_t action;
    if (!inode)
        return real(fd);
    if (fails(call, directory, &action))
        return -1;
    if (action == ACTION_IGNORE)
        return 0;
    struct record *r = begin(call, NULL, NULL, NULL, 0);
    if (r) {
        r->inode = inode;
        r->directory = directory;
    }
    int result = real(fd);
    wait_us(call == CALL_SYNCFS ? shared->syncfs_us : shared->fsync_us);
    finish(r, result == 0, action);
    return result;
}

int fsync(int fd)
{
    return sync_any(fd, CALL_FSYNC, REAL(fsync));
}

int fdatasync(int fd)
{
    return sync_any(fd, CALL_FSYNC, REAL(fdatasync));
}

int syncfs(int fd)
{
    return sync_any(fd, CALL_SYNCFS, REAL(syncfs));
}

/* ---- what leaves ----------------------------------------------------------------------- */

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct record *r = shared && is_qmgr ? begin(CALL_SEND, NULL, NULL, NULL, 0) : NULL;
    ssize_t n = REAL(sendmsg)(fd, message, flags);
    end(r, n >= 0);
    return n;
}

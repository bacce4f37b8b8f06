#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"

enum { GATHER_MAX = 256 * 1024, GATHER_FLUSH = 32 * 1024, LINE_MAX_BYTES = 4096 };

/* What the descriptor is, which decides how to write without ever waiting. */
enum medium {
    MEDIUM_UNKNOWN, /* to be looked at before the next write */
    MEDIUM_FILE,
    MEDIUM_SOCKET,
    MEDIUM_PIPE,   /* several processes share it: at most PIPE_BUF at a time, or lines mix */
    MEDIUM_WAITING /* a pipe or terminal that cannot be written without waiting */
};

static struct {
    char name[64], host[256];
    enum log_kind kind;
    enum log_level level;
    enum medium medium;
    bool blocked; /* the receiver did not take all the last time */
    int fd;
    pid_t pid;
    struct buf lines;
    uint64_t dropped;
    time_t stamp_second;
    char stamp[32];
    void (*broken)(void *);
    void *broken_arg;
} logger = {.name = "postern",
            .kind = LOG_KIND_STDERR,
            .level = LOG_LEVEL_INFO,
            .fd = STDERR_FILENO,
            .lines = {NULL, 0, 0, GATHER_MAX}};

static const struct {
    const char *prefix;
    int priority;
} levels[] = {
    [LOG_LEVEL_PANIC] = {"panic: ", 16 + 0}, [LOG_LEVEL_FATAL] = {"fatal: ", 16 + 2},
    [LOG_LEVEL_ERROR] = {"error: ", 16 + 3}, [LOG_LEVEL_WARNING] = {"warning: ", 16 + 4},
    [LOG_LEVEL_INFO] = {"", 16 + 6},         [LOG_LEVEL_DEBUG] = {"", 16 + 7},
};

/* The lines that have not been written are given up. */
static void drop_lines(void)
{
    for (size_t i = 0; i < logger.lines.len; i++)
        logger.dropped += logger.lines.data[i] == '\n';
    buf_clear(&logger.lines);
}

void log_open(const char *name, const char *hostname, enum log_kind kind, int fd)
{
    if (kind != logger.kind) {
        log_flush();
        drop_lines(); /* they are framed for the other kind */
    }
    snprintf(logger.name, sizeof logger.name, "%s", name);
    snprintf(logger.host, sizeof logger.host, "%s", hostname);
    logger.kind = kind;
    logger.fd = fd;
    logger.medium = MEDIUM_UNKNOWN;
    logger.blocked = false;
    logger.pid = getpid();
}

int log_set_fd(int fd)
{
    int old = logger.fd;
    log_flush();
    logger.fd = fd;
    logger.medium = MEDIUM_UNKNOWN;
    logger.blocked = false;
    return old;
}

void log_set_level(enum log_level level)
{
    logger.level = level;
}

bool log_wants(enum log_level level)
{
    return level <= logger.level;
}

void log_on_broken(void (*callback)(void *), void *arg)
{
    logger.broken = callback;
    logger.broken_arg = arg;
}

static const char *stamp(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec != logger.stamp_second) {
        struct tm tm;
        localtime_r(&now.tv_sec, &tm);
        strftime(logger.stamp, sizeof logger.stamp, "%b %e %H:%M:%S", &tm);
        logger.stamp_second = now.tv_sec;
    }
    return logger.stamp;
}

static void head(struct buf *b, enum log_level level, const char *name)
{
    if (logger.kind == LOG_KIND_SYSLOG) {
        buf_addc(b, '<');
        buf_addu64(b, (uint64_t)levels[level].priority);
        buf_addc(b, '>');
    }
    if (logger.kind != LOG_KIND_STDERR) {
        buf_addstr(b, stamp());
        buf_addc(b, ' ');
    }
    if (logger.kind == LOG_KIND_FILE) {
        buf_addstr(b, logger.host);
        buf_addc(b, ' ');
    }
    buf_addstr(b, name);
    if (logger.kind != LOG_KIND_STDERR) {
        buf_addc(b, '[');
        buf_addu64(b, (uint64_t)logger.pid);
        buf_addc(b, ']');
    }
    buf_add(b, ": ", 2);
    buf_addstr(b, levels[level].prefix);
}

static void add_line(enum log_level level, const char *name, struct slice text)
{
    struct buf *b = &logger.lines;
    if (text.len > LINE_MAX_BYTES)
        text.len = LINE_MAX_BYTES;
    if (buf_reserve(b, text.len + 512) < 0) {
        logger.dropped++;
        return;
    }
    head(b, level, name);
    size_t from = b->len;
    buf_adds(b, text);
    for (size_t i = from; i < b->len; i++)
        if ((unsigned char)b->data[i] < 0x20 || b->data[i] == 0x7f)
            b->data[i] = '?';
    buf_addc(b, '\n');
    if ((b->len > GATHER_FLUSH && !logger.blocked) || level < LOG_LEVEL_INFO)
        log_flush();
}

static void vlog(enum log_level level, const char *format, va_list args)
{
    char text[LINE_MAX_BYTES];
    if (level > logger.level)
        return;
    int n = vsnprintf(text, sizeof text, format, args);
    if (n < 0)
        return;
    add_line(level, logger.name,
             slice_make(text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1));
}

#define LOG_FUNCTION(function, level)                                                              \
    void function(const char *format, ...)                                                         \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, format);                                                                    \
        vlog(level, format, args);                                                                 \
        va_end(args);                                                                              \
    }
LOG_FUNCTION(log_info, LOG_LEVEL_INFO)
LOG_FUNCTION(log_warning, LOG_LEVEL_WARNING)
LOG_FUNCTION(log_error, LOG_LEVEL_ERROR)
LOG_FUNCTION(log_fatal, LOG_LEVEL_FATAL)
LOG_FUNCTION(log_panic, LOG_LEVEL_PANIC)
LOG_FUNCTION(log_debug, LOG_LEVEL_DEBUG)

void log_info_as(const char *name, struct slice text)
{
    if (logger.level >= LOG_LEVEL_INFO)
        add_line(LOG_LEVEL_INFO, name, text);
}

static enum medium look_at(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return MEDIUM_FILE; /* the write will tell */
    if (S_ISSOCK(st.st_mode))
        return MEDIUM_SOCKET;
    bool waits = (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0;
    if (S_ISFIFO(st.st_mode))
        return waits ? MEDIUM_WAITING : MEDIUM_PIPE;
    return S_ISCHR(st.st_mode) && waits ? MEDIUM_WAITING : MEDIUM_FILE;
}

/* What goes out with one call: a line to syslog, whole lines to a pipe. */
static struct slice next_piece(struct slice rest)
{
    if (logger.kind == LOG_KIND_SYSLOG)
        return slice_first(rest, slice_chr(rest, '\n'));
    bool whole =
        rest.len <= PIPE_BUF || logger.medium == MEDIUM_FILE || logger.medium == MEDIUM_SOCKET;
    if (whole)
        return rest;
    size_t newline = slice_rchr(slice_first(rest, PIPE_BUF), '\n');
    return slice_first(rest, newline < PIPE_BUF ? newline + 1 : PIPE_BUF);
}

static ssize_t put(struct slice piece)
{
    struct pollfd room = {.fd = logger.fd, .events = POLLOUT};
    if (logger.medium == MEDIUM_SOCKET)
        return send(logger.fd, piece.ptr, piece.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (logger.medium == MEDIUM_WAITING && poll(&room, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(logger.fd, piece.ptr, piece.len);
}

/* Sends what is taken without waiting; returns its length. *error is 0 if that
 * is all. */
static size_t send_lines(struct slice all, int *error)
{
    struct slice rest = all;
    *error = 0;
    if (logger.medium == MEDIUM_UNKNOWN)
        logger.medium = look_at(logger.fd);
    while (rest.len) {
        struct slice piece = next_piece(rest);
        ssize_t n = put(piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            *error = errno;
            break;
        }
        /* a datagram goes as a whole, without its line end */
        rest = slice_from(rest, logger.kind == LOG_KIND_SYSLOG ? piece.len + 1 : (size_t)n);
    }
    return all.len - rest.len;
}

void log_flush(void)
{
    int saved = errno, error;
    if (logger.fd < 0)
        buf_clear(&logger.lines);
    if (logger.lines.len == 0)
        return;
    buf_consume(&logger.lines, send_lines(buf_slice(&logger.lines), &error));
    logger.blocked = error != 0;
    if (error && error != EAGAIN && error != EWOULDBLOCK && error != ENOBUFS && logger.broken)
        logger.broken(logger.broken_arg);
    if (!error && logger.lines.cap > 2 * GATHER_FLUSH)
        buf_free(&logger.lines);
    if (!error && logger.dropped) {
        uint64_t dropped = logger.dropped;
        logger.dropped = 0;
        log_warning("%llu log lines dropped: the log receiver did not take them",
                    (unsigned long long)dropped);
    }
    errno = saved;
}

const char *log_esc_n(struct slice s, size_t max)
{
    static char ring[8][4 * 1024 + 8];
    static unsigned turn;
    char *slot = ring[turn++ % 8];
    struct buf b = {slot, 0, sizeof ring[0], sizeof ring[0] - 1};
    buf_add_escaped(&b, s, max < 1024 ? max : 1024);
    slot[b.len] = '\0';
    return slot;
}

const char *log_esc(struct slice s)
{
    return log_esc_n(s, 256);
}

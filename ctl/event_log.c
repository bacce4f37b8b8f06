#include "ctl/event_log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int event_log_open(struct event_log *log, const char *path, struct err *e)
{
    bool standard = strcmp(path, "-") == 0;
    int fd = standard ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0) : open(path, O_RDONLY | O_CLOEXEC);
    log->path = standard ? "standard input" : path;
    log->file = NULL;
    log->at = log->len = 0;
    log->lines = 0;
    log->line = (struct buf)BUF_INIT(EVENT_LINE_MAX);
    if (fd < 0)
        return err_set(e, "%s: %s", log->path, strerror(errno));
    log->file = gzdopen(fd, "r"); /* what is not compressed is read as it is */
    if (!log->file) {
        close(fd);
        return err_set(e, "%s: cannot be read: no memory", log->path);
    }
    return 0;
}

/* Reads the next piece: 1; 0: at the end; -1 with *e. */
static int read_piece(struct event_log *log, struct err *e)
{
    int number, n = gzread(log->file, log->piece, sizeof log->piece);
    const char *text = gzerror(log->file, &number);
    log->at = 0;
    log->len = n > 0 ? (size_t)n : 0;
    if (n > 0 || (n == 0 && (number == Z_OK || number == Z_STREAM_END)))
        return n > 0;
    return err_set(e, "%s: after line %lu: %s", log->path, log->lines,
                   number == Z_ERRNO       ? strerror(errno)
                   : number == Z_BUF_ERROR ? "the compressed file ends too early"
                                           : text);
}

int event_log_next(struct event_log *log, const char **line, struct err *e)
{
    bool any = false, whole = true, end = false;
    buf_clear(&log->line);
    while (!end) {
        int rc = log->at < log->len ? 1 : read_piece(log, e);
        if (rc < 0)
            return -1;
        if (rc == 0)
            break;
        const struct slice rest = slice_make(log->piece + log->at, log->len - log->at);
        size_t n = slice_chr(rest, '\n');
        any = true;
        end = n < rest.len;
        whole = whole && buf_adds(&log->line, slice_first(rest, n)) == 0;
        log->at += n + end;
    }
    if (!any)
        return 0;
    log->lines++;
    if (!whole || buf_addc(&log->line, '\0') < 0)
        buf_clear(&log->line); /* longer than any event */
    *line = log->line.len ? log->line.data : "";
    return 1;
}

void event_log_close(struct event_log *log)
{
    if (log->file)
        gzclose(log->file);
    log->file = NULL;
    buf_free(&log->line);
}

const char *event_log_unpacker(const char *first_line)
{
    static const struct {
        const char *magic, *program;
    } known[] = {{"\xfd"
                  "7zXZ",
                  "xzcat"},
                 {"\x28\xb5\x2f\xfd", "zstdcat"},
                 {"BZh", "bzcat"}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strncmp(first_line, known[i].magic, strlen(known[i].magic)) == 0)
            return known[i].program;
    return NULL;
}

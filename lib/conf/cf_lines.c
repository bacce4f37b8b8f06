#include "conf/cf_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"

void cf_open(struct cf_reader *r, const char *file, struct slice text)
{
    *r = (struct cf_reader){.rest = text, .file = file};
    buf_init(&r->joined, CF_LINE_MAX);
}

void cf_close(struct cf_reader *r)
{
    buf_free(&r->joined);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Whether the physical line says nothing: empty, blank or a comment. */
static bool is_silent(struct slice physical)
{
    struct slice text = slice_trim(physical);
    return text.len == 0 || text.ptr[0] == '#';
}

static int check_bytes(const struct cf_reader *r, unsigned line, struct slice physical,
                       struct err *e)
{
    for (size_t i = 0; i < physical.len; i++) {
        unsigned char c = (unsigned char)physical.ptr[i];
        if (c == '\r')
            return err_set(e,
                           "%s:%u: the line holds a carriage return; save the file with plain "
                           "line feeds",
                           r->file, line);
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return err_set(e, "%s:%u: byte 0x%02x at column %zu is not text; remove it", r->file,
                           line, c, i + 1);
    }
    return 0;
}

static int too_long(const struct cf_reader *r, struct err *e)
{
    return err_set(e, "%s:%u: the line is longer than %d bytes; put the list into a file instead",
                   r->file, r->start, CF_LINE_MAX);
}

int cf_next(struct cf_reader *r, struct slice *line, struct err *e)
{
    bool begun = false;
    buf_clear(&r->joined);
    while (r->rest.len) {
        size_t end = slice_chr(r->rest, '\n');
        struct slice physical = slice_first(r->rest, end);
        bool silent = is_silent(physical), continues = physical.len && is_blank(physical.ptr[0]);
        if (begun && !silent && !continues)
            break;
        r->rest = slice_from(r->rest, end + 1);
        r->line++;
        if (!begun && !silent)
            r->start = r->line;
        if (check_bytes(r, r->line, physical, e) < 0)
            return -1;
        if (silent)
            continue;
        if (!begun && continues)
            return err_set(e,
                           "%s:%u: the line begins with white space, which continues a line, but "
                           "there is none before it",
                           r->file, r->line);
        if ((begun && buf_addc(&r->joined, ' ') < 0) ||
            buf_adds(&r->joined, slice_trim(physical)) < 0)
            return too_long(r, e);
        begun = true;
    }
    *line = buf_slice(&r->joined);
    return begun;
}

int cf_check_owner(int fd, const char *path, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(e, "%s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, "%s: is not a regular file", path);
    if (geteuid() == 0 && (st.st_mode & (S_IWGRP | S_IWOTH)))
        return err_set(e,
                       "%s: is writable by %s, who could take over the relay; run: chmod go-w %s",
                       path, st.st_mode & S_IWOTH ? "everybody" : "its group", path);
    return 0;
}

static int read_all(int fd, const char *path, struct buf *out, struct err *e)
{
    char chunk[16 * 1024];
    ssize_t n;
    buf_init(out, CF_FILE_MAX);
    while ((n = read(fd, chunk, sizeof chunk)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "%s: cannot read", path);
        if (buf_add(out, chunk, (size_t)n) < 0)
            return err_set(e, "%s: is larger than %d bytes", path, CF_FILE_MAX);
    }
    return 0;
}

int cf_read_file(const char *path, struct buf *out, struct err *e)
{
    *out = BUF_INIT(CF_FILE_MAX);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_sys(e, "%s: cannot open", path);
    int rc = cf_check_owner(fd, path, e);
    struct stat st;
    if (rc == 0 && geteuid() == 0 && fstat(fd, &st) == 0 && st.st_uid != 0)
        log_warning("%s: belongs to user %u, who could take over the relay; run: chown root %s",
                    path, st.st_uid, path);
    if (rc == 0)
        rc = read_all(fd, path, out, e);
    close(fd);
    if (rc < 0)
        buf_free(out);
    return rc;
}

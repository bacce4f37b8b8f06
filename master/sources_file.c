#include "master/sources_file.h"

#include <fcntl.h>
#include <unistd.h>

#include "conf/cf_lines.h"
#include "core/buf.h"
#include "sources/sources.h"

int sources_file_open(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_sys(e, "source_config_file: %s", path);
    if (cf_check_owner(fd, path, e) == 0)
        return fd;
    close(fd);
    return -1;
}

int sources_file_check(const char *path, struct err *e)
{
    struct buf text = BUF_INIT(SOURCES_FILE_MAX + 1);
    struct sources_conf *c = NULL;
    if (!*path)
        return 0;
    int fd = sources_file_open(path, e);
    if (fd < 0)
        return -1;
    (void)buf_reserve(&text, SOURCES_FILE_MAX + 1);
    ssize_t n = read(fd, text.data, SOURCES_FILE_MAX + 1); /* a regular file comes at once */
    close(fd);
    if (n < 0)
        err_sys(e, "source_config_file: %s", path);
    else
        c = sources_conf_parse(slice_make(text.data, (size_t)n), path, e);
    buf_free(&text);
    sources_conf_free(c);
    return c ? 0 : -1;
}

#include "master/plans_file.h"

#include <fcntl.h>
#include <unistd.h>

#include "conf/cf_lines.h"
#include "plan/plan.h"
#include "plan/tzfile.h"

int plans_file_open(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_sys(e, "plans_file: %s", path);
    if (cf_check_owner(fd, path, e) == 0)
        return fd;
    close(fd);
    return -1;
}

int plans_file_check(const char *path, struct err *e)
{
    struct plans plans;
    struct buf text = BUF_INIT(PLANS_FILE_MAX + 1);
    int fd = plans_file_open(path, e), rc = -1;
    if (fd < 0)
        return -1;
    (void)buf_reserve(&text, PLANS_FILE_MAX + 1);
    ssize_t n = read(fd, text.data, PLANS_FILE_MAX + 1); /* a regular file comes at once */
    close(fd);
    if (n < 0)
        err_sys(e, "plans_file: %s", path);
    else
        rc = plans_parse(slice_make(text.data, (size_t)n), path, tzfile_lookup, NULL, &plans, e);
    if (rc == 0)
        plans_free(&plans);
    buf_free(&text);
    return rc;
}

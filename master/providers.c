#include "master/providers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conf/cf_lines.h"
#include "core/mem.h"
#include "rules/bundle.h"

struct gathering {
    const char *directory; /* of the first file: where relative includes start */
    struct buf bundle;
};

static int read_whole(int fd, const char *path, struct buf *text, struct err *e)
{
    for (;;) {
        if (buf_reserve(text, 4096) < 0)
            return err_set(e, "%s: longer than %d bytes", path, RULES_TEXT_MAX);
        ssize_t n = read(fd, text->data + text->len, text->cap - text->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "%s", path);
        if (n == 0)
            return 0;
        text->len += (size_t)n;
    }
}

static int read_file(const char *name, struct buf *text, void *arg, struct err *e)
{
    struct gathering *g = arg;
    char *path = name[0] == '/' ? xstrdup(name) : xasprintf("%s/%s", g->directory, name);
    int rc = -1, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        err_sys(e, "%s", path);
    else if (cf_check_owner(fd, path, e) == 0 && read_whole(fd, path, text, e) == 0)
        rc = rules_bundle_add(&g->bundle, name, buf_slice(text));
    if (rc < 0 && fd >= 0 && g->bundle.len + text->len > RULES_BUNDLE_MAX)
        err_set(e, "%s: all files together are longer than %d bytes", path, RULES_BUNDLE_MAX);
    if (fd >= 0)
        close(fd);
    free(path);
    return rc;
}

static int gather(const char *path, struct buf *bundle, struct err *e)
{
    const char *slash = strrchr(path, '/');
    char *directory = slash ? slice_dup(slice_make(path, (size_t)(slash - path))) : xstrdup(".");
    struct gathering g = {directory, BUF_INIT(RULES_BUNDLE_MAX)};
    struct rules *r = rules_load(path, read_file, &g, e);
    int rc = r ? rules_samples_hold(r, e) : -1;
    rules_free(r);
    free(directory);
    *bundle = g.bundle;
    return rc;
}

int providers_check(const char *path, struct err *e)
{
    struct buf bundle = BUF_INIT(0);
    int rc = *path ? gather(path, &bundle, e) : 0;
    buf_free(&bundle);
    return rc < 0 ? err_prefix(e, "provider_config_file") : 0;
}

int providers_open(const char *path, struct err *e)
{
    struct buf bundle = BUF_INIT(0);
    int fd = -1;
    if (gather(path, &bundle, e) == 0) {
        fd = memfd_create("providers.conf", MFD_CLOEXEC);
        bool whole = fd >= 0 && write(fd, bundle.data, bundle.len) == (ssize_t)bundle.len;
        if (!whole)
            err_sys(e, "providers.conf in memory");
        if (fd >= 0 && !whole) {
            close(fd);
            fd = -1;
        }
    }
    buf_free(&bundle);
    return fd;
}

/* The configuration on its way from master to a service: "name = value" lines of
 * expanded values in a memfd. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/params.h"
#include "core/mem.h"

enum { WIRE_MAX = PARAM_COUNT * 128 * 1024 };

int config_write(const struct config *c, int fd, struct err *e)
{
    struct buf text = BUF_INIT(WIRE_MAX);
    int rc = 0;
    for (int i = 0; i < PARAM_COUNT && rc == 0; i++)
        rc = buf_printf(&text, "%s = %s\n", params[i].name, c->private_->value[i]);
    if (rc < 0)
        err_set(e, "the configuration is too large");
    for (size_t at = 0; rc == 0 && at < text.len;) {
        ssize_t n = pwrite(fd, text.data + at, text.len - at, (off_t)at);
        if (n < 0 && errno != EINTR)
            rc = err_sys(e, "cannot write the configuration");
        else if (n > 0)
            at += (size_t)n;
    }
    buf_free(&text);
    return rc;
}

static int read_text(int fd, struct buf *text, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(e, "cannot read the configuration");
    if (st.st_size <= 0 || buf_reserve(text, (size_t)st.st_size) < 0)
        return err_set(e, "the configuration has %lld bytes", (long long)st.st_size);
    while (text->len < (size_t)st.st_size) {
        ssize_t n =
            pread(fd, text->data + text->len, (size_t)st.st_size - text->len, (off_t)text->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_sys(e, "cannot read the configuration");
        text->len += (size_t)n;
    }
    return 0;
}

/* Values are expanded already: a dollar sign is one. */
static int take(struct config *c, struct slice text, struct err *e)
{
    struct config_private *p = c->private_;
    while (text.len) {
        struct slice line = slice_cut(&text, '\n');
        int i = param_find(slice_trim(slice_cut(&line, '=')));
        if (i < 0 || p->value[i])
            return err_set(e, "the configuration from master is not of this version");
        p->value[i] = slice_dup(slice_trim(line));
        if (param_set(c, i, p->value[i], e) < 0)
            return -1;
    }
    for (int i = 0; i < PARAM_COUNT; i++)
        if (!p->value[i])
            return err_set(e, "%s is missing in the configuration from master", params[i].name);
    return 0;
}

struct config *config_read(int fd, struct err *e)
{
    struct buf text = BUF_INIT(WIRE_MAX);
    struct config *c = xcalloc(1, sizeof *c);
    c->private_ = xcalloc(1, sizeof *c->private_);
    c->private_->file = xstrdup("main.cf");
    int rc = read_text(fd, &text, e);
    if (rc == 0)
        rc = take(c, buf_slice(&text), e);
    buf_free(&text);
    if (rc == 0)
        return c;
    config_free(c);
    return NULL;
}

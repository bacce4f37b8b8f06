/* cdb: over tinycdb, which maps the file. A cdb is replaced by renaming a new
 * file over it, never changed in place, so the mapping stays whole. */
#include <cdb.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "tables/table_private.h"

struct cdb_table {
    struct cdb cdb;
    int fd;
    bool mapped, with_nul; /* postmap of old stored keys and values with their NUL */
};

/* Every key once: finds which domains have addresses, whether NULs are stored,
 * and that the file is whole. */
static int scan(struct table *t, struct cdb_table *c, struct err *e)
{
    unsigned position;
    int rc;
    char folded[TABLE_KEY_MAX];
    cdb_seqinit(&position, &c->cdb);
    while ((rc = cdb_seqnext(&position, &c->cdb)) > 0) {
        unsigned len = cdb_keylen(&c->cdb);
        const char *key = cdb_getkey(&c->cdb);
        if (!key)
            break;
        if (len && key[len - 1] == '\0') {
            c->with_nul = true;
            len--;
        }
        if (len == 0 || len > sizeof folded)
            continue;
        memcpy(folded, key, len);
        table_fold(folded, len);
        table_note_key(t, slice_make(folded, len));
    }
    return rc == 0 ? 0 : err_set(e, "%s: damaged cdb file; make it again", t->path.ptr);
}

static int open_cdb(struct table *t, int fd, struct err *e)
{
    struct cdb_table *c = xcalloc(1, sizeof *c);
    struct stat st;
    t->private_ = c;
    c->fd = fd;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < 2048 ||
        cdb_init(&c->cdb, fd) < 0)
        return err_set(e, "%s: not a cdb file", t->path.ptr);
    c->mapped = true;
    return scan(t, c, e);
}

static enum table_result lookup_cdb(struct table *t, struct slice key, struct buf *value,
                                    struct err *e)
{
    struct cdb_table *c = t->private_;
    char with_nul[TABLE_KEY_MAX + 1];
    int rc = cdb_find(&c->cdb, key.ptr, (unsigned)key.len);
    if (rc == 0 && c->with_nul) {
        memcpy(with_nul, key.ptr, key.len);
        with_nul[key.len] = '\0';
        rc = cdb_find(&c->cdb, with_nul, (unsigned)key.len + 1);
    }
    if (rc == 0)
        return TABLE_NOT_FOUND;
    const char *data = rc > 0 ? cdb_getdata(&c->cdb) : NULL;
    size_t len = rc > 0 ? cdb_datalen(&c->cdb) : 0;
    if (data && len && data[len - 1] == '\0')
        len--;
    if (!data || buf_add(value, data, len) < 0) {
        err_set(e, "%s: damaged cdb file; make it again", t->path.ptr);
        return TABLE_ERROR;
    }
    return TABLE_FOUND;
}

static void close_cdb(struct table *t)
{
    struct cdb_table *c = t->private_;
    if (!c)
        return;
    if (c->mapped)
        cdb_free(&c->cdb);
    if (c->fd >= 0)
        close(c->fd);
    xfree(&t->private_);
}

const struct table_kind table_cdb = {
    .name = "cdb", .needs_file = true, .open = open_cdb, .lookup = lookup_cdb, .close = close_cdb};

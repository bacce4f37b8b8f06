#include "master/tables.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "conf/cf_lines.h"
#include "conf/config.h"
#include "core/log.h"
#include "core/mem.h"

/* The file behind "type:name" into *path (NULL if the type has none). */
static int table_path(struct slice spec, char **path, struct err *e)
{
    struct slice name = spec, type = slice_cut(&name, ':');
    *path = NULL;
    if (type.len == spec.len || name.len == 0)
        return err_set(e,
                       "transport_maps: %s: write type:path, such as texthash:/etc/postern/"
                       "transport",
                       log_esc_n(spec, 100));
    if (slice_eq(type, SLICE("inline")))
        return 0;
    if (slice_eq(type, SLICE("lmdb")) || slice_eq(type, SLICE("hash")) ||
        slice_eq(type, SLICE("btree")))
        return err_set(e, "transport_maps: %s: type %.*s is not supported; use texthash or cdb",
                       log_esc_n(spec, 100), SLICE_ARG(type));
    bool cdb = slice_eq(type, SLICE("cdb"));
    if (!cdb && !slice_eq(type, SLICE("texthash")) && !slice_eq(type, SLICE("pcre")))
        return err_set(e, "transport_maps: %s: the types are texthash, cdb, pcre and inline",
                       log_esc_n(spec, 100));
    if (name.ptr[0] != '/')
        return err_set(e, "transport_maps: %s: the path must begin with /", log_esc_n(spec, 100));
    *path = xasprintf("%.*s%s", SLICE_ARG(name), cdb ? ".cdb" : "");
    return 0;
}

static int open_file(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_sys(e, "transport_maps: %s", path);
    if (cf_check_owner(fd, path, e) == 0)
        return fd;
    close(fd);
    return -1;
}

int tables_check(const char *list, struct err *e)
{
    struct slice rest = slice_str(list), spec;
    for (int n = 0; config_list_next(&rest, &spec); n++) {
        char *path;
        if (n == TABLES_MAX)
            return err_set(e, "transport_maps: more than %d tables", TABLES_MAX);
        if (table_path(spec, &path, e) < 0)
            return -1;
        int fd = path ? open_file(path, e) : -1;
        bool failed = path && fd < 0;
        free(path);
        if (failed)
            return -1;
        if (fd >= 0)
            close(fd);
    }
    return 0;
}

void tables_free(struct tables *t)
{
    for (size_t i = 0; i < t->count; i++) {
        free(t->list[i].spec);
        free(t->list[i].path);
    }
    xfree(&t->list);
    t->count = 0;
}

void tables_set(struct tables *t, const char *list)
{
    struct slice rest = slice_str(list), spec;
    tables_free(t);
    while (t->count < TABLES_MAX && config_list_next(&rest, &spec)) {
        t->list = xreallocarray(t->list, t->count + 1, sizeof *t->list);
        struct table *table = &t->list[t->count];
        *table = (struct table){.spec = slice_dup(spec), .position = (unsigned)t->count};
        t->count++;
        if (table_path(spec, &table->path, NULL) < 0)
            panic("an unchecked list of tables");
    }
}

int table_open(struct table *t, struct err *e)
{
    int fd = open_file(t->path, e);
    if (fd >= 0 && fstat(fd, &t->seen) < 0) {
        err_sys(e, "%s", t->path);
        close(fd);
        fd = -1;
    }
    if (fd >= 0) {
        t->missing = false;
        t->latest = t->seen;
    }
    return fd;
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* The status time too: what could not be opened may be repaired by chmod. */
static bool same_state(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           same_time(a->st_mtim, b->st_mtim) && same_time(a->st_ctim, b->st_ctim);
}

bool table_changed(struct table *t)
{
    struct stat now;
    if (!t->path)
        return false;
    if (stat(t->path, &now) < 0) {
        if (!t->missing)
            log_warning("transport_maps: %s: cannot be read any more; its last content stays",
                        t->path);
        t->missing = true;
        return false;
    }
    bool still = same_state(&now, &t->latest);
    t->latest = now;
    if (!still || (!t->missing && same_state(&now, &t->seen)))
        return false;
    t->missing = false;
    t->seen = now; /* told once, also if it cannot be opened */
    return true;
}

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
    if (fd >= 0)
        t->missing = false;
    return fd;
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
    const struct stat *seen = &t->seen;
    return t->missing || now.st_dev != seen->st_dev || now.st_ino != seen->st_ino ||
           now.st_size != seen->st_size || now.st_mtim.tv_sec != seen->st_mtim.tv_sec ||
           now.st_mtim.tv_nsec != seen->st_mtim.tv_nsec;
}

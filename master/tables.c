#include "master/tables.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "conf/cf_lines.h"
#include "conf/config.h"
#include "conf/lmtp_sockets.h"
#include "conf/table_server.h"
#include "core/log.h"
#include "core/mem.h"
#include "master/authorities.h"

static const struct {
    const char *parameter;
    size_t list;  /* offset in struct config */
    bool servers; /* tables may be servers */
} uses[TABLE_USES] = {
    [TABLE_TRANSPORT] = {"transport_maps", offsetof(struct config, transport_maps), true},
    [TABLE_TLS_POLICY] = {"smtp_tls_policy_maps", offsetof(struct config, smtp_tls_policy_maps),
                          false},
    [TABLE_AUTHORITIES] = {"smtp_tls_CAfile", 0, false},
};

const char *table_parameter(enum table_use use)
{
    return uses[use].parameter;
}

static struct slice list_of(const struct config *c, enum table_use use)
{
    const char *list;
    memcpy(&list, (const char *)c + uses[use].list, sizeof list);
    return slice_str(list);
}

/* The file behind "type:name" into *path (NULL if the type has none). */
static int table_path(enum table_use use, struct slice spec, char **path, struct err *e)
{
    struct slice name = spec, type = slice_cut(&name, ':');
    const char *parameter = uses[use].parameter;
    *path = NULL;
    if (type.len == spec.len || name.len == 0)
        return err_set(e,
                       "%s: %s: write type:path, such as texthash:/etc/postern/"
                       "transport",
                       parameter, log_esc_n(spec, 100));
    if (slice_eq(type, SLICE("inline")))
        return 0;
    if (uses[use].servers && table_is_server(spec)) {
        struct table_server server;
        return table_server_parse(spec, &server, e) < 0 ? err_prefix(e, "%s", parameter) : 0;
    }
    if (slice_eq(type, SLICE("lmdb")) || slice_eq(type, SLICE("hash")) ||
        slice_eq(type, SLICE("btree")))
        return err_set(e, "%s: %s: type %.*s is not supported; use texthash or cdb", parameter,
                       log_esc_n(spec, 100), SLICE_ARG(type));
    bool cdb = slice_eq(type, SLICE("cdb"));
    if (!cdb && !slice_eq(type, SLICE("texthash")) && !slice_eq(type, SLICE("pcre")) &&
        !slice_eq(type, SLICE("cidr")))
        return err_set(e, "%s: %s: the types are texthash, cdb, pcre, cidr, inline%s", parameter,
                       log_esc_n(spec, 100), uses[use].servers ? ", tcp and socketmap" : "");
    if (name.ptr[0] != '/')
        return err_set(e, "%s: %s: the path must begin with /", parameter, log_esc_n(spec, 100));
    *path = xasprintf("%.*s%s", SLICE_ARG(name), cdb ? ".cdb" : "");
    return 0;
}

static int open_file(enum table_use use, const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_sys(e, "%s: %s", uses[use].parameter, path);
    if (cf_check_owner(fd, path, e) == 0)
        return fd;
    close(fd);
    return -1;
}

static int check_one(enum table_use use, struct slice spec, struct err *e)
{
    char *path;
    if (table_path(use, spec, &path, e) < 0)
        return -1;
    int fd = path ? open_file(use, path, e) : -1;
    bool failed = path && fd < 0;
    free(path);
    if (fd >= 0)
        close(fd);
    return failed ? -1 : 0;
}

/* Whether the text has a DS or DNSKEY record: resolve would not start with another
 * file. Only slips are looked for, such as the name of a wrong one. */
static bool has_anchor(struct slice text)
{
    while (text.len) {
        struct slice line = slice_cut(&text, '\n'), word;
        line = slice_first(line, slice_chr(line, ';'));
        while (config_list_next(&line, &word))
            if (slice_caseeq(word, SLICE("DS")) || slice_caseeq(word, SLICE("DNSKEY")))
                return true;
    }
    return false;
}

static int check_anchor(const char *path, struct err *e)
{
    static char text[256 * 1024]; /* what resolve takes */
    if (!*path)
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return err_sys(e, "resolver_trust_anchor: %s", path);
    int rc = cf_check_owner(fd, path, e);
    ssize_t n = rc < 0 ? 0 : pread(fd, text, sizeof text, 0);
    close(fd);
    if (rc < 0)
        return err_prefix(e, "resolver_trust_anchor");
    if (n < 0)
        return err_sys(e, "resolver_trust_anchor: %s", path);
    if (has_anchor(slice_make(text, (size_t)n)))
        return 0;
    return err_set(e,
                   "resolver_trust_anchor: %s: has no DS or DNSKEY record; "
                   "/usr/share/dns/root.key of the package dns-root-data has them",
                   path);
}

int tables_check(const struct config *c, struct err *e)
{
    for (enum table_use use = TABLE_TRANSPORT; use < TABLE_AUTHORITIES; use++) {
        struct slice rest = list_of(c, use), spec;
        for (int n = 0; config_list_next(&rest, &spec); n++) {
            if (n == TABLES_MAX)
                return err_set(e, "%s: more than %d tables", uses[use].parameter, TABLES_MAX);
            if (check_one(use, spec, e) < 0)
                return -1;
        }
    }
    return check_anchor(c->resolver_trust_anchor, e) < 0 ? -1 : authorities_check(c, e);
}

void tables_free(struct tables *t)
{
    for (size_t i = 0; i < t->count; i++) {
        free(t->list[i].spec);
        free(t->list[i].path);
        buf_free(&t->list[i].sockets);
    }
    xfree(&t->list);
    t->count = 0;
}

/* ---- next hops that are UNIX sockets ------------------------------------------ */

static int collect_sockets(struct table *t, struct slice text)
{
    int rc = lmtp_sockets_collect(text, &t->sockets);
    if (rc < 0)
        log_error("transport_maps: %s: names more UNIX sockets than fit into %d bytes; list the "
                  "others in lmtp_permit_sockets",
                  log_esc_n(slice_str(t->spec), 100), TABLE_SOCKETS_MAX);
    return rc;
}

/* Reads the text block by block, cut at line ends: master never has a whole table
 * in memory. The descriptor's offset is shared, so it is left alone. */
static void scan_file(struct table *t, int fd)
{
    static char block[256 * 1024];
    size_t kept = 0;
    off_t at = 0;
    ssize_t n;
    buf_clear(&t->sockets);
    while ((n = pread(fd, block + kept, sizeof block - kept, at)) > 0) {
        struct slice have = slice_make(block, kept + (size_t)n);
        size_t end = slice_rchr(have, '\n');
        struct slice lines = slice_first(have, end < have.len ? end + 1 : 0);
        at += n;
        if (lines.len == 0 && have.len == sizeof block)
            lines = have; /* no table has such a line */
        if (collect_sockets(t, lines) < 0)
            return;
        kept = have.len - lines.len;
        memmove(block, block + lines.len, kept);
    }
    (void)collect_sockets(t, slice_make(block, kept));
}

bool tables_name_socket(const struct tables *t, struct slice path)
{
    for (size_t i = 0; i < t->count; i++)
        if (lmtp_sockets_have(buf_slice(&t->list[i].sockets), path))
            return true;
    return false;
}

/* ---- the list ------------------------------------------------------------------- */

static struct table *add(struct tables *t, enum table_use use, struct slice spec, unsigned position)
{
    t->list = xreallocarray(t->list, t->count + 1, sizeof *t->list);
    struct table *table = &t->list[t->count++];
    *table = (struct table){.use = use, .spec = slice_dup(spec), .position = position};
    buf_init(&table->sockets, TABLE_SOCKETS_MAX);
    return table;
}

static void set_lists(struct tables *t, const struct config *c, enum table_use use)
{
    struct slice rest = list_of(c, use), spec;
    for (unsigned n = 0; n < TABLES_MAX && config_list_next(&rest, &spec); n++) {
        struct table *table = add(t, use, spec, n);
        if (table_path(use, spec, &table->path, NULL) < 0)
            panic("an unchecked list of tables");
        if (use == TABLE_TRANSPORT && slice_starts(spec, SLICE("inline:")))
            (void)collect_sockets(table, spec);
    }
}

/* Watched from what they are now on. */
static void set_authorities(struct tables *t, const char *path)
{
    if (!*path)
        return;
    struct table *table = add(t, TABLE_AUTHORITIES, slice_str(path), 0);
    table->path = xstrdup(path);
    if (stat(path, &table->seen) < 0)
        table->missing = true; /* the default's file may come later */
    table->latest = table->seen;
}

void tables_set(struct tables *t, const struct config *c)
{
    tables_free(t);
    set_lists(t, c, TABLE_TRANSPORT);
    set_lists(t, c, TABLE_TLS_POLICY);
    set_authorities(t, c->smtp_tls_CAfile);
    set_authorities(t, c->smtp_tls_CApath);
}

int table_open(struct table *t, struct err *e)
{
    int fd = open_file(t->use, t->path, e);
    if (fd >= 0 && fstat(fd, &t->seen) < 0) {
        err_sys(e, "%s", t->path);
        close(fd);
        fd = -1;
    }
    if (fd >= 0) {
        t->missing = false;
        t->latest = t->seen;
        if (t->use == TABLE_TRANSPORT && !slice_starts(slice_str(t->spec), SLICE("cdb:")))
            scan_file(t, fd);
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
            log_warning("%s: %s: cannot be read any more; its last content stays",
                        uses[t->use].parameter, t->path);
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

#include "conf/master_cf.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

#include "conf/cf_lines.h"
#include "conf/nets.h"
#include "core/log.h"
#include "core/mem.h"

const struct command commands[] = {
    {"smtpd", "_postern-smtpd", true, false},   {"qmgr", "_postern-queue", false, true},
    {"relay", "_postern-relay", false, false},  {"resolve", "_postern-dns", false, true},
    {"bounce", "_postern-bounce", false, true}, {"quota", "_postern-quota", false, true},
    {"keyd", "_postern-key", false, true},
};
const size_t command_count = sizeof commands / sizeof commands[0];

const struct command *command_find(struct slice name)
{
    for (size_t i = 0; i < command_count; i++)
        if (slice_eq(slice_str(commands[i].name), name))
            return &commands[i];
    return NULL;
}

void master_cf_free(struct master_cf *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->count; i++) {
        struct master_cf_service *s = &m->services[i];
        for (size_t k = 0; k < s->override_count; k++)
            free(s->overrides[k]);
        free(s->overrides);
        free(s->name);
        free(s->host);
        free(s->where);
    }
    free(m->services);
    free(m);
}

/* The next word, without its white space; empty at the end. */
static struct slice next_word(struct slice *rest)
{
    *rest = slice_trim(*rest);
    size_t n = 0;
    while (n < rest->len && rest->ptr[n] != ' ' && rest->ptr[n] != '\t')
        n++;
    struct slice word = slice_first(*rest, n);
    *rest = slice_from(*rest, n);
    return word;
}

/* ---- the columns ---------------------------------------------------------- */

static int parse_port(struct slice text, unsigned *port, struct err *e)
{
    /* so that these need no /etc/services */
    static const struct {
        const char *name;
        unsigned port;
    } known[] = {{"smtp", 25}, {"submission", 587}, {"submissions", 465}, {"smtps", 465}};
    uint64_t n;
    if (slice_u64(text, &n) == 0 && n >= 1 && n <= 65535) {
        *port = (unsigned)n;
        return 0;
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (slice_eq(text, slice_str(known[i].name))) {
            *port = known[i].port;
            return 0;
        }
    char *name = slice_dup(text);
    const struct servent *found = text.len ? getservbyname(name, "tcp") : NULL;
    free(name);
    if (!found)
        return err_set(e, "%s: is not a port; give a number from 1 to 65535 or a service name",
                       log_esc_n(text, 60));
    *port = ntohs((uint16_t)found->s_port);
    return 0;
}

static int parse_inet(struct master_cf_service *s, struct slice text, struct err *e)
{
    unsigned char bytes[16];
    size_t colon = slice_rchr(text, ':');
    struct slice host = {"", 0}, port = text;
    if (colon < text.len) {
        host = slice_first(text, colon);
        port = slice_from(text, colon + 1);
    }
    if (host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']')
        host = slice_make(host.ptr + 1, host.len - 2);
    if (slice_eq(host, SLICE("localhost")))
        host = SLICE("127.0.0.1");
    if (colon < text.len && network_address(host, bytes) < 0)
        return err_set(e, "%s: is not an address; write address:port or [IPv6 address]:port",
                       log_esc_n(host, 60));
    s->host = slice_dup(host);
    return parse_port(port, &s->port, e);
}

static int parse_unix(struct slice text, struct err *e)
{
    if (text.len > MASTER_CF_NAME_MAX)
        return err_set(e, "%s: a service's name has at most %d characters", log_esc_n(text, 60),
                       MASTER_CF_NAME_MAX);
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i], low = (char)(c | 0x20);
        if (!(low >= 'a' && low <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_')
            return err_set(e, "%s: a service's name has letters, digits, '-' and '_' only",
                           log_esc_n(text, 60));
    }
    return 0;
}

static int check_flag(struct slice text, const char *column, struct err *e)
{
    if (text.len == 1 && strchr("yn-", text.ptr[0]))
        return 0;
    return err_set(e, "%s is %s; give y, n or -", column, log_esc_n(text, 60));
}

static int check_wakeup(struct slice text, struct err *e)
{
    uint64_t n;
    if (slice_eq(text, SLICE("-")))
        return 0;
    if (text.len && text.ptr[text.len - 1] == '?')
        text.len--;
    return slice_u64(text, &n) == 0
               ? 0
               : err_set(e, "wakeup is %s; give - or seconds", log_esc_n(text, 60));
}

static int parse_count(struct master_cf_service *s, struct slice text, struct err *e)
{
    uint64_t n = 0;
    if (!slice_eq(text, SLICE("-")) &&
        (slice_u64(text, &n) < 0 || n < 1 || n > MASTER_CF_PROCESSES_MAX))
        return err_set(e, "maxproc is %s; give - or a number of processes from 1 to %d",
                       log_esc_n(text, 60), MASTER_CF_PROCESSES_MAX);
    if (s->command->single && n > 1)
        return err_set(e, "%s has exactly one process; give 1 or - as maxproc", s->command->name);
    s->count = s->command->single ? 1 : (unsigned)n;
    return 0;
}

/* ---- the arguments ---------------------------------------------------------- */

/* The text in { } at the start of *rest, which moves past it. */
static int take_braces(struct slice *rest, struct slice *inside, struct err *e)
{
    size_t end = slice_chr(*rest, '}');
    if (end == rest->len)
        return err_set(e, "-o {: the closing brace is missing");
    *inside = slice_trim(slice_make(rest->ptr + 1, end - 1));
    *rest = slice_from(*rest, end + 1);
    return 0;
}

static int parse_override(struct master_cf_service *s, struct slice *rest, struct err *e)
{
    struct slice text;
    *rest = slice_trim(*rest);
    if (rest->len && rest->ptr[0] == '{') {
        if (take_braces(rest, &text, e) < 0)
            return -1;
    } else {
        text = next_word(rest);
    }
    size_t equals = slice_chr(text, '=');
    if (equals == 0 || equals == text.len)
        return err_set(e, "-o %s: write -o name=value, or -o { name = value with spaces }",
                       log_esc_n(text, 60));
    if (s->override_count == MASTER_CF_OVERRIDES_MAX)
        return err_set(e, "more than %d -o options", MASTER_CF_OVERRIDES_MAX);
    s->overrides = xreallocarray(s->overrides, s->override_count + 1, sizeof s->overrides[0]);
    s->overrides[s->override_count++] =
        xasprintf("%.*s=%.*s", SLICE_ARG(slice_trim(slice_first(text, equals))),
                  SLICE_ARG(slice_trim(slice_from(text, equals + 1))));
    return 0;
}

static int parse_arguments(struct master_cf_service *s, struct slice rest, struct err *e)
{
    for (;;) {
        struct slice here = slice_trim(rest), word = next_word(&rest);
        if (word.len == 0)
            return 0;
        if (!slice_starts(word, SLICE("-o")))
            return err_set(e, "%s: the only arguments are -o name=value", log_esc_n(word, 60));
        /* "-oname=value" and "-o{ ... }" are one word or its beginning */
        rest = slice_from(here, 2);
        if (parse_override(s, &rest, e) < 0)
            return -1;
    }
}

/* ---- a line ------------------------------------------------------------------ */

enum column { NAME, TYPE, PRIVATE, UNPRIV, CHROOT, WAKEUP, MAXPROC, COMMAND, COLUMNS };

/* A socket that smtpd listens on. The name of a port is most likely a slip. */
static int check_socket_name(struct slice name, struct err *e)
{
    static const char *const taken[] = {"control", "showq", "accounts"};
    unsigned port;
    if (parse_port(name, &port, NULL) == 0)
        return err_set(e, "smtpd listens on the network as %s: its type is inet",
                       log_esc_n(name, 60));
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++)
        if (slice_eq(name, slice_str(taken[i])))
            return err_set(e, "Postern has a socket %s of its own; choose another name", taken[i]);
    return 0;
}

static int parse_type(struct master_cf_service *s, struct slice type, struct slice name,
                      struct err *e)
{
    if (slice_eq(type, SLICE("inet"))) {
        if (!s->command->inet)
            return err_set(e, "%s is an internal service: its type is unix", s->command->name);
        return parse_inet(s, name, e);
    }
    if (slice_eq(type, SLICE("unix"))) {
        s->local = s->command->inet;
        if (s->local && check_socket_name(name, e) < 0)
            return -1;
        s->host = xstrdup("");
        return parse_unix(name, e);
    }
    return err_set(e, "type %s is not known; give inet or unix", log_esc_n(type, 60));
}

static int parse_line(struct master_cf_service *s, struct slice line, struct err *e)
{
    struct slice column[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) {
        column[i] = next_word(&line);
        if (column[i].len == 0)
            return err_set(e,
                           "%d columns are missing; a line has: service type private unpriv "
                           "chroot wakeup maxproc command",
                           COLUMNS - i);
    }
    s->name = slice_dup(column[NAME]);
    s->command = command_find(column[COMMAND]);
    if (!s->command)
        return err_set(e,
                       "%s: is not a command of Postern; there are smtpd, qmgr, relay, resolve, "
                       "bounce, quota and keyd",
                       log_esc_n(column[COMMAND], 60));
    if (parse_type(s, column[TYPE], column[NAME], e) < 0 ||
        check_flag(column[PRIVATE], "private", e) < 0 ||
        check_flag(column[UNPRIV], "unpriv", e) < 0 ||
        check_flag(column[CHROOT], "chroot", e) < 0 || check_wakeup(column[WAKEUP], e) < 0 ||
        parse_count(s, column[MAXPROC], e) < 0)
        return -1;
    return parse_arguments(s, line, e);
}

static struct master_cf_service *add_service(struct master_cf *m)
{
    m->services = xreallocarray(m->services, m->count + 1, sizeof m->services[0]);
    struct master_cf_service *s = &m->services[m->count++];
    *s = (struct master_cf_service){.name = NULL};
    return s;
}

/* The line that s repeats: the same port on the same host, or the same
 * internal service. */
static const struct master_cf_service *find_double(const struct master_cf *m,
                                                   const struct master_cf_service *s)
{
    for (size_t i = 0; i < m->count; i++) {
        const struct master_cf_service *o = &m->services[i];
        if (o == s || o->command->inet != s->command->inet)
            continue;
        bool same = o->command == s->command;
        if (s->command->inet)
            same = s->local == o->local &&
                   (s->local ? strcmp(o->name, s->name) == 0
                             : o->port == s->port && strcmp(o->host, s->host) == 0);
        if (same)
            return o;
    }
    return NULL;
}

static int take_line(struct master_cf *m, const struct cf_reader *r, struct slice line,
                     struct err *e)
{
    if (m->count == MASTER_CF_SERVICES_MAX)
        return err_set(e, "%s:%u: more than %d services", r->file, r->start,
                       MASTER_CF_SERVICES_MAX);
    struct master_cf_service *s = add_service(m);
    s->line = r->start;
    s->where = xasprintf("%s:%u", r->file, r->start);
    if (parse_line(s, line, e) < 0)
        return err_prefix(e, "%s", s->where);
    const struct master_cf_service *other = find_double(m, s);
    if (other)
        return err_set(e, "%s: %s is there already, at %s", s->where, s->name, other->where);
    return 0;
}

/* Internal services that have no line of their own. */
static void add_built_in(struct master_cf *m)
{
    for (size_t k = 0; k < command_count; k++) {
        bool has = commands[k].inet;
        for (size_t i = 0; i < m->count; i++)
            has = has || m->services[i].command == &commands[k];
        if (has)
            continue;
        struct master_cf_service *s = add_service(m);
        s->name = xstrdup(commands[k].name);
        s->command = &commands[k];
        s->host = xstrdup("");
        s->count = commands[k].single ? 1 : 0;
        s->where = xstrdup("built-in");
    }
}

struct master_cf *master_cf_parse(struct slice text, const char *file, struct err *e)
{
    struct master_cf *m = xcalloc(1, sizeof *m);
    struct cf_reader r;
    struct slice line;
    int rc;
    cf_open(&r, file, text);
    while ((rc = cf_next(&r, &line, e)) == 1)
        if (take_line(m, &r, line, e) < 0) {
            rc = -1;
            break;
        }
    cf_close(&r);
    if (rc < 0) {
        master_cf_free(m);
        return NULL;
    }
    add_built_in(m);
    return m;
}

struct master_cf *master_cf_load(const char *path, struct err *e)
{
    struct buf text;
    if (cf_read_file(path, &text, e) < 0)
        return NULL;
    const char *slash = strrchr(path, '/');
    struct master_cf *m = master_cf_parse(buf_slice(&text), slash ? slash + 1 : path, e);
    buf_free(&text);
    return m;
}

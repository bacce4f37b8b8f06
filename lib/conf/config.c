#include "conf/config.h"

#include <limits.h>
#include <stdlib.h>

#include "conf/cf_lines.h"
#include "conf/params.h"
#include "conf/sasl.h"
#include "core/log.h"
#include "core/mem.h"

static struct config *config_new(const char *file, const char *directory)
{
    struct config *c = xcalloc(1, sizeof *c);
    c->private_ = xcalloc(1, sizeof *c->private_);
    c->private_->file = xstrdup(file);
    c->private_->directory = directory ? xstrdup(directory) : NULL;
    return c;
}

void config_free(struct config *c)
{
    if (!c)
        return;
    for (int i = 0; i < PARAM_COUNT; i++) {
        free(c->private_->raw[i]);
        free(c->private_->where[i]);
        free(c->private_->value[i]);
    }
    free(c->private_->directory);
    free(c->private_->file);
    free(c->private_);
    free(c);
}

/* ---- reading ------------------------------------------------------------- */

static int unknown_name(struct slice name, const char *where, struct err *e)
{
    const char *instead = param_of_postfix(name), *similar = param_similar(name);
    if (instead)
        return err_set(e, "%s: %s: this parameter of Postfix is not here: %s", where,
                       log_esc_n(name, 80), instead);
    if (similar)
        return err_set(e, "%s: %s: there is no such parameter; did you mean %s?", where,
                       log_esc_n(name, 80), similar);
    return err_set(e, "%s: %s: there is no such parameter; 'postern config' lists all", where,
                   log_esc_n(name, 80));
}

/* Takes "name = value" in; `again` allows a parameter that main.cf has set. */
static int take_setting(struct config *c, struct slice line, const char *where, bool again,
                        struct err *e)
{
    struct config_private *p = c->private_;
    size_t equals = slice_chr(line, '=');
    struct slice name = slice_trim(slice_first(line, equals));
    if (equals == line.len || name.len == 0)
        return err_set(e, "%s: %s: write it as name = value", where, log_esc_n(line, 80));
    int i = param_find(name);
    if (i < 0)
        return unknown_name(name, where, e);
    if (p->where[i] && !again)
        return err_set(e, "%s: %s is set a second time (first at %s); remove one of the lines",
                       where, params[i].name, p->where[i]);
    free(p->raw[i]);
    free(p->where[i]);
    p->raw[i] = slice_dup(slice_trim(slice_from(line, equals + 1)));
    p->where[i] = xstrdup(where);
    return 0;
}

static int take_lines(struct config *c, struct slice text, struct err *e)
{
    struct cf_reader r;
    struct slice line;
    int rc;
    cf_open(&r, c->private_->file, text);
    while ((rc = cf_next(&r, &line, e)) == 1) {
        char where[PATH_MAX];
        snprintf(where, sizeof where, "%s:%u", r.file, r.start);
        if (take_setting(c, line, where, false, e) < 0) {
            rc = -1;
            break;
        }
    }
    cf_close(&r);
    return rc;
}

/* A relative path starts from main.cf's directory. */
static char *absolute_path(const struct config_private *p, int index, struct slice text)
{
    bool stays = !p->directory || !param_is_path(index) || text.len == 0 || text.ptr[0] == '/' ||
                 (index == PARAM_INDEX_maillog_file && slice_eq(text, SLICE("stderr")));
    if (stays)
        return slice_dup(text);
    return xasprintf("%s/%.*s", p->directory, SLICE_ARG(text));
}

enum { SCRAM_ITERATIONS_LEAST = 4096 /* RFC 7677 section 4 */ };
enum { JOURNAL_SIZE_LEAST = 1024 * 1024 /* some blocks of the largest messages */ };

static int check_relations(const struct config *c, struct err *e)
{
    const struct config_private *p = c->private_;
    int i = p->where[PARAM_INDEX_maximal_backoff_time] ? PARAM_INDEX_maximal_backoff_time
                                                       : PARAM_INDEX_minimal_backoff_time;
    if (c->minimal_backoff_time > c->maximal_backoff_time)
        return err_set(e, "%s: minimal_backoff_time (%llds) is above maximal_backoff_time (%llds)",
                       p->where[i] ? p->where[i] : p->file, (long long)c->minimal_backoff_time,
                       (long long)c->maximal_backoff_time);
    i = PARAM_INDEX_queue_journal_size;
    if (c->queue_journal_size > 0 && c->queue_journal_size < JOURNAL_SIZE_LEAST)
        return err_set(
            e,
            "%s: queue_journal_size (%lld bytes) is less than 1m: give at least 1m, or 0 "
            "for no journal",
            p->where[i] ? p->where[i] : p->file, (long long)c->queue_journal_size);
    i = PARAM_INDEX_scram_iterations;
    if (c->scram_iterations > 0 && c->scram_iterations < SCRAM_ITERATIONS_LEAST)
        return err_set(e,
                       "%s: scram_iterations (%lld) is less than %d, the least that RFC 7677 "
                       "allows: give at least %d, or 0 for no SCRAM",
                       p->where[i] ? p->where[i] : p->file, (long long)c->scram_iterations,
                       SCRAM_ITERATIONS_LEAST, SCRAM_ITERATIONS_LEAST);
    i = PARAM_INDEX_smtpd_upstream_proxy_protocol;
    /* otherwise any client could claim to be any other (B35) */
    if (*c->smtpd_upstream_proxy_protocol && !*c->smtpd_proxy_networks)
        return err_set(e,
                       "%s: smtpd_upstream_proxy_protocol needs smtpd_proxy_networks: the "
                       "addresses of your proxies",
                       p->where[i] ? p->where[i] : p->file);
    i = PARAM_INDEX_smtpd_sasl_auth_enable;
    if (c->smtpd_sasl_auth_enable && strcmp(c->smtpd_sasl_type, "postern") == 0 &&
        !c->accounts_enable)
        return err_set(e,
                       "%s: smtpd_sasl_auth_enable needs accounts_enable = yes, or "
                       "smtpd_sasl_type = dovecot",
                       p->where[i] ? p->where[i] : p->file);
    i = PARAM_INDEX_smtpd_sasl_mechanism_filter;
    if (c->smtpd_sasl_auth_enable && strcmp(c->smtpd_sasl_type, "postern") == 0 &&
        !sasl_filter_leaves_any(c->smtpd_sasl_mechanism_filter))
        return err_set(
            e,
            "%s: smtpd_sasl_mechanism_filter leaves no way to log in: name PLAIN, LOGIN, "
            "SCRAM-SHA-256, SCRAM-SHA-256-PLUS or EXTERNAL",
            p->where[i] ? p->where[i] : p->file);
    return 0;
}

/* Expands, parses and checks everything into the fields. */
static int fill(struct config *c, struct err *e)
{
    struct config_private *p = c->private_;
    struct buf text = BUF_INIT(CF_LINE_MAX);
    int rc = 0;
    for (int i = 0; i < PARAM_COUNT && rc == 0; i++) {
        buf_clear(&text);
        rc = param_expand(p, i, &text, e);
        if (rc < 0)
            break;
        free(p->value[i]);
        p->value[i] = absolute_path(p, i, buf_slice(&text));
        rc = param_set(c, i, p->value[i], e);
        if (rc == 0)
            rc = param_check(i, p->value[i], e);
        if (rc < 0 && p->where[i])
            err_prefix(e, "%s", p->where[i]);
    }
    buf_free(&text);
    return rc == 0 ? check_relations(c, e) : -1;
}

struct config *config_parse(struct slice text, const char *file, const char *directory,
                            struct err *e)
{
    struct config *c = config_new(file, directory);
    if (take_lines(c, text, e) == 0 && fill(c, e) == 0)
        return c;
    config_free(c);
    return NULL;
}

struct config *config_load(const char *path, struct err *e)
{
    struct buf text;
    if (cf_read_file(path, &text, e) < 0)
        return NULL;
    const char *slash = strrchr(path, '/');
    char *parent = slash ? slice_dup(slice_make(path, (size_t)(slash - path))) : xstrdup(".");
    char *directory = realpath(*parent ? parent : "/", NULL);
    struct config *c = NULL;
    if (directory)
        c = config_parse(buf_slice(&text), slash ? slash + 1 : path, directory, e);
    else
        err_sys(e, "%s", parent);
    free(directory);
    free(parent);
    buf_free(&text);
    return c;
}

struct config *config_override(const struct config *c, const char *const *overrides, size_t count,
                               const char *where, struct err *e)
{
    const struct config_private *from = c->private_;
    struct config *copy = config_new(from->file, from->directory);
    bool seen[PARAM_COUNT] = {false};
    int rc = 0;
    for (int i = 0; i < PARAM_COUNT; i++) {
        copy->private_->raw[i] = from->raw[i] ? xstrdup(from->raw[i]) : NULL;
        copy->private_->where[i] = from->where[i] ? xstrdup(from->where[i]) : NULL;
    }
    for (size_t k = 0; k < count && rc == 0; k++) {
        struct slice s = slice_str(overrides[k]);
        int i = param_find(slice_trim(slice_first(s, slice_chr(s, '='))));
        if (i >= 0 && (param_is_path(i) || i == PARAM_INDEX_control_group))
            rc = err_set(e, "%s: -o %s: it is the same for all services; set it in %s", where,
                         params[i].name, from->file);
        else if (i >= 0 && seen[i])
            rc = err_set(e, "%s: -o %s is given twice", where, params[i].name);
        else
            rc = take_setting(copy, s, where, true, e);
        if (i >= 0)
            seen[i] = true;
    }
    if (rc == 0 && fill(copy, e) == 0)
        return copy;
    config_free(copy);
    return NULL;
}

/* ---- looking at it ------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(params[*(const int *)a].name, params[*(const int *)b].name);
}

static const int *sorted(void)
{
    static int order[PARAM_COUNT];
    static bool done;
    if (!done) {
        for (int i = 0; i < PARAM_COUNT; i++)
            order[i] = i;
        qsort(order, PARAM_COUNT, sizeof order[0], by_name);
        done = true;
    }
    return order;
}

bool config_entry(const struct config *c, size_t i, struct config_entry *out)
{
    static const char *const types[] = {
        [PARAM_TYPE_STR] = "text",   [PARAM_TYPE_LIST] = "list", [PARAM_TYPE_INT] = "number",
        [PARAM_TYPE_SIZE] = "size",  [PARAM_TYPE_TIME] = "time", [PARAM_TYPE_BOOL] = "yes or no",
        [PARAM_TYPE_ENUM] = "choice"};
    if (i >= PARAM_COUNT)
        return false;
    int k = sorted()[i];
    const char *where = c->private_->where[k];
    *out =
        (struct config_entry){.name = params[k].name,
                              .value = c->private_->value[k],
                              .raw = c->private_->raw[k] ? c->private_->raw[k] : params[k].fallback,
                              .fallback = params[k].fallback,
                              .doc = params[k].doc,
                              .type = types[params[k].type],
                              .set = where != NULL,
                              .where = where ? where : ""};
    return true;
}

const char *config_where(const struct config *c, const char *name)
{
    struct config_entry entry;
    for (size_t i = 0; config_entry(c, i, &entry); i++)
        if (strcmp(entry.name, name) == 0)
            return entry.where;
    panic("there is no parameter %s", name);
}

static bool is_separator(char c)
{
    return c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

bool config_list_next(struct slice *list, struct slice *element)
{
    while (list->len && is_separator(list->ptr[0]))
        *list = slice_from(*list, 1);
    size_t n = 0;
    unsigned braces = 0;
    for (; n < list->len && (braces || !is_separator(list->ptr[n])); n++) {
        if (list->ptr[n] == '{')
            braces++;
        else if (list->ptr[n] == '}' && braces)
            braces--;
    }
    *element = slice_first(*list, n);
    *list = slice_from(*list, n);
    return n > 0;
}

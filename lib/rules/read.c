/* From the text of providers.conf, by libconfuse, to a set. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/conf_text.h"
#include "core/log.h"
#include "core/mem.h"
#include "rules/lines.h"
#include "rules/read.h"

struct rules_reading rules_reading;

static void on_error(cfg_t *cfg, const char *format, va_list args)
{
    char text[300];
    if (rules_reading.failed)
        return;
    rules_reading.failed = true;
    vsnprintf(text, sizeof text, format, args);
    err_set(rules_reading.e, "%s:%d: %s", rules_reading.file, cfg ? cfg->line : 0,
            log_esc_n(slice_str(text), 280));
}

int rules_bad(const cfg_t *section, struct err *e, const char *what, const char *value)
{
    return err_set(e, "%s:%d: %s %s \"%s\": %s", rules_reading.file, section->line, section->name,
                   section->title ? section->title : "", value ? value : "", what);
}

int rules_bad_value(const cfg_t *section, const char *setting, const char *value, const char *what,
                    struct err *e)
{
    int line = conf_value_line(rules_reading.text, section->line, setting, value);
    return err_set(e, "%s:%d: %s%s%s: %s \"%s\": %s", rules_reading.file,
                   line ? line : section->line, section->name, section->title ? " " : "",
                   section->title ? section->title : "", setting, log_esc_n(slice_str(value), 200),
                   what);
}

/* ---- limits ------------------------------------------------------------------ */

const char *rules_given(cfg_t *s, const char *name)
{
    return cfg_size(s, name) ? cfg_getstr(s, name) : NULL;
}

int rules_take_count(cfg_t *s, const char *name, uint32_t *out, struct err *e)
{
    enum { MOST = 1000000000 };
    const char *text = rules_given(s, name);
    uint64_t n;
    if (!text)
        return 0;
    if (slice_u64(slice_str(text), &n) < 0 || n < 1 || n > MOST)
        return rules_bad_value(s, name, text, "must be from 1 to 1000000000, in digits", e);
    *out = (uint32_t)n;
    return 0;
}

int rules_take_rate(cfg_t *s, const char *name, double *out, struct err *e)
{
    const char *text = rules_given(s, name);
    if (!text || rules_parse_rate(text, out) == 0)
        return 0;
    return rules_bad_value(
        s, name, text,
        "a rate is written as 20/s, 100/min, 1000/h or 50000/d, and is at least 0.1/d", e);
}

int rules_take_time(cfg_t *s, const char *name, int64_t *out, struct err *e)
{
    const char *text = rules_given(s, name);
    if (!text || rules_parse_time(text, out) == 0)
        return 0;
    return rules_bad_value(s, name, text, "a time is written as 500ms, 90s, 5m, 2h or 7d", e);
}

int rules_word_in(const char *const *words, const char *word)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

static int take_limits(cfg_t *s, struct rules_limits *l, struct err *e)
{
    static const char *const levels[] = {"", "none", "may", "encrypt", NULL};
    const char *tls = rules_given(s, "tls");
    int level = tls ? rules_word_in(levels, tls) : 0;
    if (level < 0 || (tls && level == 0))
        return rules_bad_value(s, "tls", tls, "tls is one of none, may, encrypt", e);
    l->tls = (enum rules_tls)level;
    if (rules_take_count(s, "connections", &l->connections, e) < 0 ||
        rules_take_count(s, "start_connections", &l->start_connections, e) < 0 ||
        rules_take_count(s, "messages_per_connection", &l->messages_per_connection, e) < 0 ||
        rules_take_count(s, "recipients_per_message", &l->recipients_per_message, e) < 0 ||
        rules_take_count(s, "account_connections", &l->account_connections, e) < 0 ||
        rules_take_count(s, "account_connections_max", &l->account_connections_max, e) < 0 ||
        rules_take_rate(s, "account_message_rate", &l->account_message_rate, e) < 0 ||
        rules_take_count(s, "daily_cap", &l->daily_cap, e) < 0 ||
        rules_take_count(s, "cold_daily_cap", &l->cold_daily_cap, e) < 0 ||
        rules_take_rate(s, "cold_message_rate", &l->cold_message_rate, e) < 0 ||
        rules_take_rate(s, "message_rate", &l->message_rate, e) < 0 ||
        rules_take_rate(s, "start_rate", &l->start_rate, e) < 0 ||
        rules_take_rate(s, "connection_rate", &l->connection_rate, e) < 0 ||
        rules_take_time(s, "idle_time", &l->idle_time, e) < 0)
        return -1;
    if (l->message_rate > 0 && l->start_rate > l->message_rate)
        return rules_bad(s, e, "start_rate is above message_rate", "");
    if (l->connections > 0 && l->start_connections > l->connections)
        return rules_bad(s, e, "start_connections is above connections", "");
    return 0;
}

/* Over all sources: of default and providers, which is where such limits are known. */
static const char *const totals[] = {"total_connections", "total_message_rate",
                                     "total_connection_rate", NULL};

/* A provider counts as one, whatever its hosts and domains: one of these would have to count
 * twice, or not in its provider's. */
static int refuse_totals(cfg_t *s, struct err *e)
{
    for (int i = 0; totals[i]; i++)
        if (cfg_size(s, totals[i]))
            return rules_bad(
                s, e,
                "limits over all source addresses are of default and provider sections; "
                "give this destination a provider section of its own (provider \"NAME\" "
                "{ domains = {...} or hosts = {...} })",
                totals[i]);
    return 0;
}

/* Of one source: what counts over all of them has no place there. */
static int refuse_over_all(cfg_t *s, struct err *e)
{
    static const char *const names[] = {"account_connections_max", "account_message_rate", NULL};
    for (int i = 0; names[i]; i++)
        if (cfg_size(s, names[i]))
            return rules_bad(s, e, "counts over all source addresses: write it outside of source",
                             names[i]);
    for (int i = 0; totals[i]; i++)
        if (cfg_size(s, totals[i]))
            return rules_bad(s, e, "is over all source addresses: write it outside of source",
                             totals[i]);
    return 0;
}

static int take_totals(cfg_t *s, struct rules_limits *l, struct err *e)
{
    if (rules_take_count(s, "total_connections", &l->total_connections, e) < 0 ||
        rules_take_rate(s, "total_message_rate", &l->total_message_rate, e) < 0 ||
        rules_take_rate(s, "total_connection_rate", &l->total_connection_rate, e) < 0)
        return -1;
    return 0;
}

char *rules_lower(const char *text)
{
    char *copy = xstrdup(text);
    for (char *p = copy; *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p + 32);
    return copy;
}

/* As rules_limits is asked for it: one text for each address; NULL: none. */
static char *address_of(const char *text)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    char out[INET6_ADDRSTRLEN];
    int family = strchr(text, ':') ? AF_INET6 : AF_INET;
    return inet_pton(family, text, bytes) == 1 && inet_ntop(family, bytes, out, sizeof out)
               ? xstrdup(out)
               : NULL;
}

static int take_sources(cfg_t *s, struct section *out, struct err *e)
{
    unsigned n = cfg_size(s, "source");
    out->sources = xcalloc(n ? n : 1, sizeof *out->sources);
    for (unsigned i = 0; i < n; i++) {
        cfg_t *source = cfg_getnsec(s, "source", i);
        char *address = address_of(cfg_title(source));
        if (!address)
            return rules_bad(source, e, "is not an IPv4 or IPv6 address", "");
        out->sources[i].address = address;
        out->source_count++;
        for (unsigned k = 0; k < i; k++)
            if (strcmp(out->sources[k].address, address) == 0)
                return rules_bad(source, e, "this address was used before in the section", "");
        if (refuse_over_all(source, e) < 0 || take_limits(source, &out->sources[i].limits, e) < 0)
            return -1;
    }
    return 0;
}

/* Whether it changes a section of a file that this one includes. */
static bool overrides(cfg_t *s)
{
    return cfg_getbool(s, "override") == cfg_true;
}

enum { SECTION_NAME_MAX = 255 };

/* What a section is about: a provider's name is any, that of a site or domain is one that a
 * destination can have. */
static int take_title(cfg_t *s, enum section_kind kind, char out[static SECTION_NAME_MAX + 1],
                      struct err *e)
{
    const char *title = cfg_title(s), *why = NULL;
    if (strlen(title) == 0 || strlen(title) > SECTION_NAME_MAX)
        return rules_bad(s, e, "a name has 1 to 255 characters", "");
    char *name = kind == SECTION_PROVIDER ? rules_lower(title) : rules_name(title, false, &why);
    if (!name)
        return rules_bad(s, e, why, "");
    memcpy(out, name, strlen(name) + 1);
    free(name);
    return 0;
}

static struct section *append(struct section_list *list, cfg_t *s, enum section_kind kind,
                              const char *name)
{
    list->list = xreallocarray(list->list, list->count + 1, sizeof *list->list);
    struct section *out = &list->list[list->count++];
    *out = (struct section){
        .name = xstrdup(name), .kind = kind, .file = rules_reading.file, .line = s->line};
    return out;
}

static int add_section(struct rules *r, struct section_list *list, enum section_kind kind, cfg_t *s,
                       struct err *e)
{
    char name[SECTION_NAME_MAX + 1];
    if (take_title(s, kind, name, e) < 0)
        return -1;
    for (size_t i = 0; i < list->count && !overrides(s); i++)
        if (strcmp(list->list[i].name, name) == 0)
            return rules_bad(
                s, e,
                "this name was used before; with override = true a section changes that of "
                "a file which its own file includes",
                list->list[i].file);
    list = overrides(s) ? &r->overrides : list;
    if (list->count == RULES_PROVIDERS_MAX)
        return rules_bad(s, e, "too many sections", "");
    struct section *out = append(list, s, kind, name);
    if (take_limits(s, &out->limits, e) < 0 || take_sources(s, out, e) < 0)
        return -1;
    if (strcmp(s->name, "provider") != 0)
        return refuse_totals(s, e);
    if (take_totals(s, &out->limits, e) < 0)
        return -1;
    if (rules_take_names(s, "mx", true, &out->mx, e) < 0 ||
        rules_take_names(s, "hosts", false, &out->hosts, e) < 0 ||
        rules_take_names(s, "domains", false, &out->domains, e) < 0)
        return -1;
    if (!overrides(s) && !out->mx[0] && !out->hosts[0] && !out->domains[0])
        return rules_bad(s, e, "says by which mx, hosts or domains it is recognised", "");
    return 0;
}

/* ---- a file --------------------------------------------------------------------- */

static int take_includes(struct rules *r, cfg_t *top, struct err *e)
{
    for (unsigned i = 0; i < cfg_size(top, "include"); i++) {
        const char *name = cfg_getnstr(top, "include", i);
        int line = conf_value_line(rules_reading.text, 1, "include", name);
        for (size_t k = 0; k < r->file_count; k++)
            if (strcmp(r->files[k], name) == 0)
                return err_set(e, "%s:%d: include \"%s\": it was read before", rules_reading.file,
                               line, log_esc_n(slice_str(name), 200));
        if (r->file_count == RULES_FILES_MAX)
            return err_set(e, "%s:%d: include: more than %d files", rules_reading.file, line,
                           RULES_FILES_MAX);
        r->includers[r->file_count] = (struct includer){rules_reading.file, line};
        r->files[r->file_count++] = xstrdup(name);
    }
    return 0;
}

/* One of them, in whatever file: of two, one would hold for what both say. */
static int take_default(struct rules *r, cfg_t *s, struct err *e)
{
    struct section *out = &r->everyone;
    if (overrides(s) && r->overrides.count == RULES_PROVIDERS_MAX)
        return err_set(e, "%s:%d: default: too many sections", rules_reading.file, s->line);
    for (size_t i = 0; i < r->overrides.count && overrides(s); i++)
        if (r->overrides.list[i].kind == SECTION_DEFAULT &&
            strcmp(r->overrides.list[i].file, rules_reading.file) == 0)
            return err_set(e, "%s:%d: default: there is one already in line %d; write both as one",
                           rules_reading.file, s->line, r->overrides.list[i].line);
    if (!overrides(s) && out->file)
        return err_set(e,
                       "%s:%d: default: there is one already (%s:%d); write both as one, or "
                       "override = true in that of the file which includes the other",
                       rules_reading.file, s->line, out->file, out->line);
    if (overrides(s))
        out = append(&r->overrides, s, SECTION_DEFAULT, "");
    else
        out->name = xstrdup("");
    out->file = rules_reading.file;
    out->line = s->line;
    if (take_limits(s, &out->limits, e) < 0 || take_totals(s, &out->limits, e) < 0)
        return -1;
    return take_sources(s, out, e);
}

static int take_all(struct rules *r, cfg_t *top, struct err *e)
{
    static const char *const kinds[] = {"provider", "site", "domain"};
    struct section_list *lists[] = {&r->providers, &r->sites, &r->domains};
    for (unsigned i = 0; i < cfg_size(top, "default"); i++)
        if (take_default(r, cfg_getnsec(top, "default", i), e) < 0)
            return -1;
    for (int k = 0; k < 3; k++)
        for (unsigned i = 0; i < cfg_size(top, kinds[k]); i++)
            if (add_section(r, lists[k], (enum section_kind)(SECTION_PROVIDER + k),
                            cfg_getnsec(top, kinds[k], i), e) < 0)
                return -1;
    for (unsigned i = 0; i < cfg_size(top, "rule"); i++)
        if (rules_add_rule(r, cfg_getnsec(top, "rule", i), e) < 0)
            return -1;
    return take_includes(r, top, e);
}

int rules_read_text(struct rules *r, const char *file, struct slice text, struct err *e)
{
    if (conf_text_check(text, RULES_TEXT_MAX, file, e) < 0)
        return -1;
    cfg_t *top = cfg_init(rules_options(), CFGF_NONE);
    if (!top)
        panic("no memory for a configuration");
    char *copy = slice_dup(text);
    conf_text_blank(copy);
    rules_reading = (struct rules_reading){.file = file, .text = copy, .e = e};
    cfg_set_error_function(top, on_error);
    int rc = cfg_parse_buf(top, copy);
    if (rc == CFG_SUCCESS)
        rules_set_lines(top, copy);
    else if (!rules_reading.failed)
        err_set(e, "%s: cannot be parsed", file);
    rc = rc == CFG_SUCCESS && !rules_reading.failed ? take_all(r, top, e) : -1;
    free(copy);
    cfg_free(top);
    return rc;
}

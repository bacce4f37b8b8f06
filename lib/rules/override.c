/* Sections with `override = true`: they change what an included file says of the same place. */
#include <stddef.h>
#include <stdlib.h>
#include <strings.h>

#include "core/buf.h"
#include "core/mem.h"
#include "rules/set.h"

static const char *const kinds[] = {"default", "provider", "site", "domain"};

/* ---- what changes --------------------------------------------------------------------- */

enum field_type { NUMBER, COUNT, TIME, LEVEL };

static const struct {
    const char *name;
    size_t at;
    enum field_type type;
} fields[] = {
    {"message_rate", offsetof(struct rules_limits, message_rate), NUMBER},
    {"start_rate", offsetof(struct rules_limits, start_rate), NUMBER},
    {"connection_rate", offsetof(struct rules_limits, connection_rate), NUMBER},
    {"total_message_rate", offsetof(struct rules_limits, total_message_rate), NUMBER},
    {"total_connection_rate", offsetof(struct rules_limits, total_connection_rate), NUMBER},
    {"total_connections", offsetof(struct rules_limits, total_connections), COUNT},
    {"connections", offsetof(struct rules_limits, connections), COUNT},
    {"start_connections", offsetof(struct rules_limits, start_connections), COUNT},
    {"messages_per_connection", offsetof(struct rules_limits, messages_per_connection), COUNT},
    {"recipients_per_message", offsetof(struct rules_limits, recipients_per_message), COUNT},
    {"account_connections", offsetof(struct rules_limits, account_connections), COUNT},
    {"account_connections_max", offsetof(struct rules_limits, account_connections_max), COUNT},
    {"account_message_rate", offsetof(struct rules_limits, account_message_rate), NUMBER},
    {"daily_cap", offsetof(struct rules_limits, daily_cap), COUNT},
    {"cold_daily_cap", offsetof(struct rules_limits, cold_daily_cap), COUNT},
    {"cold_message_rate", offsetof(struct rules_limits, cold_message_rate), NUMBER},
    {"idle_time", offsetof(struct rules_limits, idle_time), TIME},
    {"tls", offsetof(struct rules_limits, tls), LEVEL},
};

static double value_of(const struct rules_limits *l, size_t i)
{
    const void *at = (const char *)l + fields[i].at;
    switch (fields[i].type) {
    case NUMBER:
        return *(const double *)at;
    case COUNT:
        return *(const uint32_t *)at;
    case TIME:
        return (double)*(const int64_t *)at / 1e6;
    default:
        return *(const enum rules_tls *)at;
    }
}

static void tell_value(double value, enum field_type type, struct buf *out)
{
    static const char *const levels[] = {"", "none", "may", "encrypt"};
    if (value <= 0)
        (void)buf_addstr(out, "nothing");
    else if (type == LEVEL)
        (void)buf_addstr(out, levels[(int)value]);
    else
        (void)buf_printf(out, "%.6g%s", value, type == NUMBER ? "/s" : type == TIME ? "s" : "");
}

/* "; message_rate 100/s instead of 20/s" */
static void tell_limits(const struct rules_limits *now, const struct rules_limits *before,
                        const char *address, struct buf *out)
{
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (value_of(now, i) <= 0)
            continue;
        (void)buf_printf(out, "; %s%s%s%s ", address ? "source " : "", address ? address : "",
                         address ? ": " : "", fields[i].name);
        tell_value(value_of(now, i), fields[i].type, out);
        (void)buf_addstr(out, " instead of ");
        tell_value(before ? value_of(before, i) : 0, fields[i].type, out);
    }
}

/* ---- changing ----------------------------------------------------------------------------- */

static struct source_limits *source_of(struct section *s, const char *address)
{
    for (size_t i = 0; i < s->source_count; i++)
        if (strcmp(s->sources[i].address, address) == 0)
            return &s->sources[i];
    return NULL;
}

static void change_sources(struct section *base, const struct section *o, struct buf *told)
{
    for (size_t i = 0; i < o->source_count; i++) {
        const struct source_limits *from = &o->sources[i];
        struct source_limits *to = source_of(base, from->address);
        tell_limits(&from->limits, to ? &to->limits : NULL, from->address, told);
        if (!to) {
            base->sources =
                xreallocarray(base->sources, base->source_count + 1, sizeof *base->sources);
            to = &base->sources[base->source_count++];
            *to = (struct source_limits){.address = xstrdup(from->address)};
        }
        rules_inherit(&to->limits, &from->limits);
    }
}

/* By what a provider is recognised: a list that is given takes the other one's place. */
static void change_list(char ***base, char ***o, const char *name, struct buf *told)
{
    if (!*o || !(*o)[0])
        return;
    char **before = *base;
    *base = *o;
    *o = before; /* freed with it */
    (void)buf_printf(told, "; another list of %s", name);
}

static void change(struct section *base, struct section *o, struct buf *told)
{
    (void)buf_printf(told, "%s:%d: changes %s%s%s of %s:%d", o->file, o->line, kinds[o->kind],
                     *o->name ? " " : "", o->name, base->file, base->line);
    tell_limits(&o->limits, &base->limits, NULL, told);
    rules_inherit(&base->limits, &o->limits);
    change_sources(base, o, told);
    change_list(&base->mx, &o->mx, "mx", told);
    change_list(&base->hosts, &o->hosts, "hosts", told);
    change_list(&base->domains, &o->domains, "domains", told);
}

/* ---- which one ----------------------------------------------------------------------------- */

/* Whether a file was included by the other one, or by one that was. */
static bool is_below(const struct rules *r, const char *file, const char *above)
{
    for (size_t depth = 0; depth < RULES_FILES_MAX; depth++) {
        const char *by = NULL;
        for (size_t i = 0; i < r->file_count; i++)
            if (strcmp(r->files[i], file) == 0)
                by = r->includers[i].file;
        if (!by)
            return false;
        if (strcmp(by, above) == 0)
            return true;
        file = by;
    }
    return false;
}

static struct section *base_of(struct rules *r, const struct section *o)
{
    struct section_list *lists[] = {NULL, &r->providers, &r->sites, &r->domains};
    const struct section_list *list = lists[o->kind];
    if (!list)
        return r->everyone.file ? &r->everyone : NULL;
    for (size_t i = 0; i < list->count; i++)
        if (strcasecmp(list->list[i].name, o->name) == 0)
            return &list->list[i];
    return NULL;
}

int rules_apply_overrides(struct rules *r, struct err *e)
{
    r->told = xcalloc(r->overrides.count + 1, sizeof *r->told);
    for (size_t i = r->overrides.count;
         i-- > 0;) { /* who includes is read first, and changes last */
        struct section *o = &r->overrides.list[i], *base = base_of(r, o);
        struct buf told = BUF_INIT(8192);
        if (!base || !is_below(r, base->file, o->file))
            return err_set(e,
                           "%s:%d: %s%s%s: override = true, but no file that this one includes has "
                           "such a section; correct its name, or take override out",
                           o->file, o->line, kinds[o->kind], *o->name ? " " : "", o->name);
        change(base, o, &told);
        r->told[r->told_count++] = slice_dup(buf_slice(&told));
        buf_free(&told);
    }
    return 0;
}

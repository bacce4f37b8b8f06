/* The limits that a section may have, by name, and where one of them is said. */
#include <stddef.h>

#include "rules/set.h"

enum field_type { NUMBER, COUNT, TIME, LEVEL };

static const struct {
    const char *name;
    size_t at;
    enum field_type type;
} fields[RULES_FIELDS] = {
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

double rules_field_value(const struct rules_limits *l, unsigned i)
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

void rules_field_tell(unsigned i, double value, struct buf *out)
{
    static const char *const levels[] = {"", "none", "may", "encrypt"};
    enum field_type type = fields[i].type;
    if (value <= 0)
        (void)buf_addstr(out, "nothing");
    else if (type == LEVEL)
        (void)buf_addstr(out, levels[(int)value]);
    else
        (void)buf_printf(out, "%.6g%s", value, type == NUMBER ? "/s" : type == TIME ? "s" : "");
}

const char *rules_field_name(unsigned i)
{
    return fields[i].name;
}

const char *section_kind_name(enum section_kind kind)
{
    static const char *const kinds[] = {"default", "provider", "site", "domain"};
    return kinds[kind];
}

/* ---- where it is said ------------------------------------------------------------------ */

struct said {
    const struct section *section; /* NULL: nowhere */
    const char *source;            /* in what is said for it alone; or NULL */
    double value;
};

static void look_at(const struct section *s, struct slice source, unsigned field, struct said *out)
{
    double value = rules_field_value(&s->limits, field);
    if (value > 0)
        *out = (struct said){s, NULL, value};
    for (size_t i = 0; i < s->source_count; i++) {
        value = rules_field_value(&s->sources[i].limits, field);
        if (value > 0 && slice_caseeq(slice_str(s->sources[i].address), source))
            *out = (struct said){s, s->sources[i].address, value};
    }
}

/* What a section says, or the last one that has changed it. */
static void look_at_all(const struct rules *r, const struct section *s, struct slice source,
                        unsigned field, struct said *out)
{
    struct said here = {0}, changed;
    look_at(s, source, field, &here);
    if (!here.section)
        return;
    *out = here;
    for (size_t i = 0; i < r->overrides.count; i++) {
        const struct section *o = &r->overrides.list[i];
        changed = (struct said){0};
        if (o->kind == s->kind && strcmp(o->name, s->name) == 0)
            look_at(o, source, field, &changed);
        if (!changed.section || !changed.source != !here.source)
            continue;
        *out = changed;
        return;
    }
}

static const struct section *named(const struct section_list *list, const char *name)
{
    for (size_t i = 0; name && i < list->count; i++)
        if (strcmp(list->list[i].name, name) == 0)
            return &list->list[i];
    return NULL;
}

bool rules_tell_origin(const struct rules *r, const struct rules_place *p, struct slice source,
                       const char *limit, struct buf *out)
{
    struct said said = {0};
    unsigned field = 0;
    while (field < RULES_FIELDS && strcmp(fields[field].name, limit) != 0)
        field++;
    if (field == RULES_FIELDS)
        return false;
    const struct section *sections[] = {r->everyone.file ? &r->everyone : NULL,
                                        named(&r->providers, p->provider),
                                        named(&r->sites, p->site), named(&r->domains, p->domain)};
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++)
        if (sections[i])
            look_at_all(r, sections[i], source, field, &said);
    if (!said.section)
        return false;
    (void)buf_printf(out, "%s:%d: %s%s%s%s%s: %s = ", said.section->file, said.section->line,
                     section_kind_name(said.section->kind), *said.section->name ? " " : "",
                     said.section->name, said.source ? " source " : "",
                     said.source ? said.source : "", limit);
    rules_field_tell(field, said.value, out);
    return true;
}

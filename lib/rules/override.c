/* Sections with `override = true`: they change what an included file says of the same place. */
#include <stdlib.h>
#include <strings.h>

#include "core/buf.h"
#include "core/mem.h"
#include "rules/set.h"

/* ---- what changes --------------------------------------------------------------------- */

/* "; message_rate 100/s instead of 20/s" */
static void tell_limits(const struct rules_limits *now, const struct rules_limits *before,
                        const char *address, struct buf *out)
{
    for (unsigned i = 0; i < RULES_FIELDS; i++) {
        if (rules_field_value(now, i) <= 0)
            continue;
        (void)buf_printf(out, "; %s%s%s%s ", address ? "source " : "", address ? address : "",
                         address ? ": " : "", rules_field_name(i));
        rules_field_tell(i, rules_field_value(now, i), out);
        (void)buf_addstr(out, " instead of ");
        rules_field_tell(i, before ? rules_field_value(before, i) : 0, out);
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
    (void)buf_printf(told, "%s:%d: changes %s%s%s of %s:%d", o->file, o->line,
                     section_kind_name(o->kind), *o->name ? " " : "", o->name, base->file,
                     base->line);
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
                           o->file, o->line, section_kind_name(o->kind), *o->name ? " " : "",
                           o->name);
        change(base, o, &told);
        r->told[r->told_count++] = slice_dup(buf_slice(&told));
        buf_free(&told);
    }
    return 0;
}

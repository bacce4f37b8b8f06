#include "sources/read.h"

#include <stdio.h>

#include "core/log.h"
#include "core/mem.h"

struct reading *sources_reading;

/* ---- where options stand ---------------------------------------------------------- */

/* Sections are looked at in the order in which they were read: the search goes on where
 * the last one ended. */
static struct met *find(const cfg_opt_t *opt)
{
    struct reading *r = sources_reading;
    for (size_t i = 0; i < r->count; i++) {
        size_t at = r->hint + i;
        if (at >= r->count)
            at -= r->count;
        if (r->met[at].opt == opt) {
            r->hint = at;
            return &r->met[at];
        }
    }
    return NULL;
}

/* Called for each value; for a list once more at its end, without a new value. */
static int on_value(cfg_t *cfg, cfg_opt_t *opt)
{
    struct reading *r = sources_reading;
    if (r->count && r->met[r->count - 1].opt == opt)
        return 0;
    r->met = xreallocarray(r->met, r->count + 1, sizeof *r->met);
    r->met[r->count++] = (struct met){.opt = opt, .line = cfg->line};
    return 0;
}

void sources_on_error(cfg_t *cfg, const char *format, va_list args)
{
    struct reading *r = sources_reading;
    char text[256];
    if (r->failed)
        return; /* the first error is the cause */
    r->failed = true;
    vsnprintf(text, sizeof text, format, args);
    err_set(r->e, "%s:%d: %s", r->file, cfg ? cfg->line : 0, log_esc(slice_str(text)));
}

const char *sources_text(cfg_t *section, const char *option)
{
    return cfg_size(section, option) ? cfg_getstr(section, option) : NULL;
}

int sources_line(cfg_t *section, const char *option)
{
    const struct met *m = find(cfg_getopt(section, option));
    return m ? m->line : section->line;
}

int sources_bad(cfg_t *section, const char *option, const char *format, ...)
{
    struct reading *r = sources_reading;
    const char *title = cfg_title(section);
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->failed = true;
    if (!title)
        return err_set(r->e, "%s:%d: %s: %s", r->file, sources_line(section, option), option, text);
    return err_set(r->e, "%s:%d: %s %s: %s", r->file, sources_line(section, option), section->name,
                   log_esc_n(slice_str(title), 80), text);
}

/* ---- what may be given --------------------------------------------------------------- */

#define VALUES(title, more)                                                                        \
    {                                                                                              \
        .name = (title), .type = CFGT_STR, .flags = CFGF_NODEFAULT | (more), .validcb = on_value   \
    }
#define TEXT(title) VALUES(title, CFGF_NONE)
#define TEXTS(title) VALUES(title, CFGF_LIST)

cfg_opt_t *sources_options(void)
{
    enum { TITLED = CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES };
    static cfg_opt_t provider[] = {TEXT("warmup"), TEXT("volume"), TEXT("daily_cap"), CFG_END()};
    static cfg_opt_t source[] = {
        TEXT("ipv4"),      TEXT("ipv6"),   TEXT("helo"),
        TEXT("weight"),    TEXT("warmup"), TEXT("volume"),
        TEXT("daily_cap"), TEXT("began"),  CFG_SEC("provider", provider, TITLED),
        CFG_END()};
    static cfg_opt_t pool[] = {TEXTS("sources"), TEXT("overflow"), TEXTS("accounts"),
                               TEXTS("senders"), TEXTS("classes"), CFG_END()};
    static cfg_opt_t dnsbl[] = {TEXT("quarantine"), CFG_END()};
    static cfg_opt_t top[] = {CFG_SEC("source", source, TITLED),
                              CFG_SEC("pool", pool, TITLED),
                              CFG_SEC("dnsbl", dnsbl, TITLED),
                              TEXT("dnsbl_interval"),
                              TEXT("alert_address"),
                              CFG_END()};
    return top;
}

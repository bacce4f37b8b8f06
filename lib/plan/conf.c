/* plans.conf, in the syntax of libconfuse. Every value is text to it and read
 * here, so that a wrong one is refused with its line. */
#include <confuse.h>
#include <stdio.h>

#include "core/conf_text.h"
#include "core/log.h"
#include "core/mem.h"
#include "plan/plan.h"

const struct plan plan_unlimited = {
    .name = "unlimited", .zone_name = "UTC", .at_limit = AT_LIMIT_ALLOW, .alert_percents = {0}};

/* ---- values ------------------------------------------------------------------ */

static int parse_count(struct slice s, uint64_t max, uint64_t *out)
{
    return slice_u64(s, out) == 0 && *out <= max ? 0 : -1;
}

int plan_parse_size(struct slice text, uint64_t *out)
{
    static const struct {
        const char *unit;
        uint64_t factor;
    } units[] = {{"KiB", 1ull << 10}, {"MiB", 1ull << 20},  {"GiB", 1ull << 30},
                 {"TiB", 1ull << 40}, {"KB", 1000},         {"MB", 1000000},
                 {"GB", 1000000000},  {"TB", 1000000000000}};
    uint64_t factor = 1;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        struct slice unit = slice_str(units[i].unit);
        if (factor == 1 && text.len > unit.len &&
            slice_caseeq(slice_from(text, text.len - unit.len), unit)) {
            factor = units[i].factor;
            text.len -= unit.len;
        }
    }
    if (slice_u64(text, out) < 0 || __builtin_mul_overflow(*out, factor, out))
        return -1;
    return 0;
}

static int parse_word(struct slice s, const char *const *words, uint8_t *out)
{
    for (uint8_t i = 0; words[i]; i++)
        if (slice_eq(s, slice_str(words[i]))) {
            *out = i;
            return 0;
        }
    return -1;
}

static const char *const periods[] = {"none", "day", "week", "month", "year", NULL};
static const char *const yes_no[] = {"no", "yes", NULL};
static const char *const anchors[] = {"calendar", "anniversary", NULL};
static const char *const limit_actions[] = {"block", "allow", "surcharge", NULL};
static const char *const rate_units[] = {"minute", "hour", "day", "month", NULL};
static const char *const rate_actions[] = {"defer", "queue", NULL};
static const char *const spike_actions[] = {"off", "slow", "hold", NULL};

int plan_parse_rate(struct slice s, struct plan_rate *out)
{
    struct slice count = slice_cut(&s, '/');
    return parse_count(count, UINT64_MAX, &out->count) == 0 && out->count
               ? parse_word(s, rate_units, &out->unit)
               : -1;
}

int plan_parse_connections(struct slice text, uint32_t *out)
{
    enum { MOST = 1000000 };
    uint64_t n;
    if (parse_count(text, MOST, &n) < 0 || n == 0)
        return -1;
    *out = (uint32_t)n;
    return 0;
}

uint64_t plan_rate_a_day(const struct plan_rate *rate)
{
    enum { MINUTES = 1440, HOURS = 24, DAYS = 30 };
    uint64_t most = UINT64_MAX / MINUTES, n = rate->count < most ? rate->count : most;
    switch (rate->unit) {
    case RATE_MINUTE:
        return n * MINUTES;
    case RATE_HOUR:
        return n * HOURS;
    case RATE_DAY:
        return n;
    default:
        return (n + DAYS - 1) / DAYS;
    }
}

/* "block:1000" or "block:500MB"; "none" */
static int parse_overage(struct slice s, struct plan *p)
{
    p->overage_block = 0;
    p->overage_bytes = false;
    if (slice_eq(s, SLICE("none")))
        return 0;
    if (!slice_starts(s, SLICE("block:")))
        return -1;
    s = slice_from(s, 6);
    if (plan_parse_size(s, &p->overage_block) < 0 || p->overage_block == 0)
        return -1;
    char last = s.ptr[s.len - 1];
    p->overage_bytes = last < '0' || last > '9';
    return 0;
}

static int parse_name(struct slice s, char out[static PLAN_NAME_MAX + 1])
{
    if (s.len > PLAN_NAME_MAX)
        return -1;
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= ' ' || s.ptr[i] > '~' || s.ptr[i] == '"' || s.ptr[i] == '\\')
            return -1;
    memcpy(out, s.ptr, s.len);
    out[s.len] = '\0';
    return 0;
}

/* ---- options ------------------------------------------------------------------ */

struct reading {
    plan_zone_lookup *lookup;
    void *lookup_arg;
    const char *file;
    struct err *e;
    bool failed; /* *e is set */
};

/* libconfuse's callbacks have no argument of ours. One file is read at a time. */
static struct reading *reading;

static int set_zone(struct plan *p, struct slice s)
{
    char rule[ZONE_TEXT_MAX], name[PLAN_NAME_MAX + 1];
    if (parse_name(s, name) < 0 ||
        reading->lookup(name, rule, sizeof rule, reading->lookup_arg) < 0)
        return -1;
    memcpy(p->zone_name, name, sizeof name);
    return zone_parse(slice_str(rule), &p->zone);
}

static int add_rate(struct plan_rate *rates, struct slice s)
{
    for (unsigned i = 0; i < PLAN_RATES_MAX; i++)
        if (rates[i].count == 0)
            return plan_parse_rate(s, &rates[i]);
    return -1;
}

static int add_percent(struct plan *p, struct slice s)
{
    uint64_t n;
    unsigned i = 0;
    while (i < PLAN_PERCENTS_MAX - 1 && p->alert_percents[i])
        i++;
    if (i == PLAN_PERCENTS_MAX - 1 || parse_count(s, 200, &n) < 0 || n == 0 ||
        (i && n <= p->alert_percents[i - 1]))
        return -1;
    p->alert_percents[i] = (uint8_t)n;
    return 0;
}

static int add_warning(struct plan *p, struct slice s)
{
    uint64_t n;
    unsigned i = 0;
    while (i < PLAN_WARNINGS_MAX - 1 && p->end_warnings[i])
        i++;
    if (i == PLAN_WARNINGS_MAX - 1 || parse_count(s, 3650, &n) < 0 || n == 0 ||
        (i && n >= p->end_warnings[i - 1]))
        return -1;
    p->end_warnings[i] = (uint32_t)n;
    return 0;
}

static int set_report(struct plan *p, struct slice s)
{
    uint64_t n;
    if (parse_count(s, 100, &n) < 0)
        return -1;
    p->report_percent = (uint8_t)n;
    return 0;
}

static int set_factor(struct plan *p, struct slice s)
{
    uint64_t n;
    if (parse_count(s, 10000, &n) < 0 || n == 1)
        return -1;
    p->spike_factor = (uint32_t)n;
    return 0;
}

#define SETTER(name, expression)                                                                   \
    static int set_##name(struct plan *p, struct slice s)                                          \
    {                                                                                              \
        return expression;                                                                         \
    }
SETTER(period, parse_word(s, periods, &p->period))
SETTER(anchor, parse_word(s, anchors, &p->anchor))
SETTER(period_report, parse_word(s, yes_no, &p->period_report))
SETTER(messages, parse_count(s, UINT64_MAX, &p->messages))
SETTER(bytes, plan_parse_size(s, &p->bytes))
SETTER(byte_minimum, plan_parse_size(s, &p->byte_minimum))
SETTER(at_limit, parse_word(s, limit_actions, &p->at_limit))
SETTER(overage, parse_overage(s, p))
SETTER(recipients, parse_count(s, UINT32_MAX, &p->recipient_limit))
SETTER(size, plan_parse_size(s, &p->size_limit))
SETTER(user_rate, add_rate(p->user_rates, s))
SETTER(account_rate, add_rate(p->account_rates, s))
SETTER(rate_action, parse_word(s, rate_actions, &p->rate_action))
SETTER(credit_unit, plan_parse_size(s, &p->credit_unit))
SETTER(credit_minimum, plan_parse_size(s, &p->credit_minimum))
SETTER(credit_until, parse_word(s, periods, &p->credit_until))
SETTER(spike_minimum, parse_count(s, UINT64_MAX, &p->spike_minimum))
SETTER(spike_action, parse_word(s, spike_actions, &p->spike_action))
SETTER(source, parse_name(s, p->source))
SETTER(destination_connections, plan_parse_connections(s, &p->destination_connections))
SETTER(destination_rate, plan_parse_rate(s, &p->destination_rate))

/* Every option: how it is read, and what an error says. */
static const struct option {
    const char *name;
    bool list;
    int (*set)(struct plan *p, struct slice s);
    const char *wanted;
} options[] = {
    {"period", false, set_period, "none, day, week, month or year"},
    {"anchor", false, set_anchor, "calendar or anniversary"},
    {"zone", false, set_zone, "a time zone such as \"Europe/Berlin\" or \"UTC\" (package tzdata)"},
    {"messages", false, set_messages, "a number; 0 is unlimited"},
    {"bytes", false, set_bytes, "a size such as 500MB; 0 is unlimited"},
    {"byte_minimum", false, set_byte_minimum, "a size such as 10KB"},
    {"at_limit", false, set_at_limit, "allow, surcharge or block"},
    {"overage", false, set_overage, "none, or blocks such as block:1000 or block:500MB"},
    {"recipients", false, set_recipients, "a number; 0 is no limit"},
    {"size", false, set_size, "a size such as 50MB; 0 is no limit"},
    {"user_rate", true, set_user_rate,
     "up to 4 rates such as 50/day; the units are minute, hour, day and month"},
    {"account_rate", true, set_account_rate,
     "up to 4 rates such as 50/day; the units are minute, hour, day and month"},
    {"rate_action", false, set_rate_action, "defer or queue"},
    {"alerts", true, add_percent, "up to 9 percentages, the smallest first"},
    {"report_every", false, set_report, "a percentage; 0 is never"},
    {"period_report", false, set_period_report, "yes or no"},
    {"credit_unit", false, set_credit_unit, "a number or a size such as 500MB; 0 is never"},
    {"credit_minimum", false, set_credit_minimum, "a number or a size such as 2GB"},
    {"credit_until", false, set_credit_until, "day, week, month or year"},
    {"end_warnings", true, add_warning, "up to 7 numbers of days, the largest first"},
    {"spike_factor", false, set_factor, "a number from 2 on; 0 is no spike guard"},
    {"spike_minimum", false, set_spike_minimum, "a number of messages in an hour"},
    {"spike_action", false, set_spike_action, "slow, hold or off"},
    {"source", false, set_source, "a name"},
    {"destination_connections", false, set_destination_connections, "a number from 1 to 1000000"},
    {"destination_rate", false, set_destination_rate,
     "a rate such as 600/hour; the units are minute, hour, day and month"},
};
enum { OPTION_COUNT = sizeof options / sizeof options[0] };

static const struct option *option_find(const char *name)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
    return NULL;
}

/* ---- libconfuse's callbacks ---------------------------------------------------- */

static void on_error(cfg_t *cfg, const char *format, va_list args)
{
    char text[256];
    if (reading->failed)
        return; /* the first error is the cause */
    reading->failed = true;
    vsnprintf(text, sizeof text, format, args);
    err_set(reading->e, "%s:%d: %s", reading->file, cfg ? cfg->line : 0, log_esc(slice_str(text)));
}

/* Called for each value; for a list once more at its end, without a new value. */
static int on_value(cfg_t *cfg, cfg_opt_t *opt)
{
    unsigned n = cfg_opt_size(opt);
    const struct option *o = option_find(opt->name);
    struct plan scratch = plan_unlimited;
    for (unsigned i = 0; i < n; i++) {
        const char *text = cfg_opt_getnstr(opt, i);
        if (o->set(&scratch, slice_str(text)) < 0) {
            cfg_error(cfg, "%s = %s: give %s", opt->name, text, o->wanted);
            return -1;
        }
    }
    return 0;
}

/* ---- the file ------------------------------------------------------------------ */

static struct plan default_plan(const char *name)
{
    struct plan p = {.zone_name = "UTC",
                     .period = PERIOD_MONTH,
                     .at_limit = AT_LIMIT_ALLOW,
                     .alert_percents = {0},
                     .credit_until = PERIOD_YEAR,
                     .spike_action = SPIKE_SLOW};
    snprintf(p.name, sizeof p.name, "%s", name);
    return p;
}

static int build_plan(struct plan *p, cfg_t *section, struct err *e)
{
    char name[PLAN_NAME_MAX + 1];
    const char *title = cfg_title(section);
    if (!*title || parse_name(slice_str(title), name) < 0)
        return err_set(e, "%s: plan %s: a name has 1 to %d printable characters without spaces",
                       reading->file, log_esc(slice_str(title)), PLAN_NAME_MAX);
    *p = default_plan(name);
    for (size_t i = 0; i < OPTION_COUNT; i++)
        for (unsigned k = 0; k < cfg_size(section, options[i].name); k++)
            if (options[i].set(p, slice_str(cfg_getnstr(section, options[i].name, k))) < 0)
                panic("a value of %s that was checked", options[i].name);
    if (!cfg_size(section, "alerts"))
        memcpy(p->alert_percents, (const uint8_t[]){80, 90, 100}, 3);
    if (p->period == PERIOD_NONE && (p->messages || p->bytes) && p->at_limit == AT_LIMIT_SURCHARGE)
        return err_set(e, "%s: plan %s: a plan without a period has nothing to surcharge by",
                       reading->file, p->name);
    if (p->overage_bytes && !p->bytes)
        return err_set(e,
                       "%s: plan %s: overage: blocks of bytes need a limit in bytes; give a "
                       "number of messages, such as block:1000, or set bytes",
                       reading->file, p->name);
    if (p->overage_block && p->bytes && !p->messages)
        p->overage_bytes = true; /* a number without a unit is of what the plan limits */
    if (p->credit_unit && p->credit_until == PERIOD_NONE)
        return err_set(e, "%s: plan %s: credit_until must be day, week, month or year",
                       reading->file, p->name);
    return 0;
}

static int build_all(cfg_t *cfg, struct plans *out, struct err *e)
{
    unsigned n = cfg_size(cfg, "plan");
    if (n > PLANS_MAX)
        return err_set(e, "%s: more than %d plans", reading->file, PLANS_MAX);
    out->list = xcalloc(n ? n : 1, sizeof *out->list);
    for (; out->count < n; out->count++)
        if (build_plan(&out->list[out->count], cfg_getnsec(cfg, "plan", (unsigned)out->count), e) <
            0)
            return -1;
    return 0;
}

static int read_all(const char *text, struct plans *out, struct err *e)
{
    cfg_opt_t plan_options[OPTION_COUNT + 1];
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        cfg_opt_t single = CFG_STR(NULL, NULL, CFGF_NODEFAULT);
        cfg_opt_t list = CFG_STR_LIST(NULL, NULL, CFGF_NODEFAULT);
        plan_options[i] = options[i].list ? list : single;
        plan_options[i].name = options[i].name;
        plan_options[i].validcb = on_value;
    }
    plan_options[OPTION_COUNT] = (cfg_opt_t)CFG_END();
    cfg_opt_t all[] = {CFG_SEC("plan", plan_options, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
                       CFG_END()};
    cfg_t *cfg = cfg_init(all, CFGF_NONE);
    if (!cfg)
        panic("no memory for a configuration");
    cfg_set_error_function(cfg, on_error);
    int rc = cfg_parse_buf(cfg, text) == CFG_SUCCESS ? build_all(cfg, out, e) : -1;
    if (rc < 0 && !reading->failed && !e->text[0])
        err_set(e, "%s: is not readable as a configuration", reading->file);
    cfg_free(cfg);
    return rc;
}

int plans_parse(struct slice text, const char *file, plan_zone_lookup *lookup, void *arg,
                struct plans *out, struct err *e)
{
    struct err ours = {0, ""};
    struct reading r = {.lookup = lookup, .lookup_arg = arg, .file = file, .e = &ours};
    *out = (struct plans){NULL, 0};
    if (conf_text_check(text, PLANS_FILE_MAX, file, e) < 0)
        return -1;
    char *copy = slice_dup(text);
    conf_text_blank(copy);
    reading = &r;
    int rc = read_all(copy, out, &ours);
    reading = NULL;
    free(copy);
    if (rc == 0)
        return 0;
    plans_free(out);
    return err_set(e, "%s", ours.text);
}

void plans_free(struct plans *p)
{
    xfree(&p->list);
    p->count = 0;
}

const struct plan *plans_find(const struct plans *p, struct slice name)
{
    for (size_t i = 0; i < p->count; i++)
        if (slice_eq(slice_str(p->list[i].name), name))
            return &p->list[i];
    return NULL;
}

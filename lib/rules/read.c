/* From the text of providers.conf, by libconfuse, to a set. */
#include <arpa/inet.h>
#include <confuse.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/log.h"
#include "core/mem.h"
#include "rules/lines.h"
#include "rules/set.h"

/* libconfuse takes the end of the text for the end of an open section, so a last
 * assignment is added that is known outside of sections only. */
#define END_MARK "end-of-file"

static cfg_opt_t *options(void)
{
#define LIMITS                                                                                     \
    CFG_INT("connections", 0, CFGF_NODEFAULT), CFG_INT("start_connections", 0, CFGF_NODEFAULT),    \
        CFG_STR("message_rate", NULL, CFGF_NODEFAULT),                                             \
        CFG_STR("start_rate", NULL, CFGF_NODEFAULT),                                               \
        CFG_STR("connection_rate", NULL, CFGF_NODEFAULT),                                          \
        CFG_INT("messages_per_connection", 0, CFGF_NODEFAULT),                                     \
        CFG_INT("recipients_per_message", 0, CFGF_NODEFAULT),                                      \
        CFG_INT("account_connections", 0, CFGF_NODEFAULT),                                         \
        CFG_INT("account_connections_max", 0, CFGF_NODEFAULT),                                     \
        CFG_STR("account_message_rate", NULL, CFGF_NODEFAULT),                                     \
        CFG_INT("daily_cap", 0, CFGF_NODEFAULT), CFG_INT("cold_daily_cap", 0, CFGF_NODEFAULT),     \
        CFG_STR("cold_message_rate", NULL, CFGF_NODEFAULT),                                        \
        CFG_STR("idle_time", NULL, CFGF_NODEFAULT), CFG_STR("tls", NULL, CFGF_NODEFAULT), TOTALS
#define TOTALS                                                                                     \
    CFG_INT("total_connections", 0, CFGF_NODEFAULT),                                               \
        CFG_STR("total_message_rate", NULL, CFGF_NODEFAULT),                                       \
        CFG_STR("total_connection_rate", NULL, CFGF_NODEFAULT)
#define OVERRIDE CFG_BOOL("override", cfg_false, CFGF_NONE)
    enum { TITLED = CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES };
    static cfg_opt_t source[] = {LIMITS, CFG_END()};
    static cfg_opt_t place[] = {LIMITS, CFG_SEC("source", source, TITLED), OVERRIDE, CFG_END()};
    static cfg_opt_t everyone[] = {LIMITS, CFG_SEC("source", source, TITLED), OVERRIDE, CFG_END()};
    static cfg_opt_t provider[] = {LIMITS,
                                   OVERRIDE,
                                   CFG_SEC("source", source, TITLED),
                                   CFG_STR_LIST("mx", NULL, CFGF_NODEFAULT),
                                   CFG_STR_LIST("hosts", NULL, CFGF_NODEFAULT),
                                   CFG_STR_LIST("domains", NULL, CFGF_NODEFAULT),
                                   CFG_END()};
    static cfg_opt_t rule[] = {CFG_STR("provider", NULL, CFGF_NODEFAULT),
                               CFG_STR_LIST("stage", NULL, CFGF_NODEFAULT),
                               CFG_STR("code", NULL, CFGF_NODEFAULT),
                               CFG_STR("status", NULL, CFGF_NODEFAULT),
                               CFG_STR("text", NULL, CFGF_NODEFAULT),
                               CFG_STR("dimension", NULL, CFGF_NODEFAULT),
                               CFG_STR("scope", "source", CFGF_NONE),
                               CFG_STR("action", "note", CFGF_NONE),
                               CFG_STR("outcome", NULL, CFGF_NODEFAULT),
                               CFG_BOOL("alert", cfg_false, CFGF_NONE),
                               CFG_BOOL("fallback", cfg_false, CFGF_NONE),
                               CFG_BOOL("greylist", cfg_false, CFGF_NONE),
                               CFG_FLOAT("factor", 0, CFGF_NODEFAULT),
                               CFG_STR("value", NULL, CFGF_NODEFAULT),
                               CFG_STR("for", NULL, CFGF_NODEFAULT),
                               CFG_STR("retry_after", NULL, CFGF_NODEFAULT),
                               CFG_INT("after", 0, CFGF_NODEFAULT),
                               CFG_STR("within", NULL, CFGF_NODEFAULT),
                               CFG_FLOAT("fraction", 0, CFGF_NODEFAULT),
                               CFG_INT("samples", 0, CFGF_NODEFAULT),
                               CFG_STR_LIST("matches", NULL, CFGF_NODEFAULT),
                               CFG_STR_LIST("passes", NULL, CFGF_NODEFAULT),
                               CFG_END()};
    static cfg_opt_t top[] = {CFG_STR_LIST("include", NULL, CFGF_NODEFAULT),
                              CFG_SEC("default", everyone, CFGF_MULTI),
                              CFG_SEC("provider", provider, TITLED),
                              CFG_SEC("site", place, TITLED),
                              CFG_SEC("domain", place, TITLED),
                              CFG_SEC("rule", rule, TITLED),
                              CFG_BOOL(END_MARK, cfg_false, CFGF_NONE),
                              CFG_END()};
#undef LIMITS
#undef TOTALS
#undef OVERRIDE
    return top;
}

/* libconfuse reports errors through a function without an argument. */
static struct {
    const char *file;
    const char *text; /* of it, without comments */
    struct err *e;
    bool failed;
} reading;

static void on_error(cfg_t *cfg, const char *format, va_list args)
{
    char text[300];
    if (reading.failed)
        return;
    reading.failed = true;
    vsnprintf(text, sizeof text, format, args);
    if (strstr(text, END_MARK)) {
        err_set(reading.e,
                "%s:%d: what begins in this line is open at the end of the file: a } is missing",
                reading.file, rules_set_lines(NULL, reading.text));
        return;
    }
    err_set(reading.e, "%s:%d: %s", reading.file, cfg ? cfg->line : 0,
            log_esc_n(slice_str(text), 280));
}

static int bad(const cfg_t *section, struct err *e, const char *what, const char *value)
{
    return err_set(e, "%s:%d: %s %s \"%s\": %s", reading.file, section->line, section->name,
                   section->title ? section->title : "", value ? value : "", what);
}

/* ---- limits ------------------------------------------------------------------ */

static int take_count(cfg_t *s, const char *name, uint32_t *out, struct err *e)
{
    if (cfg_size(s, name) == 0)
        return 0;
    long n = cfg_getint(s, name);
    if (n < 1 || n > 1000000000)
        return bad(s, e, "must be from 1 to 1000000000", name);
    *out = (uint32_t)n;
    return 0;
}

static int take_rate(cfg_t *s, const char *name, double *out, struct err *e)
{
    const char *text = cfg_size(s, name) ? cfg_getstr(s, name) : NULL;
    if (!text || rules_parse_rate(text, out) == 0)
        return 0;
    return bad(s, e, "a rate is written as 20/s, 100/min, 1000/h or 50000/d, and is at least 0.1/d",
               text);
}

static int take_time(cfg_t *s, const char *name, int64_t *out, struct err *e)
{
    const char *text = cfg_size(s, name) ? cfg_getstr(s, name) : NULL;
    if (!text || rules_parse_time(text, out) == 0)
        return 0;
    return bad(s, e, "a time is written as 500ms, 90s, 5m, 2h or 7d", text);
}

/* The position of `word` in a NULL-terminated list, or -1. */
static int word_in(const char *const *words, const char *word)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

static int take_limits(cfg_t *s, struct rules_limits *l, struct err *e)
{
    static const char *const levels[] = {"", "none", "may", "encrypt", NULL};
    const char *tls = cfg_size(s, "tls") ? cfg_getstr(s, "tls") : NULL;
    int level = tls ? word_in(levels, tls) : 0;
    if (level < 0 || (tls && level == 0))
        return bad(s, e, "tls is one of none, may, encrypt", tls);
    l->tls = (enum rules_tls)level;
    if (take_count(s, "connections", &l->connections, e) < 0 ||
        take_count(s, "start_connections", &l->start_connections, e) < 0 ||
        take_count(s, "messages_per_connection", &l->messages_per_connection, e) < 0 ||
        take_count(s, "recipients_per_message", &l->recipients_per_message, e) < 0 ||
        take_count(s, "account_connections", &l->account_connections, e) < 0 ||
        take_count(s, "account_connections_max", &l->account_connections_max, e) < 0 ||
        take_rate(s, "account_message_rate", &l->account_message_rate, e) < 0 ||
        take_count(s, "daily_cap", &l->daily_cap, e) < 0 ||
        take_count(s, "cold_daily_cap", &l->cold_daily_cap, e) < 0 ||
        take_rate(s, "cold_message_rate", &l->cold_message_rate, e) < 0 ||
        take_rate(s, "message_rate", &l->message_rate, e) < 0 ||
        take_rate(s, "start_rate", &l->start_rate, e) < 0 ||
        take_rate(s, "connection_rate", &l->connection_rate, e) < 0 ||
        take_time(s, "idle_time", &l->idle_time, e) < 0)
        return -1;
    if (l->message_rate > 0 && l->start_rate > l->message_rate)
        return bad(s, e, "start_rate is above message_rate", "");
    if (l->connections > 0 && l->start_connections > l->connections)
        return bad(s, e, "start_connections is above connections", "");
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
            return bad(s, e,
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
            return bad(s, e, "counts over all source addresses: write it outside of source",
                       names[i]);
    for (int i = 0; totals[i]; i++)
        if (cfg_size(s, totals[i]))
            return bad(s, e, "is over all source addresses: write it outside of source", totals[i]);
    return 0;
}

static int take_totals(cfg_t *s, struct rules_limits *l, struct err *e)
{
    if (take_count(s, "total_connections", &l->total_connections, e) < 0 ||
        take_rate(s, "total_message_rate", &l->total_message_rate, e) < 0 ||
        take_rate(s, "total_connection_rate", &l->total_connection_rate, e) < 0)
        return -1;
    return 0;
}

static char *lower(const char *text)
{
    char *copy = xstrdup(text);
    for (char *p = copy; *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p + 32);
    return copy;
}

static char **take_list(cfg_t *s, const char *name)
{
    unsigned n = cfg_size(s, name);
    char **list = xcalloc(n + 1UL, sizeof *list);
    for (unsigned i = 0; i < n; i++)
        list[i] = lower(cfg_getnstr(s, name, i));
    return list;
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
            return bad(source, e, "is not an IPv4 or IPv6 address", "");
        out->sources[i].address = address;
        out->source_count++;
        for (unsigned k = 0; k < i; k++)
            if (strcmp(out->sources[k].address, address) == 0)
                return bad(source, e, "this address was used before in the section", "");
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

static struct section *append(struct section_list *list, cfg_t *s, enum section_kind kind)
{
    list->list = xreallocarray(list->list, list->count + 1, sizeof *list->list);
    struct section *out = &list->list[list->count++];
    *out = (struct section){.name = lower(kind == SECTION_DEFAULT ? "" : cfg_title(s)),
                            .kind = kind,
                            .file = reading.file,
                            .line = s->line};
    return out;
}

static int add_section(struct rules *r, struct section_list *list, enum section_kind kind, cfg_t *s,
                       struct err *e)
{
    const char *title = cfg_title(s);
    if (strlen(title) == 0 || strlen(title) > 255)
        return bad(s, e, "a name has 1 to 255 characters", "");
    for (size_t i = 0; i < list->count && !overrides(s); i++)
        if (strcasecmp(list->list[i].name, title) == 0)
            return bad(s, e,
                       "this name was used before; with override = true a section changes that of "
                       "a file which its own file includes",
                       list->list[i].file);
    list = overrides(s) ? &r->overrides : list;
    if (list->count == RULES_PROVIDERS_MAX)
        return bad(s, e, "too many sections", "");
    struct section *out = append(list, s, kind);
    if (take_limits(s, &out->limits, e) < 0 || take_sources(s, out, e) < 0)
        return -1;
    if (strcmp(s->name, "provider") != 0)
        return refuse_totals(s, e);
    if (take_totals(s, &out->limits, e) < 0)
        return -1;
    out->mx = take_list(s, "mx");
    out->hosts = take_list(s, "hosts");
    out->domains = take_list(s, "domains");
    if (!overrides(s) && !out->mx[0] && !out->hosts[0] && !out->domains[0])
        return bad(s, e, "says by which mx, hosts or domains it is recognised", "");
    return 0;
}

/* ---- rules -------------------------------------------------------------------- */

static int compile(cfg_t *s, const char *name, pcre2_code **out, struct err *e)
{
    const char *pattern = cfg_size(s, name) ? cfg_getstr(s, name) : NULL;
    int number;
    PCRE2_SIZE offset;
    if (!pattern)
        return 0;
    if (strlen(pattern) > RULES_PATTERN_MAX)
        return bad(s, e, "the pattern is too long", name);
    *out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                         PCRE2_CASELESS | PCRE2_NEVER_BACKSLASH_C, &number, &offset, NULL);
    if (!*out) {
        PCRE2_UCHAR text[128];
        char what[200];
        pcre2_get_error_message(number, text, sizeof text);
        snprintf(what, sizeof what, "pattern, at character %zu: %s", offset + 1, text);
        return bad(s, e, what, name);
    }
    (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* without it the interpreter serves */
    return 0;
}

static int take_word(cfg_t *s, const char *name, const char *const *words, const char *says,
                     unsigned *out, struct err *e)
{
    const char *word = cfg_size(s, name) ? cfg_getstr(s, name) : NULL;
    if (!word)
        return 0;
    int at = word_in(words, word);
    if (at < 0)
        return bad(s, e, says, word);
    *out = (unsigned)at;
    return 0;
}

static int take_stages(cfg_t *s, uint32_t *out, struct err *e)
{
    for (unsigned i = 0; i < cfg_size(s, "stage"); i++) {
        const char *word = cfg_getnstr(s, "stage", i);
        uint32_t bit = 0;
        for (unsigned k = RULES_CONNECT; k <= RULES_DOT; k++)
            if (strcmp(word, rules_stage_name(k)) == 0)
                bit = 1u << k;
        if (!bit)
            return bad(
                s, e, "a stage is connect, greeting, ehlo, starttls, auth, mail, rcpt, data or dot",
                word);
        *out |= bit;
    }
    return 0;
}

static int take_words(cfg_t *s, struct rule *r, struct err *e)
{
    static const char *const dimensions[] = {
        "none",   "concurrency",     "rate", "messages_per_connection",
        "volume", "connection_rate", NULL};
    static const char *const scopes[] = {"recipient", "account",  "dkim",
                                         "source",    "provider", NULL};
    static const char *const actions[] = {"note", "slow", "set", "suspend", "switch", NULL};
    static const char *const outcomes[] = {"as_replied", "retry", "fail", NULL};
    unsigned dimension = 0, scope = 0, action = 0, outcome = 0;
    if (take_stages(s, &r->stages, e) < 0 ||
        take_word(s, "dimension", dimensions,
                  "dimension is one of concurrency, rate, messages_per_connection, volume, "
                  "connection_rate",
                  &dimension, e) < 0 ||
        take_word(s, "scope", scopes, "scope is one of recipient, account, dkim, source, provider",
                  &scope, e) < 0 ||
        take_word(s, "action", actions, "action is one of note, slow, set, suspend, switch",
                  &action, e) < 0 ||
        take_word(s, "outcome", outcomes, "outcome is one of as_replied, retry, fail", &outcome,
                  e) < 0)
        return -1;
    r->dimension = (enum rules_dimension)dimension;
    r->scope = (enum rules_scope)scope;
    r->action = (enum rules_action)action;
    r->outcome = (enum rules_outcome)outcome;
    r->alert = cfg_getbool(s, "alert") == cfg_true;
    r->fallback = cfg_getbool(s, "fallback") == cfg_true;
    r->greylist = cfg_getbool(s, "greylist") == cfg_true;
    return 0;
}

static int take_numbers(cfg_t *s, struct rule *r, struct err *e)
{
    uint32_t after = 0, samples = 0;
    if (take_count(s, "after", &after, e) < 0 || take_count(s, "samples", &samples, e) < 0 ||
        take_rate(s, "value", &r->value, e) < 0 || take_time(s, "for", &r->time, e) < 0 ||
        take_time(s, "within", &r->period, e) < 0 ||
        take_time(s, "retry_after", &r->retry_after, e) < 0)
        return -1;
    r->after = after;
    r->samples = samples;
    r->factor = cfg_size(s, "factor") ? cfg_getfloat(s, "factor") : 0;
    r->fraction = cfg_size(s, "fraction") ? cfg_getfloat(s, "fraction") : 0;
    if (cfg_size(s, "factor") && !(r->factor > 0 && r->factor < 1))
        return bad(s, e, "factor is between 0 and 1", "");
    if (cfg_size(s, "fraction") && !(r->fraction > 0 && r->fraction <= 1))
        return bad(s, e, "fraction is above 0 and at most 1", "");
    return 0;
}

/* What would have no effect is a mistake. */
static int check_ignored(cfg_t *s, const struct rule *r, struct err *e)
{
    if (r->factor > 0 && r->action != RULES_SLOW)
        return bad(s, e, "factor goes with action = \"slow\" alone", "");
    if (r->value > 0 && r->action != RULES_SET)
        return bad(s, e, "value goes with action = \"set\" alone", "");
    if (cfg_size(s, "for") && r->action != RULES_SUSPEND && r->action != RULES_SWITCH)
        return bad(s, e, "for goes with action = \"suspend\" or \"switch\" alone", "");
    if (r->samples > 0 && r->fraction <= 0)
        return bad(s, e, "samples goes with fraction alone", "");
    if (r->period > 0 && r->after == 0 && r->fraction <= 0)
        return bad(s, e, "within goes with after or fraction alone", "");
    bool count = r->dimension == RULES_CONCURRENCY || r->dimension == RULES_MESSAGES;
    if (r->action == RULES_SET && count && (r->value < 1 || r->value > floor(r->value)))
        return bad(s, e, "value is a number of connections or messages here, such as 5", "");
    if (r->action == RULES_SET && r->dimension == RULES_VOLUME)
        return bad(s, e, "a volume cannot be set: suspend, or slow (it is waited for)", "");
    if (r->factor > 0 && r->dimension != RULES_RATE && r->dimension != RULES_CONCURRENCY &&
        r->dimension != RULES_CONNECTION_RATE)
        return bad(s, e, "factor goes with rate, concurrency and connection_rate", "");
    return 0;
}

/* What goes with what. */
static int check_rule(cfg_t *s, const struct rule_inside *in, struct err *e)
{
    const struct rule *r = &in->rule;
    if (!in->code && !in->enhanced && !in->text)
        return bad(s, e, "has no code, status or text to match", "");
    if ((r->action == RULES_SLOW || r->action == RULES_SET) && !r->dimension)
        return bad(s, e, "slow and set need a dimension", "");
    if (r->action == RULES_SET && r->value <= 0)
        return bad(s, e, "set needs a value", "");
    if ((r->action == RULES_SUSPEND || r->action == RULES_SWITCH) && r->time <= 0)
        return bad(s, e, "suspend and switch need a time: for", "");
    bool of_sender = r->scope == RULES_OF_ACCOUNT || r->scope == RULES_OF_DKIM;
    if (of_sender && r->action == RULES_SWITCH)
        return bad(s, e,
                   "switch is about the source: scope = \"account\" or \"dkim\" takes slow, "
                   "set or suspend",
                   "");
    if (r->scope == RULES_OF_PROVIDER && r->action == RULES_SWITCH)
        return bad(s, e,
                   "switch is about the source: scope = \"provider\" takes slow, set or suspend",
                   "");
    if (of_sender && (r->action == RULES_SLOW || r->action == RULES_SET) &&
        r->dimension != RULES_RATE)
        return bad(s, e, "an account or domain is slowed in its rate: dimension = \"rate\"", "");
    if (r->scope == RULES_OF_RECIPIENT && r->action != RULES_NOTE)
        return bad(s, e, "a reply about the recipient cannot change limits", "");
    if (r->greylist && (r->scope != RULES_OF_RECIPIENT || r->retry_after <= 0))
        return bad(s, e, "greylist needs scope = \"recipient\" and retry_after", "");
    bool attempts = r->scope == RULES_OF_RECIPIENT && r->outcome == RULES_FAIL;
    if (r->after > 0 && r->period <= 0 && !attempts)
        return bad(s, e, "after needs a period: within", "");
    if (r->fraction > 0 && r->samples == 0)
        return bad(s, e, "fraction needs samples", "");
    if (check_ignored(s, r, e) < 0)
        return -1;
    bool any = false;
    for (size_t i = 0; i < in->sample_count; i++)
        any |= in->samples[i].must_match;
    return any ? 0 : bad(s, e, "needs at least one sample that it matches", "");
}

static int take_samples(cfg_t *s, struct rule_inside *out, struct err *e)
{
    static const char *const names[] = {"matches", "passes"};
    unsigned n = cfg_size(s, "matches") + cfg_size(s, "passes");
    if (n > RULES_SAMPLES_MAX)
        return bad(s, e, "too many samples", "");
    out->samples = xcalloc(n ? n : 1, sizeof *out->samples);
    for (int k = 0; k < 2; k++)
        for (unsigned i = 0; i < cfg_size(s, names[k]); i++) {
            struct rules_reply reply;
            const char *text = cfg_getnstr(s, names[k], i);
            if (rules_parse_reply(slice_str(text), &reply) < 0)
                return bad(s, e, "a sample begins with a reply code such as 421", text);
            out->samples[out->sample_count++] = (struct sample){xstrdup(text), k == 0};
        }
    return 0;
}

static int add_rule(struct rules *r, cfg_t *s, struct err *e)
{
    const char *title = cfg_title(s);
    if (strlen(title) == 0 || strlen(title) > RULES_NAME_MAX)
        return bad(s, e, "a rule's name has 1 to 64 characters", "");
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->list[i].name, title) == 0)
            return bad(s, e, "this name was used before", r->list[i].rule.file);
    if (r->count == RULES_MAX)
        return bad(s, e, "too many rules", "");
    r->list = xreallocarray(r->list, r->count + 1, sizeof *r->list);
    struct rule_inside *out = &r->list[r->count++];
    *out = (struct rule_inside){.name = xstrdup(title)};
    out->rule = (struct rule){.name = out->name, .file = reading.file, .line = s->line};
    const char *provider = cfg_size(s, "provider") ? cfg_getstr(s, "provider") : NULL;
    out->provider_name = provider ? lower(provider) : NULL;
    if (take_words(s, &out->rule, e) < 0 || take_numbers(s, &out->rule, e) < 0 ||
        compile(s, "code", &out->code, e) < 0 || compile(s, "status", &out->enhanced, e) < 0 ||
        compile(s, "text", &out->text, e) < 0 || take_samples(s, out, e) < 0)
        return -1;
    return check_rule(s, out, e);
}

/* ---- a file --------------------------------------------------------------------- */

static int take_includes(struct rules *r, cfg_t *top, struct err *e)
{
    for (unsigned i = 0; i < cfg_size(top, "include"); i++) {
        const char *name = cfg_getnstr(top, "include", i);
        int line = rules_include_line(reading.text, name);
        for (size_t k = 0; k < r->file_count; k++)
            if (strcmp(r->files[k], name) == 0)
                return err_set(e, "%s:%d: include \"%s\": it was read before", reading.file, line,
                               log_esc_n(slice_str(name), 200));
        if (r->file_count == RULES_FILES_MAX)
            return err_set(e, "%s:%d: include: more than %d files", reading.file, line,
                           RULES_FILES_MAX);
        r->includers[r->file_count] = (struct includer){reading.file, line};
        r->files[r->file_count++] = xstrdup(name);
    }
    return 0;
}

/* One of them, in whatever file: of two, one would hold for what both say. */
static int take_default(struct rules *r, cfg_t *s, struct err *e)
{
    struct section *out = &r->everyone;
    if (overrides(s) && r->overrides.count == RULES_PROVIDERS_MAX)
        return err_set(e, "%s:%d: default: too many sections", reading.file, s->line);
    for (size_t i = 0; i < r->overrides.count && overrides(s); i++)
        if (r->overrides.list[i].kind == SECTION_DEFAULT &&
            strcmp(r->overrides.list[i].file, reading.file) == 0)
            return err_set(e, "%s:%d: default: there is one already in line %d; write both as one",
                           reading.file, s->line, r->overrides.list[i].line);
    if (!overrides(s) && out->file)
        return err_set(e,
                       "%s:%d: default: there is one already (%s:%d); write both as one, or "
                       "override = true in that of the file which includes the other",
                       reading.file, s->line, out->file, out->line);
    if (overrides(s))
        out = append(&r->overrides, s, SECTION_DEFAULT);
    out->file = reading.file;
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
        if (add_rule(r, cfg_getnsec(top, "rule", i), e) < 0)
            return -1;
    return take_includes(r, top, e);
}

int rules_read_text(struct rules *r, const char *file, const char *text, struct err *e)
{
    cfg_t *top = cfg_init(options(), CFGF_NONE);
    if (!top)
        return err_set(e, "%s: out of memory", file);
    reading.file = file;
    reading.e = e;
    reading.failed = false;
    cfg_set_error_function(top, on_error);
    struct buf whole = BUF_INIT(RULES_TEXT_MAX + 64);
    int rc = buf_addstr(&whole, text);
    if (rc == 0)
        rc = buf_add(&whole, "\n" END_MARK " = true\n", sizeof "\n" END_MARK " = true\n");
    if (rc == 0)
        rules_strip_comments(whole.data);
    reading.text = whole.data;
    rc = rc == 0 ? cfg_parse_buf(top, whole.data) : CFG_PARSE_ERROR;
    if (rc == CFG_SUCCESS)
        (void)rules_set_lines(top, whole.data);
    if (rc != CFG_SUCCESS && !reading.failed)
        err_set(e, "%s: cannot be parsed", file);
    rc = rc == CFG_SUCCESS && !reading.failed ? take_all(r, top, e) : -1;
    buf_free(&whole);
    cfg_free(top);
    return rc;
}

/* A set of rules and limits: loading, finding, matching. */
#include "rules/rules.h"

#include <stdlib.h>

#include "core/mem.h"
#include "rules/set.h"

/* ---- life -------------------------------------------------------------------- */

static void list_free(char **list)
{
    for (size_t i = 0; list && list[i]; i++)
        free(list[i]);
    free(list);
}

static void section_free(struct section *s)
{
    free(s->name);
    list_free(s->mx);
    list_free(s->hosts);
    list_free(s->domains);
    for (size_t i = 0; i < s->source_count; i++)
        free(s->sources[i].address);
    free(s->sources);
}

static void rule_free(struct rule_inside *r)
{
    free(r->name);
    free(r->provider_name);
    pcre2_code_free(r->code);
    pcre2_code_free(r->enhanced);
    pcre2_code_free(r->text);
    for (size_t i = 0; i < r->sample_count; i++)
        free(r->samples[i].text);
    free(r->samples);
}

void rules_free(struct rules *r)
{
    if (!r)
        return;
    struct section_list *lists[] = {&r->providers, &r->sites, &r->domains, &r->overrides};
    for (size_t i = 0; i < r->told_count; i++)
        free(r->told[i]);
    free(r->told);
    for (size_t k = 0; k < sizeof lists / sizeof lists[0]; k++) {
        for (size_t i = 0; i < lists[k]->count; i++)
            section_free(&lists[k]->list[i]);
        free(lists[k]->list);
    }
    section_free(&r->everyone);
    for (size_t i = 0; i < r->count; i++)
        rule_free(&r->list[i]);
    free(r->list);
    for (size_t i = 0; i < r->file_count; i++)
        free(r->files[i]);
    pcre2_match_data_free(r->match);
    pcre2_match_context_free(r->context);
    free(r);
}

/* Every rule's provider must be there, in whatever file. */
static int bind_providers(struct rules *r, struct err *e)
{
    for (size_t i = 0; i < r->count; i++) {
        struct rule_inside *in = &r->list[i];
        if (!in->provider_name)
            continue;
        for (size_t k = 0; k < r->providers.count; k++)
            if (strcmp(r->providers.list[k].name, in->provider_name) == 0)
                in->rule.provider = (unsigned)k + 1;
        if (!in->rule.provider)
            return err_set(e, "%s:%d: rule %s: there is no provider \"%s\"", in->rule.file,
                           in->rule.line, in->name, in->provider_name);
    }
    return 0;
}

/* ---- reading ---- */

static int read_all(struct rules *r, rules_reader *reader, void *arg, struct err *e)
{
    while (r->files_read < r->file_count) {
        const struct includer *by = &r->includers[r->files_read];
        const char *file = r->files[r->files_read++];
        struct buf text = BUF_INIT(RULES_TEXT_MAX + 1);
        int rc = reader(file, &text, arg, e);
        if (rc < 0 && by->file)
            err_prefix(e, "%s:%d: include", by->file, by->line);
        if (rc == 0)
            rc = rules_read_text(r, file, buf_slice(&text), e);
        buf_free(&text);
        if (rc < 0)
            return -1;
    }
    if (rules_apply_overrides(r, e) < 0)
        return -1;
    return bind_providers(r, e) < 0 ? -1 : rules_check_marks(r, e);
}

struct rules *rules_load(const char *name, rules_reader *reader, void *arg, struct err *e)
{
    struct rules *r = xcalloc(1, sizeof *r);
    r->files[r->file_count++] = xstrdup(name);
    r->context = pcre2_match_context_create(NULL);
    r->match = pcre2_match_data_create(1, NULL);
    if (!r->context || !r->match)
        panic("out of memory");
    pcre2_set_match_limit(r->context, RULES_PCRE_MATCH_LIMIT);
    pcre2_set_depth_limit(r->context, RULES_PCRE_DEPTH_LIMIT);
    pcre2_set_heap_limit(r->context, RULES_PCRE_HEAP_LIMIT);
    if (read_all(r, reader, arg, e) == 0)
        return r;
    rules_free(r);
    return NULL;
}

void rules_on_costly(struct rules *r, void (*costly)(const struct rule *rule, void *arg), void *arg)
{
    r->costly = costly;
    r->costly_arg = arg;
}

unsigned rules_count(const struct rules *r)
{
    return (unsigned)r->count;
}

const struct rule *rules_at(const struct rules *r, unsigned i)
{
    return i < r->count ? &r->list[i].rule : NULL;
}

unsigned rules_index(const struct rules *r, const struct rule *rule)
{
    /* a rule is the first member of its element */
    return (unsigned)((const struct rule_inside *)(const void *)rule - r->list);
}

unsigned rules_provider_index(const struct rules *r, const char *name)
{
    for (size_t i = 0; i < r->providers.count; i++)
        if (strcmp(r->providers.list[i].name, name) == 0)
            return (unsigned)i + 1;
    return 0;
}

const char *rules_override(const struct rules *r, unsigned i)
{
    return i < r->told_count ? r->told[i] : NULL;
}

unsigned rules_providers(const struct rules *r)
{
    return (unsigned)r->providers.count;
}

/* ---- places -------------------------------------------------------------------- */

static bool name_is(const char *name, struct slice s)
{
    return slice_caseeq(slice_str(name), s);
}

/* ".google.com" matches hosts below it, "google.com" itself as well. */
static bool suffix_is(const char *suffix, struct slice host)
{
    struct slice tail = slice_str(suffix);
    if (tail.len > 0 && tail.ptr[0] != '.' && slice_caseeq(tail, host))
        return true;
    if (tail.len == 0 || host.len <= tail.len ||
        !slice_caseeq(slice_from(host, host.len - tail.len), tail))
        return false;
    return tail.ptr[0] == '.' || host.ptr[host.len - tail.len - 1] == '.';
}

static bool any_is(char **list, struct slice s)
{
    for (size_t i = 0; list && list[i]; i++)
        if (name_is(list[i], s))
            return true;
    return false;
}

/* How much of a host the longest suffix of the list covers, with the dot before it; 0: none
 * matches. */
static size_t longest_suffix(char **list, struct slice host)
{
    size_t longest = 0;
    for (size_t i = 0; list && list[i]; i++) {
        size_t len = strlen(list[i]) + (list[i][0] != '.');
        if (suffix_is(list[i], host) && len > longest)
            longest = len;
    }
    return longest;
}

static const struct section *find(const struct section_list *list, struct slice name)
{
    for (size_t i = 0; i < list->count; i++)
        if (name_is(list->list[i].name, name))
            return &list->list[i];
    return NULL;
}

/* The provider whose list of hosts names it, else that with the longest suffix. */
static unsigned provider_of_host(const struct rules *r, struct slice host)
{
    const struct section_list *p = &r->providers;
    unsigned found = 0;
    size_t longest = 0;
    for (size_t i = 0; i < p->count; i++)
        if (any_is(p->list[i].hosts, host))
            return (unsigned)i + 1;
    for (size_t i = 0; i < p->count; i++) {
        size_t len = longest_suffix(p->list[i].mx, host);
        if (len > longest) {
            longest = len;
            found = (unsigned)i + 1;
        }
    }
    return found;
}

/* A domain's own entry first, then the best MX host that somebody knows. */
static unsigned find_provider(const struct rules *r, const struct slice *hosts, size_t count,
                              struct slice domain)
{
    const struct section_list *p = &r->providers;
    unsigned found = 0;
    for (size_t i = 0; i < p->count; i++)
        if (any_is(p->list[i].domains, domain))
            return (unsigned)i + 1;
    for (size_t h = 0; h < count && !found; h++)
        found = provider_of_host(r, hosts[h]);
    return found;
}

void rules_place(const struct rules *r, const struct slice *hosts, size_t count,
                 struct slice domain, struct rules_place *out)
{
    const struct section *s;
    *out = (struct rules_place){.provider_index = find_provider(r, hosts, count, domain)};
    if (out->provider_index)
        out->provider = r->providers.list[out->provider_index - 1].name;
    for (size_t h = 0; h < count && !out->site; h++)
        if ((s = find(&r->sites, hosts[h])))
            out->site = s->name;
    if ((s = find(&r->domains, domain)))
        out->domain = s->name;
}

void rules_inherit(struct rules_limits *to, const struct rules_limits *from)
{
#define TAKE(field)                                                                                \
    if (from->field != 0)                                                                          \
    to->field = from->field
    TAKE(message_rate);
    TAKE(start_rate);
    TAKE(connection_rate);
    TAKE(total_message_rate);
    TAKE(total_connection_rate);
    TAKE(total_connections);
    TAKE(connections);
    TAKE(account_connections);
    TAKE(account_connections_max);
    TAKE(account_message_rate);
    TAKE(start_connections);
    TAKE(messages_per_connection);
    TAKE(recipients_per_message);
    TAKE(daily_cap);
    TAKE(cold_daily_cap);
    TAKE(cold_message_rate);
    TAKE(idle_time);
    TAKE(tls);
#undef TAKE
}

static void inherit_section(struct rules_limits *to, const struct section *s, struct slice source)
{
    if (!s)
        return;
    rules_inherit(to, &s->limits);
    for (size_t i = 0; i < s->source_count; i++)
        if (name_is(s->sources[i].address, source))
            rules_inherit(to, &s->sources[i].limits);
}

void rules_limits(const struct rules *r, const struct rules_place *p, struct slice source,
                  struct rules_limits *out)
{
    *out = (struct rules_limits){0};
    inherit_section(out, &r->everyone, source);
    if (p->provider_index && p->provider_index <= r->providers.count)
        inherit_section(out, &r->providers.list[p->provider_index - 1], source);
    const uint32_t cap = out->daily_cap, cold_cap = out->cold_daily_cap;
    out->daily_cap = out->cold_daily_cap = 0;
    if (p->site)
        inherit_section(out, find(&r->sites, slice_str(p->site)), source);
    if (p->domain)
        inherit_section(out, find(&r->domains, slice_str(p->domain)), source);
    out->own_daily_cap = out->daily_cap > 0;
    out->own_cold_daily_cap = out->cold_daily_cap > 0;
    out->daily_cap = out->own_daily_cap ? out->daily_cap : cap;
    out->cold_daily_cap = out->own_cold_daily_cap ? out->cold_daily_cap : cold_cap;
    /* what is narrower may contradict what is wider: the bound holds */
    if (out->message_rate > 0 && out->start_rate > out->message_rate)
        out->start_rate = out->message_rate;
    if (out->connections > 0 && out->start_connections > out->connections)
        out->start_connections = out->connections;
}

void rules_limits_stricter(struct rules_limits *to, const struct rules_limits *other)
{
    if (other->daily_cap && (!to->daily_cap || other->daily_cap < to->daily_cap))
        to->own_daily_cap = other->own_daily_cap;
    if (other->cold_daily_cap &&
        (!to->cold_daily_cap || other->cold_daily_cap < to->cold_daily_cap))
        to->own_cold_daily_cap = other->own_cold_daily_cap;
#define LESS(field)                                                                                \
    if (other->field > 0 && (to->field <= 0 || other->field < to->field))                          \
    to->field = other->field
#define LESS_COUNT(field)                                                                          \
    if (other->field && (!to->field || other->field < to->field))                                  \
    to->field = other->field
    LESS(message_rate);
    LESS(start_rate);
    LESS(connection_rate);
    LESS(total_message_rate);
    LESS(total_connection_rate);
    LESS(account_message_rate);
    LESS(cold_message_rate);
    LESS(idle_time);
    LESS_COUNT(total_connections);
    LESS_COUNT(connections);
    LESS_COUNT(start_connections);
    LESS_COUNT(messages_per_connection);
    LESS_COUNT(recipients_per_message);
    LESS_COUNT(account_connections);
    LESS_COUNT(account_connections_max);
    LESS_COUNT(daily_cap);
    LESS_COUNT(cold_daily_cap);
#undef LESS
#undef LESS_COUNT
    to->tls = other->tls > to->tls ? other->tls : to->tls;
}

/* ---- matching ------------------------------------------------------------------- */

/* 1: matches; 0: does not, or was too costly. */
static bool pattern_matches(struct rules *r, const struct rule_inside *in, const pcre2_code *code,
                            struct slice subject)
{
    if (!code)
        return true;
    int rc = pcre2_match(code, (PCRE2_SPTR)(subject.ptr ? subject.ptr : ""), subject.len, 0, 0,
                         r->match, r->context);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH && r->costly)
        r->costly(&in->rule, r->costly_arg);
    return rc >= 0;
}

bool rule_matches_text(struct rules *r, const struct rule_inside *in,
                       const struct rules_reply *reply)
{
    char code[4] = {(char)('0' + reply->code / 100 % 10), (char)('0' + reply->code / 10 % 10),
                    (char)('0' + reply->code % 10), '\0'};
    return pattern_matches(r, in, in->code, slice_make(code, 3)) &&
           pattern_matches(r, in, in->enhanced, slice_first(reply->enhanced, 16)) &&
           pattern_matches(r, in, in->text, reply->text);
}

bool rule_matches(struct rules *r, const struct rule_inside *in, const struct rules_reply *reply)
{
    return (!in->rule.stages || in->rule.stages & 1u << reply->stage) &&
           rule_matches_text(r, in, reply);
}

/* What a rule without a factor leaves, about, where it is compared with one that has it. */
#define USUAL_FACTOR 0.5

static int compare(double a, double b)
{
    return a < b ? -1 : a > b;
}

/* How much two of the same action ask for: above 0 where a asks for more. */
static int compare_amount(const struct rule *a, const struct rule *b)
{
    if (a->action == RULES_SLOW)
        return compare(b->factor > 0 ? b->factor : USUAL_FACTOR,
                       a->factor > 0 ? a->factor : USUAL_FACTOR);
    if (a->action == RULES_SET)
        return a->dimension == b->dimension ? compare(b->value, a->value) : 0;
    return compare((double)a->time, (double)b->time);
}

/* A bounce cannot be taken back: of two outcomes that which keeps the mail holds. */
static int keeping(enum rules_outcome o)
{
    return o == RULES_RETRY ? 2 : o == RULES_AS_REPLIED;
}

bool rule_goes_before(const struct rule *a, const struct rule *b)
{
    if (a->action != b->action)
        return a->action > b->action;
    if (a->scope != b->scope)
        return a->scope > b->scope;
    int amount = compare_amount(a, b);
    if (amount != 0)
        return amount > 0;
    if (a->outcome != b->outcome)
        return keeping(a->outcome) > keeping(b->outcome);
    return a->retry_after > b->retry_after;
}

enum rank { RANK_OWN, RANK_EVERYONE, RANK_OWN_FALLBACK, RANK_FALLBACK, RANKS };

static enum rank rank_of(const struct rule *rule)
{
    if (rule->fallback)
        return rule->provider ? RANK_OWN_FALLBACK : RANK_FALLBACK;
    return rule->provider ? RANK_OWN : RANK_EVERYONE;
}

const struct rule *rules_match(struct rules *r, const struct rules_reply *reply)
{
    const struct rule *best = NULL;
    char subject[RULES_SUBJECT_MAX];
    struct rules_reply seen = *reply;
    seen.text = rules_subject(reply->text, subject);
    for (int rank = RANK_OWN; rank < RANKS && !best; rank++)
        for (size_t i = 0; i < r->count; i++) {
            const struct rule *rule = &r->list[i].rule;
            if ((int)rank_of(rule) != rank || (rule->provider && rule->provider != seen.provider))
                continue;
            if (rule_matches(r, &r->list[i], &seen) && (!best || rule_goes_before(rule, best)))
                best = rule;
        }
    return best;
}

/* A rule section of providers.conf. */
#include <math.h>
#include <stdio.h>

#include "core/mem.h"
#include "rules/read.h"

static int compile(cfg_t *s, const char *name, pcre2_code **out, struct err *e)
{
    const char *pattern = rules_given(s, name);
    int number;
    PCRE2_SIZE offset;
    if (!pattern)
        return 0;
    if (strlen(pattern) > RULES_PATTERN_MAX)
        return rules_bad(s, e, "the pattern is too long", name);
    *out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                         PCRE2_CASELESS | PCRE2_NEVER_BACKSLASH_C, &number, &offset, NULL);
    if (!*out) {
        PCRE2_UCHAR text[128];
        char what[200];
        pcre2_get_error_message(number, text, sizeof text);
        snprintf(what, sizeof what, "pattern, at character %zu: %s", offset + 1, text);
        return rules_bad(s, e, what, name);
    }
    (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* without it the interpreter serves */
    return 0;
}

static int take_word(cfg_t *s, const char *name, const char *const *words, const char *says,
                     unsigned *out, struct err *e)
{
    const char *word = rules_given(s, name);
    if (!word)
        return 0;
    int at = rules_word_in(words, word);
    if (at < 0)
        return rules_bad(s, e, says, word);
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
            return rules_bad(
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
    if (rules_take_count(s, "after", &after, e) < 0 ||
        rules_take_count(s, "samples", &samples, e) < 0 ||
        rules_take_rate(s, "value", &r->value, e) < 0 ||
        rules_take_time(s, "for", &r->time, e) < 0 ||
        rules_take_time(s, "within", &r->period, e) < 0 ||
        rules_take_time(s, "retry_after", &r->retry_after, e) < 0)
        return -1;
    r->after = after;
    r->samples = samples;
    const char *factor = rules_given(s, "factor"), *fraction = rules_given(s, "fraction");
    if (factor && (rules_parse_number(factor, &r->factor) < 0 || r->factor <= 0 || r->factor >= 1))
        return rules_bad_value(s, "factor", factor, "factor is between 0 and 1, such as 0.5", e);
    if (fraction &&
        (rules_parse_number(fraction, &r->fraction) < 0 || r->fraction <= 0 || r->fraction > 1))
        return rules_bad_value(s, "fraction", fraction,
                               "fraction is above 0 and at most 1, such as 0.2", e);
    return 0;
}

/* What would have no effect is a mistake. */
static int check_ignored(cfg_t *s, const struct rule *r, struct err *e)
{
    if (r->factor > 0 && r->action != RULES_SLOW)
        return rules_bad(s, e, "factor goes with action = \"slow\" alone", "");
    if (r->value > 0 && r->action != RULES_SET)
        return rules_bad(s, e, "value goes with action = \"set\" alone", "");
    if (cfg_size(s, "for") && r->action != RULES_SUSPEND && r->action != RULES_SWITCH)
        return rules_bad(s, e, "for goes with action = \"suspend\" or \"switch\" alone", "");
    if (r->samples > 0 && r->fraction <= 0)
        return rules_bad(s, e, "samples goes with fraction alone", "");
    if (r->period > 0 && r->after == 0 && r->fraction <= 0)
        return rules_bad(s, e, "within goes with after or fraction alone", "");
    bool count = r->dimension == RULES_CONCURRENCY || r->dimension == RULES_MESSAGES;
    if (r->action == RULES_SET && count && (r->value < 1 || r->value > floor(r->value)))
        return rules_bad(s, e, "value is a number of connections or messages here, such as 5", "");
    if (r->action == RULES_SET && r->dimension == RULES_VOLUME)
        return rules_bad(s, e, "a volume cannot be set: suspend, or slow (it is waited for)", "");
    if (r->factor > 0 && r->dimension != RULES_RATE && r->dimension != RULES_CONCURRENCY &&
        r->dimension != RULES_CONNECTION_RATE)
        return rules_bad(s, e, "factor goes with rate, concurrency and connection_rate", "");
    return 0;
}

/* What goes with what. */
static int check_rule(cfg_t *s, const struct rule_inside *in, struct err *e)
{
    const struct rule *r = &in->rule;
    if (!in->code && !in->enhanced && !in->text)
        return rules_bad(s, e, "has no code, status or text to match", "");
    if ((r->action == RULES_SLOW || r->action == RULES_SET) && !r->dimension)
        return rules_bad(s, e, "slow and set need a dimension", "");
    if (r->action == RULES_SET && r->value <= 0)
        return rules_bad(s, e, "set needs a value", "");
    if ((r->action == RULES_SUSPEND || r->action == RULES_SWITCH) && r->time <= 0)
        return rules_bad(s, e, "suspend and switch need a time: for", "");
    bool of_sender = r->scope == RULES_OF_ACCOUNT || r->scope == RULES_OF_DKIM;
    if (of_sender && r->action == RULES_SWITCH)
        return rules_bad(s, e,
                         "switch is about the source: scope = \"account\" or \"dkim\" takes slow, "
                         "set or suspend",
                         "");
    if (r->scope == RULES_OF_PROVIDER && r->action == RULES_SWITCH)
        return rules_bad(
            s, e, "switch is about the source: scope = \"provider\" takes slow, set or suspend",
            "");
    if (of_sender && (r->action == RULES_SLOW || r->action == RULES_SET) &&
        r->dimension != RULES_RATE)
        return rules_bad(s, e, "an account or domain is slowed in its rate: dimension = \"rate\"",
                         "");
    if (r->scope == RULES_OF_RECIPIENT && r->action != RULES_NOTE)
        return rules_bad(s, e, "a reply about the recipient cannot change limits", "");
    if (r->greylist && (r->scope != RULES_OF_RECIPIENT || r->retry_after <= 0))
        return rules_bad(s, e, "greylist needs scope = \"recipient\" and retry_after", "");
    bool attempts = r->scope == RULES_OF_RECIPIENT && r->outcome == RULES_FAIL;
    if (r->after > 0 && r->period <= 0 && !attempts)
        return rules_bad(s, e, "after needs a period: within", "");
    if (r->fraction > 0 && r->samples == 0)
        return rules_bad(s, e, "fraction needs samples", "");
    if (check_ignored(s, r, e) < 0)
        return -1;
    bool any = false;
    for (size_t i = 0; i < in->sample_count; i++)
        any |= in->samples[i].must_match;
    return any ? 0 : rules_bad(s, e, "needs at least one sample that it matches", "");
}

static int take_samples(cfg_t *s, struct rule_inside *out, struct err *e)
{
    static const char *const names[] = {"matches", "passes"};
    unsigned n = cfg_size(s, "matches") + cfg_size(s, "passes");
    if (n > RULES_SAMPLES_MAX)
        return rules_bad(s, e, "too many samples", "");
    out->samples = xcalloc(n ? n : 1, sizeof *out->samples);
    for (int k = 0; k < 2; k++)
        for (unsigned i = 0; i < cfg_size(s, names[k]); i++) {
            struct rules_reply reply;
            const char *text = cfg_getnstr(s, names[k], i);
            if (rules_parse_reply(slice_str(text), &reply) < 0)
                return rules_bad(s, e, "a sample begins with a reply code such as 421", text);
            out->samples[out->sample_count++] = (struct sample){xstrdup(text), k == 0};
        }
    return 0;
}

int rules_add_rule(struct rules *r, cfg_t *s, struct err *e)
{
    const char *title = cfg_title(s);
    if (strlen(title) == 0 || strlen(title) > RULES_NAME_MAX)
        return rules_bad(s, e, "a rule's name has 1 to 64 characters", "");
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->list[i].name, title) == 0)
            return rules_bad(s, e, "this name was used before", r->list[i].rule.file);
    if (r->count == RULES_MAX)
        return rules_bad(s, e, "too many rules", "");
    r->list = xreallocarray(r->list, r->count + 1, sizeof *r->list);
    struct rule_inside *out = &r->list[r->count++];
    *out = (struct rule_inside){.name = xstrdup(title)};
    out->rule = (struct rule){.name = out->name, .file = rules_reading.file, .line = s->line};
    const char *provider = rules_given(s, "provider");
    out->provider_name = provider ? rules_lower(provider) : NULL;
    if (take_words(s, &out->rule, e) < 0 || take_numbers(s, &out->rule, e) < 0 ||
        compile(s, "code", &out->code, e) < 0 || compile(s, "status", &out->enhanced, e) < 0 ||
        compile(s, "text", &out->text, e) < 0 || take_samples(s, out, e) < 0)
        return -1;
    return check_rule(s, out, e);
}

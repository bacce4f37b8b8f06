/* Trying the samples, and looking for contradictions. */
#include "core/log.h"
#include "rules/set.h"

struct checking {
    struct rules *rules;
    void (*say)(const char *text, bool error, void *arg);
    void *arg;
    unsigned errors;
};

static void finding(struct checking *c, const struct rule *r, bool error, const char *what,
                    const char *more)
{
    struct buf b = BUF_INIT(4096);
    buf_printf(&b, "%s:%d: rule %s: %s", r->file, r->line, r->name, what);
    if (more)
        buf_printf(&b, ": %s", log_esc_n(slice_str(more), 400));
    buf_addc(&b, '\0');
    c->errors += error;
    c->say(b.data, error, c->arg);
    buf_free(&b);
}

/* Samples have no stage: any that the rule has will do. */
static struct rules_reply reply_of(const struct rule_inside *in, const char *sample)
{
    struct rules_reply reply = {.stage = RULES_MAIL, .provider = in->rule.provider};
    for (unsigned k = RULES_CONNECT; k <= RULES_DOT; k++)
        if (in->rule.stages & 1u << k) {
            reply.stage = k;
            break;
        }
    (void)rules_parse_reply(slice_str(sample), &reply); /* checked when it was read */
    return reply;
}

static bool contradict(const struct rule *a, const struct rule *b)
{
    return a->action != b->action || a->dimension != b->dimension || a->scope != b->scope ||
           a->outcome != b->outcome;
}

/* Whether another rule of the same rank says something else about the sample. Warned of
 * once for a pair: by the one that gives way. */
static void check_rivals(struct checking *c, const struct rule_inside *in, const char *sample)
{
    struct rules_reply reply = reply_of(in, sample);
    for (size_t i = 0; i < c->rules->count; i++) {
        const struct rule_inside *other = &c->rules->list[i];
        if (other == in || other->rule.provider != in->rule.provider ||
            other->rule.fallback != in->rule.fallback || !contradict(&in->rule, &other->rule) ||
            !rule_matches(c->rules, other, &reply))
            continue;
        if (rules_match(c->rules, &reply) == &in->rule)
            continue;
        struct buf what = BUF_INIT(1024);
        buf_printf(&what, "contradicts rule %s (%s:%d); the stricter one holds, %s, for",
                   other->name, other->rule.file, other->rule.line,
                   rules_match(c->rules, &reply)->name);
        buf_addc(&what, '\0');
        finding(c, &in->rule, false, what.data, sample);
        buf_free(&what);
    }
}

static void on_costly(const struct rule *rule, void *arg)
{
    finding(arg, rule, true, "a pattern is too costly: it tries too many ways to match", NULL);
}

unsigned rules_check(struct rules *r, void (*say)(const char *text, bool error, void *arg),
                     void *arg)
{
    struct checking c = {r, say, arg, 0};
    void (*before)(const struct rule *, void *) = r->costly;
    void *before_arg = r->costly_arg;
    rules_on_costly(r, on_costly, &c);
    for (size_t i = 0; i < r->count; i++) {
        const struct rule_inside *in = &r->list[i];
        for (size_t k = 0; k < in->sample_count; k++) {
            struct rules_reply reply = reply_of(in, in->samples[k].text);
            bool matches = rule_matches(r, in, &reply);
            if (matches != in->samples[k].must_match)
                finding(&c, &in->rule, true,
                        matches ? "matches a reply that it must not match"
                                : "does not match its sample",
                        in->samples[k].text);
            else if (matches)
                check_rivals(&c, in, in->samples[k].text);
        }
    }
    rules_on_costly(r, before, before_arg);
    return c.errors;
}

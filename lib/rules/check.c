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

/* Samples have no stage: any that the rule has will do. The text is in `subject`. */
static struct rules_reply reply_of(const struct rule_inside *in, const char *sample,
                                   char subject[static RULES_SUBJECT_MAX])
{
    struct rules_reply reply = {.stage = RULES_MAIL, .provider = in->rule.provider};
    for (unsigned k = RULES_CONNECT; k <= RULES_DOT; k++)
        if (in->rule.stages & 1u << k) {
            reply.stage = k;
            break;
        }
    (void)rules_parse_reply(slice_str(sample), &reply); /* checked when it was read */
    reply.text = rules_subject(reply.text, subject);
    return reply;
}

/* The setting in which two rules say different things, in the order of rule_goes_before;
 * NULL: none. */
static const char *difference(const struct rule *a, const struct rule *b)
{
    if (a->action != b->action)
        return "action";
    if (a->scope != b->scope)
        return "scope";
    if (a->dimension != b->dimension)
        return "dimension";
    if (a->factor < b->factor || a->factor > b->factor)
        return "factor";
    if (a->value < b->value || a->value > b->value)
        return "value";
    if (a->time != b->time)
        return "for";
    if (a->outcome != b->outcome)
        return "outcome";
    if (a->retry_after != b->retry_after)
        return "retry_after";
    if (a->after != b->after || a->period != b->period)
        return "after";
    if (a->fraction < b->fraction || a->fraction > b->fraction || a->samples != b->samples)
        return "fraction";
    if (a->greylist != b->greylist)
        return "greylist";
    return a->alert != b->alert ? "alert" : NULL;
}

/* The first sample of `in` that the other rule matches as well; NULL: none. */
static const char *shared_sample(struct checking *c, const struct rule_inside *in,
                                 const struct rule_inside *other)
{
    char subject[RULES_SUBJECT_MAX];
    for (size_t k = 0; k < in->sample_count; k++) {
        struct rules_reply reply = reply_of(in, in->samples[k].text, subject);
        if (in->samples[k].must_match && rule_matches_text(c->rules, in, &reply) &&
            rule_matches_text(c->rules, other, &reply))
            return in->samples[k].text;
    }
    return NULL;
}

/* Two rules of one rank, the first one first: whether they say different things about one
 * reply, at a stage that both have. Warned of at the one that gives way. One about the recipient
 * alone may be as broad as it likes (greylisting): that others know some of its replies better
 * is no contradiction, unless they are its own samples. */
static void check_pair(struct checking *c, const struct rule_inside *a, const struct rule_inside *b)
{
    const char *sample, *in = difference(&a->rule, &b->rule);
    if (!in || a->rule.provider != b->rule.provider || a->rule.fallback != b->rule.fallback ||
        (a->rule.stages && b->rule.stages && !(a->rule.stages & b->rule.stages)))
        return;
    bool later = rule_goes_before(&b->rule, &a->rule);
    const struct rule_inside *holds = later ? b : a, *gives_way = later ? a : b;
    bool broad =
        gives_way->rule.scope == RULES_OF_RECIPIENT && holds->rule.scope != RULES_OF_RECIPIENT;
    sample = shared_sample(c, gives_way, holds);
    if (!sample && !broad)
        sample = shared_sample(c, holds, gives_way);
    if (!sample)
        return;
    const char *why = "is the stricter one";
    if (!later && !rule_goes_before(&a->rule, &b->rule))
        why = "stands first";
    else if (strcmp(in, "outcome") == 0)
        why = "keeps the mail";
    struct buf what = BUF_INIT(1024);
    buf_printf(&what, "contradicts rule %s (%s:%d) in %s; %s holds, which %s, for", holds->name,
               holds->rule.file, holds->rule.line, in, holds->name, why);
    buf_addc(&what, '\0');
    finding(c, &gives_way->rule, false, what.data, sample);
    buf_free(&what);
}

static void check_samples(struct checking *c, const struct rule_inside *in)
{
    char subject[RULES_SUBJECT_MAX];
    for (size_t k = 0; k < in->sample_count; k++) {
        const struct sample *s = &in->samples[k];
        struct rules_reply reply = reply_of(in, s->text, subject);
        if (rule_matches(c->rules, in, &reply) != s->must_match)
            finding(c, &in->rule, true,
                    s->must_match ? "does not match its sample"
                                  : "matches a reply that it must not match",
                    s->text);
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
    rules_warn_marks(r, say, arg);
    for (size_t i = 0; i < r->count; i++) {
        check_samples(&c, &r->list[i]);
        for (size_t k = 0; k < i; k++)
            check_pair(&c, &r->list[k], &r->list[i]);
    }
    rules_on_costly(r, before, before_arg);
    return c.errors;
}

static void first_finding(const char *text, bool error, void *arg)
{
    struct err *e = arg;
    if (error && !*e->text)
        err_set(e, "%s", text);
}

int rules_samples_hold(struct rules *r, struct err *e)
{
    struct err first = {0, ""};
    struct checking c = {r, first_finding, &first, 0};
    for (size_t i = 0; i < r->count && c.errors == 0; i++)
        check_samples(&c, &r->list[i]);
    return c.errors ? err_set(e, "%s", first.text) : 0;
}

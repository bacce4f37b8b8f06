/* Settings of a plan that are right by themselves and have no effect beside the others. */
#include "plan/advice.h"

#include <stdio.h>

#include "core/buf.h"

enum { SENTENCE_MAX = 600 };

struct advising {
    const struct plan *plan;
    const char *file;
    void (*found)(const char *sentence, void *arg);
    void *arg;
};

static void say(const struct advising *a, const char *what)
{
    struct buf text = BUF_INIT(SENTENCE_MAX);
    (void)buf_printf(&text, "%s: plan %s: %s", a->file, a->plan->name, what);
    (void)buf_addc(&text, '\0');
    a->found(text.data, a->arg);
    buf_free(&text);
}

static void advise_size(const struct advising *a, uint64_t most)
{
    char text[300];
    if (!most || a->plan->size_limit <= most)
        return;
    snprintf(text, sizeof text,
             "size is %llu bytes, but message_size_limit in main.cf, which holds for all mail, is "
             "%llu: larger messages are refused; set message_size_limit = %llu",
             (unsigned long long)a->plan->size_limit, (unsigned long long)most,
             (unsigned long long)a->plan->size_limit);
    say(a, text);
}

/* Of two limits in the same unit only the smaller one is ever met. */
static void advise_rates(const struct advising *a, const char *name, const struct plan_rate *rates)
{
    char text[200];
    for (size_t i = 0; i < PLAN_RATES_MAX && rates[i].count; i++)
        for (size_t k = 0; k < i; k++)
            if (rates[k].unit == rates[i].unit) {
                snprintf(text, sizeof text,
                         "%s has two limits in one unit, and only the smaller one has an effect; "
                         "leave one out",
                         name);
                say(a, text);
                return;
            }
}

static void advise_one(const struct advising *a, uint64_t message_size_limit)
{
    const struct plan *p = a->plan;
    const bool limited = p->messages || p->bytes;
    advise_size(a, message_size_limit);
    if (p->overage_block && limited && p->at_limit == AT_LIMIT_BLOCK)
        say(a, "overage has no effect with at_limit = block: nothing goes over the limit; set "
               "at_limit = surcharge (or allow), or leave overage out");
    if (p->overage_block && !limited)
        say(a, "overage has no effect without a limit; set messages or bytes");
    if (p->byte_minimum && !p->bytes)
        say(a, "byte_minimum limits nothing without bytes; set bytes, or leave it out");
    if (!p->spike_factor && (p->spike_minimum || p->spike_action == SPIKE_HOLD))
        say(a, "spike_action and spike_minimum have no effect without spike_factor: there is no "
               "guard; set spike_factor = 10, or leave them out");
    if (p->period_report && p->period == PERIOD_NONE)
        say(a, "period_report has no effect with period = none, which never ends");
    if (p->credit_minimum && !p->credit_unit)
        say(a, "credit_minimum has no effect without credit_unit: nothing is credited");
    advise_rates(a, "user_rate", p->user_rates);
    advise_rates(a, "account_rate", p->account_rates);
}

void plans_advise(const struct plans *plans, const char *file, uint64_t message_size_limit,
                  void (*found)(const char *sentence, void *arg), void *arg)
{
    for (size_t i = 0; i < plans->count; i++)
        advise_one(&(struct advising){&plans->list[i], file, found, arg}, message_size_limit);
}

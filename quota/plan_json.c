/* A plan as JSON, by the names of its settings: for 'plan list' and 'plan show', and to tell what
 * of plans_file has changed. What is not limited, or not in use, is not there. */
#include "quota/plan_json.h"

#include "core/buf.h"
#include "quota/rates.h"

enum { LIST_MAX = 400 };

static void set_count(json_t *j, const char *name, uint64_t n)
{
    if (n)
        json_object_set_new(j, name, json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n));
}

static void set_text(json_t *j, const char *name, const struct buf *text)
{
    if (text->len)
        json_object_set_new(j, name, json_stringn(text->data, text->len));
}

static void set_rates(json_t *j, const char *name, const struct plan_rate *rates, unsigned max)
{
    struct buf text = BUF_INIT(LIST_MAX);
    for (unsigned i = 0; i < max && rates[i].count; i++) {
        if (i)
            (void)buf_addstr(&text, ", ");
        rates_print(&text, &rates[i]);
    }
    set_text(j, name, &text);
    buf_free(&text);
}

/* What the owner is told, and when. */
static void set_letters(json_t *j, const struct plan *p)
{
    struct buf alerts = BUF_INIT(LIST_MAX), warnings = BUF_INIT(LIST_MAX);
    for (unsigned i = 0; i < PLAN_PERCENTS_MAX && p->alert_percents[i]; i++)
        (void)buf_printf(&alerts, "%s%u", i ? ", " : "", p->alert_percents[i]);
    for (unsigned i = 0; i < PLAN_WARNINGS_MAX && p->end_warnings[i]; i++)
        (void)buf_printf(&warnings, "%s%u", i ? ", " : "", p->end_warnings[i]);
    if (p->messages || p->bytes)
        set_text(j, "alerts", &alerts);
    set_text(j, "end_warnings", &warnings);
    set_count(j, "report_every", p->report_percent);
    if (p->period_report)
        json_object_set_new(j, "period_report", json_true());
    buf_free(&alerts);
    buf_free(&warnings);
}

static void set_guard(json_t *j, const struct plan *p)
{
    static const char *const actions[] = {"off", "slow", "hold"};
    if (!p->spike_factor)
        return;
    set_count(j, "spike_factor", p->spike_factor);
    set_count(j, "spike_minimum", p->spike_minimum);
    json_object_set_new(j, "spike_action", json_string(actions[p->spike_action]));
}

json_t *plan_json(const struct plan *p)
{
    static const char *const periods[] = {"none", "day", "week", "month", "year"};
    static const char *const at_limit[] = {"block", "allow", "surcharge"};
    static const char *const rate_actions[] = {"defer", "queue"};
    json_t *j = json_pack("{s:s,s:s,s:s,s:s,s:s}", "plan", p->name, "period", periods[p->period],
                          "anchor", p->anchor == ANCHOR_CALENDAR ? "calendar" : "anniversary",
                          "zone", p->zone_name, "at_limit", at_limit[p->at_limit]);
    set_count(j, "messages", p->messages);
    set_count(j, "bytes", p->bytes);
    set_count(j, "byte_minimum", p->byte_minimum);
    set_count(j, "overage_block", p->overage_block);
    if (p->overage_block)
        json_object_set_new(j, "overage_unit",
                            json_string(p->overage_bytes ? "bytes" : "messages"));
    set_count(j, "recipients", p->recipient_limit);
    set_count(j, "size", p->size_limit);
    set_count(j, "credit_unit", p->credit_unit);
    if (p->credit_unit) {
        set_count(j, "credit_minimum", p->credit_minimum);
        json_object_set_new(j, "credit_until", json_string(periods[p->credit_until]));
    }
    set_guard(j, p);
    set_count(j, "destination_connections", p->destination_connections);
    set_rates(j, "destination_rate", &p->destination_rate, 1);
    if (*p->source)
        json_object_set_new(j, "source", json_string(p->source));
    set_rates(j, "user_rate", p->user_rates, PLAN_RATES_MAX);
    set_rates(j, "account_rate", p->account_rates, PLAN_RATES_MAX);
    if (p->user_rates[0].count || p->account_rates[0].count)
        json_object_set_new(j, "rate_action", json_string(rate_actions[p->rate_action]));
    set_letters(j, p);
    return j;
}

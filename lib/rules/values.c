/* Rates, times and replies as they are written, and the words of the enums. */
#include <math.h>
#include <stdlib.h>

#include "core/clock.h"
#include "rules/set.h"

enum { NUMBER_DIGITS_MAX = 12 };

/* A decimal number with an optional fraction; *rest is what follows it. */
static int number(const char *text, double *out, const char **rest)
{
    size_t digits = strspn(text, "0123456789.");
    char *end;
    if (digits == 0 || digits > NUMBER_DIGITS_MAX || text[0] == '.')
        return -1;
    *out = strtod(text, &end);
    *rest = end;
    return end == text + digits && isfinite(*out) ? 0 : -1;
}

int rules_parse_number(const char *text, double *out)
{
    const char *rest;
    return number(text, out, &rest) == 0 && !*rest ? 0 : -1;
}

int rules_parse_rate(const char *text, double *out)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"", 1}, {"/s", 1}, {"/min", 60}, {"/m", 60}, {"/h", 3600}, {"/d", 86400}};
    const char *unit;
    if (number(text, out, &unit) < 0 || *out <= 0)
        return -1;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(unit, units[i].unit) == 0) {
            *out /= units[i].seconds;
            return *out >= RULES_RATE_LEAST ? 0 : -1;
        }
    return -1;
}

int rules_parse_time(const char *text, int64_t *out)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"ms", 0.001}, {"s", 1},     {"min", 60},  {"m", 60},
                 {"h", 3600},   {"d", 86400}, {"w", 604800}};
    static const double longest = 366.0 * 86400;
    const char *unit;
    double value;
    if (number(text, &value, &unit) < 0)
        return -1;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(unit, units[i].unit) == 0) {
            value *= units[i].seconds;
            if (value > longest)
                return -1;
            *out = (int64_t)(value * (double)CLOCK_SECOND);
            return 0;
        }
    return -1;
}

static bool is_enhanced(struct slice s)
{
    unsigned parts = 0, digits = 0;
    if (s.len < 5 || (s.ptr[0] != '2' && s.ptr[0] != '4' && s.ptr[0] != '5'))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '.' && digits > 0) {
            parts++;
            digits = 0;
        } else if (s.ptr[i] >= '0' && s.ptr[i] <= '9' && digits < 3) {
            digits++;
        } else {
            return false;
        }
    }
    return parts == 2 && digits > 0;
}

int rules_parse_reply(struct slice line, struct rules_reply *out)
{
    uint64_t code;
    line = slice_trim(line);
    struct slice rest = line, first = slice_cut(&rest, ' ');
    if (first.len != 3 || slice_u64(first, &code) < 0 || code < 200 || code > 599)
        return -1;
    out->code = (unsigned)code;
    out->text = rest;
    struct slice enhanced = slice_cut(&rest, ' ');
    out->enhanced = is_enhanced(enhanced) ? enhanced : SLICE("");
    return 0;
}

const char *rules_dimension_name(enum rules_dimension d)
{
    static const char *const names[] = {
        "none", "concurrency", "rate", "messages_per_connection", "volume", "connection_rate"};
    return names[d];
}

const char *rules_scope_name(enum rules_scope s)
{
    static const char *const names[] = {"recipient", "account", "dkim", "source", "provider"};
    return names[s];
}

const char *rules_action_name(enum rules_action a)
{
    static const char *const names[] = {"note", "slow", "set", "suspend", "switch"};
    return names[a];
}

const char *rules_stage_name(enum rules_stage s)
{
    static const char *const names[] = {"none", "connect", "greeting", "ehlo", "starttls",
                                        "auth", "mail",    "rcpt",     "data", "dot"};
    return names[s];
}

#include "learned/learned.h"

#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>

#include "core/clock.h"
#include "core/json.h"
#include "core/mem.h"

static const double RATE_MAX = 1e6;                   /* recipients a second */
static const double RATE_LEAST = 1e-6;                /* fewer are none: about one in 12 days */
static const double TIME_MAX = 10.0 * 366 * 86400;    /* seconds */
static const double WHEN_MAX = 10000.0 * 366 * 86400; /* seconds since 1970 */

enum kind { TEXT, RATE, COUNT, TIME, WHEN, FLAG };

static const struct field {
    const char *name;
    enum kind kind;
    size_t at, max; /* max: bytes of a text */
} fields[] = {
#define AT(member) offsetof(struct learned, member)
    {"key", TEXT, AT(key), LEARNED_NAME_MAX},
    {"name", TEXT, AT(name), LEARNED_NAME_MAX},
    {"source", TEXT, AT(source), LEARNED_SOURCE_MAX},
    {"when", WHEN, AT(when), 0},
    {"rate", RATE, AT(rate), 0},
    {"rate_failed", RATE, AT(rate_failed), 0},
    {"connection_rate", RATE, AT(connection_rate), 0},
    {"connection_rate_failed", RATE, AT(connection_rate_failed), 0},
    {"blind", FLAG, AT(blind), 0},
    {"concurrency", COUNT, AT(window), 0},
    {"concurrency_failed", COUNT, AT(window_failed), 0},
    {"messages_per_connection", COUNT, AT(messages), 0},
    {"period", TIME, AT(period), 0},
    {"shut_for", TIME, AT(shut_for), 0},
    {"greylist_refused", TIME, AT(grey_refused), 0},
    {"greylist_passed", TIME, AT(grey_passed), 0},
    {"greylist_first", TIME, AT(grey_first), 0},
    {"suspended_until", WHEN, AT(suspended_until), 0},
    {"by_hand", FLAG, AT(by_hand), 0},
    {"blocked", FLAG, AT(blocked), 0},
    {"unreachable", FLAG, AT(unreachable), 0},
    {"reason", TEXT, AT(reason), LEARNED_REASON_MAX},
    {"rule", TEXT, AT(rule), LEARNED_RULE_MAX},
    {"said", TEXT, AT(said), LEARNED_SAID_MAX},
#undef AT
};
enum { FIELDS = sizeof fields / sizeof fields[0] };

static void *member(const struct learned *l, const struct field *f)
{
    return (char *)(uintptr_t)l + f->at;
}

static void put_rate(struct buf *out, const char *name, double value)
{
    char text[40];
    int n = snprintf(text, sizeof text, "%.6g", value);
    json_raw(out, name, slice_make(text, (size_t)n));
}

static void put(const struct learned *l, const struct field *f, struct buf *out)
{
    const void *p = member(l, f);
    switch (f->kind) {
    case TEXT:
        if (!*(char *const *)p)
            break;
        json_str(out, f->name, slice_str(*(char *const *)p));
        break;
    case RATE:
        if (*(const double *)p > 0)
            put_rate(out, f->name, *(const double *)p);
        break;
    case COUNT:
        if (*(const uint32_t *)p)
            json_int(out, f->name, *(const uint32_t *)p);
        break;
    case TIME:
    case WHEN:
        if (*(const int64_t *)p)
            json_seconds(out, f->name, *(const int64_t *)p);
        break;
    case FLAG:
        if (*(const bool *)p)
            json_bool(out, f->name, true);
        break;
    }
}

void learned_encode(const struct learned *l, struct buf *out)
{
    json_begin(out);
    for (size_t i = 0; i < FIELDS; i++)
        put(l, &fields[i], out);
    json_end(out);
}

/* ---- reading ----------------------------------------------------------------- */

static int take_text(const struct field *f, const json_t *value, char **out, struct err *e)
{
    const char *text = json_string_value(value);
    size_t len = json_string_length(value);
    if (!text || len > f->max || memchr(text, '\0', len))
        return err_set(e, "\"%s\" is not a text of at most %zu bytes", f->name, f->max);
    *out = xstrdup(text);
    return 0;
}

static int take_number(const struct field *f, const json_t *value, double max, double *out,
                       struct err *e)
{
    *out = json_is_number(value) ? json_number_value(value) : -1;
    if (isfinite(*out) && *out >= 0 && *out <= max)
        return 0;
    return err_set(e, "\"%s\" is not a number from 0 to %.0f", f->name, max);
}

static int take(struct learned *l, const struct field *f, const json_t *value, struct err *e)
{
    static const double limits[] = {
        [RATE] = RATE_MAX, [COUNT] = LEARNED_COUNT_MAX, [TIME] = TIME_MAX, [WHEN] = WHEN_MAX};
    void *p = member(l, f);
    double number = 0;
    if (f->kind == TEXT)
        return take_text(f, value, p, e);
    if (f->kind == FLAG) {
        *(bool *)p = json_is_true(value);
        return json_is_boolean(value) ? 0 : err_set(e, "\"%s\" is neither true nor false", f->name);
    }
    if (take_number(f, value, limits[f->kind], &number, e) < 0)
        return -1;
    if (f->kind == RATE && number > 0 && number < RATE_LEAST)
        return err_set(e, "\"%s\" is neither 0 nor at least %g", f->name, RATE_LEAST);
    if (f->kind == RATE)
        *(double *)p = number;
    else if (f->kind == COUNT)
        *(uint32_t *)p = (uint32_t)number;
    else
        *(int64_t *)p = (int64_t)(number * (double)CLOCK_SECOND);
    return 0;
}

static const struct field *field_of(const char *name)
{
    for (size_t i = 0; i < FIELDS; i++)
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    return NULL;
}

static int take_all(struct learned *l, json_t *object, struct err *e)
{
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        const struct field *f = field_of(name);
        if (f && take(l, f, value, e) < 0) /* a later version may know more */
            return -1;
    }
    if (!l->key || !*l->key || !l->name || !*l->name)
        return err_set(e, "has no \"key\" or no \"name\"");
    if (!l->source)
        l->source = xstrdup("");
    return 0;
}

int learned_parse(struct slice line, struct learned *l, struct err *e)
{
    json_error_t error;
    *l = (struct learned){0};
    if (line.len > LEARNED_LINE_MAX)
        return err_set(e, "longer than %d bytes", LEARNED_LINE_MAX);
    json_t *object = json_loadb(line.ptr ? line.ptr : "", line.len, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(object)) {
        json_decref(object);
        return err_set(e, "not one JSON object in one line");
    }
    int rc = take_all(l, object, e);
    json_decref(object);
    if (rc < 0)
        learned_free(l);
    return rc;
}

void learned_free(struct learned *l)
{
    xfree(&l->key);
    xfree(&l->name);
    xfree(&l->source);
    xfree(&l->reason);
    xfree(&l->rule);
    xfree(&l->said);
}

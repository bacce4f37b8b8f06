#include "conf/params.h"

#include <errno.h>

#include "core/log.h"

const struct param params[PARAM_COUNT] = {
#define AT(name) offsetof(struct config, name)
#define PARAM_STR(name, fallback, doc) {#name, PARAM_TYPE_STR, fallback, 0, 0, "", doc, AT(name)},
#define PARAM_LIST(name, fallback, doc) {#name, PARAM_TYPE_LIST, fallback, 0, 0, "", doc, AT(name)},
#define PARAM_INT(name, fallback, min, max, doc)                                                   \
    {#name, PARAM_TYPE_INT, fallback, min, max, "", doc, AT(name)},
#define PARAM_SIZE(name, fallback, min, max, doc)                                                  \
    {#name, PARAM_TYPE_SIZE, fallback, min, max, "", doc, AT(name)},
#define PARAM_TIME(name, fallback, min, max, doc)                                                  \
    {#name, PARAM_TYPE_TIME, fallback, min, max, "", doc, AT(name)},
#define PARAM_BOOL(name, fallback, doc) {#name, PARAM_TYPE_BOOL, fallback, 0, 0, "", doc, AT(name)},
#define PARAM_ENUM(name, fallback, choices, doc)                                                   \
    {#name, PARAM_TYPE_ENUM, fallback, 0, 0, choices, doc, AT(name)},
#include "conf/params.def"
#undef PARAM_STR
#undef PARAM_LIST
#undef PARAM_INT
#undef PARAM_SIZE
#undef PARAM_TIME
#undef PARAM_BOOL
#undef PARAM_ENUM
};

int param_find(struct slice name)
{
    for (int i = 0; i < PARAM_COUNT; i++)
        if (slice_eq(slice_str(params[i].name), name))
            return i;
    return -1;
}

bool param_is_path(int index)
{
    switch (index) {
    case PARAM_INDEX_data_directory:
    case PARAM_INDEX_empty_directory:
    case PARAM_INDEX_program_directory:
    case PARAM_INDEX_queue_directory:
    case PARAM_INDEX_pid_directory:
    case PARAM_INDEX_smtp_tls_CAfile:
    case PARAM_INDEX_resolver_trust_anchor:
    case PARAM_INDEX_smtp_tls_CApath:
    case PARAM_INDEX_maillog_file:
    case PARAM_INDEX_event_log_file:
    case PARAM_INDEX_provider_config_file:
    case PARAM_INDEX_source_config_file:
    case PARAM_INDEX_accounts_directory:
    case PARAM_INDEX_plans_file:
    case PARAM_INDEX_smtpd_tls_cert_file:
    case PARAM_INDEX_smtpd_tls_key_file:
    case PARAM_INDEX_smtpd_tls_eccert_file:
    case PARAM_INDEX_smtpd_tls_eckey_file:
    case PARAM_INDEX_smtpd_tls_CAfile:
        return true;
    default:
        return false;
    }
}

/* Levenshtein distance of two short names; names over the limit differ by it. */
enum { NAME_COMPARED_MAX = 80, SIMILAR_DISTANCE = 4 };

static unsigned name_distance(struct slice a, struct slice b)
{
    unsigned row[NAME_COMPARED_MAX + 1];
    if (a.len > NAME_COMPARED_MAX || b.len > NAME_COMPARED_MAX)
        return NAME_COMPARED_MAX;
    for (unsigned j = 0; j <= b.len; j++)
        row[j] = j;
    for (unsigned i = 1; i <= a.len; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            unsigned best = diagonal + (a.ptr[i - 1] != b.ptr[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[b.len];
}

const char *param_similar(struct slice name)
{
    const char *best = NULL;
    unsigned least = SIMILAR_DISTANCE;
    for (int i = 0; i < PARAM_COUNT; i++) {
        unsigned d = name_distance(name, slice_str(params[i].name));
        if (d < least) {
            least = d;
            best = params[i].name;
        }
    }
    return best;
}

struct unit {
    char letter;
    int64_t factor;
};
static const struct unit no_units[] = {{0, 0}};
static const struct unit size_units[] = {
    {'k', 1024}, {'m', 1024 * 1024}, {'g', 1024 * 1024 * 1024}, {0, 0}};
static const struct unit time_units[] = {{'s', 1},     {'m', 60},     {'h', 3600},
                                         {'d', 86400}, {'w', 604800}, {0, 0}};

/* A strict number with at most one unit letter; 0, or -1. */
static int parse_number(struct slice text, const struct unit *units, int64_t *out)
{
    uint64_t n;
    int64_t factor = 1;
    if (text.len == 0)
        return -1;
    char last = (char)(text.ptr[text.len - 1] | 0x20);
    for (const struct unit *u = units; u->letter; u++)
        if (last == u->letter) {
            factor = u->factor;
            text.len--;
            break;
        }
    if (slice_u64(text, &n) < 0 || n > INT64_MAX)
        return -1;
    return __builtin_mul_overflow((int64_t)n, factor, out) ? -1 : 0;
}

static int set_number(const struct param *p, struct slice text, int64_t *field, struct err *e)
{
    const struct unit *units = p->type == PARAM_TYPE_SIZE   ? size_units
                               : p->type == PARAM_TYPE_TIME ? time_units
                                                            : no_units;
    const char *what = p->type == PARAM_TYPE_SIZE ? "a size in bytes, with k, m or g if you like,"
                       : p->type == PARAM_TYPE_TIME
                           ? "a time in seconds, or with one of s, m, h, d, w,"
                           : "a whole number";
    const char *unit = p->type == PARAM_TYPE_TIME ? "s" : "";
    int64_t n;
    bool number = parse_number(text, units, &n) == 0;
    if (number && n >= p->min && n <= p->max) {
        *field = n;
        return 0;
    }
    return err_set(e, "%s = %s: %s; give %s from %lld%s to %lld%s (default %s)", p->name,
                   log_esc_n(text, 60), number ? "is out of range" : "is not understood", what,
                   (long long)p->min, unit, (long long)p->max, unit, p->fallback);
}

static int set_bool(const struct param *p, struct slice text, bool *field, struct err *e)
{
    *field = slice_caseeq(text, SLICE("yes"));
    if (*field || slice_caseeq(text, SLICE("no")))
        return 0;
    return err_set(e, "%s = %s: give yes or no", p->name, log_esc_n(text, 60));
}

static int set_enum(const struct param *p, struct slice text, const char **field, struct err *e)
{
    struct slice rest = slice_str(p->choices), choice;
    while (config_list_next(&rest, &choice))
        if (slice_eq(choice, text))
            return 0; /* *field is the caller's copy of the text already */
    *field = "";
    return err_set(e, "%s = %s: give one of: %s", p->name, log_esc_n(text, 60), p->choices);
}

int param_set(struct config *c, int index, const char *text, struct err *e)
{
    const struct param *p = &params[index];
    void *field = (char *)c + p->offset;
    struct slice s = slice_str(text);
    switch (p->type) {
    case PARAM_TYPE_INT:
    case PARAM_TYPE_SIZE:
    case PARAM_TYPE_TIME:
        return set_number(p, s, field, e);
    case PARAM_TYPE_BOOL:
        return set_bool(p, s, field, e);
    case PARAM_TYPE_ENUM:
        *(const char **)field = text;
        return set_enum(p, s, field, e);
    case PARAM_TYPE_STR:
    case PARAM_TYPE_LIST:
        *(const char **)field = text;
        return 0;
    }
    return err_set(e, "%s: has no type", p->name);
}

#include <string.h>
#include <time.h>

#include "core/slice.h"
#include "ctl/ctl.h"

static const struct arg *find(const struct arg *args, struct slice name)
{
    for (; args->name; args++)
        if (slice_eq(slice_str(args->name), name))
            return args;
    return NULL;
}

/* One option at argv[*at]; moves *at past a value that it took. 0 or -1. */
static int take_option(const struct ctl_command *c, const struct arg *args, char **argv, int *at)
{
    struct slice value = slice_str(argv[*at]);
    size_t equals = slice_chr(value, '=');
    struct slice name = slice_first(value, equals);
    const struct arg *a = find(args, name);
    if (!a) {
        ctl_usage(c, "there is no option %.*s", SLICE_ARG(name));
        return -1;
    }
    if (a->flag) {
        if (equals < value.len) {
            ctl_usage(c, "%s takes no value", a->name);
            return -1;
        }
        *a->flag = true;
        return 0;
    }
    if (equals < value.len)
        *a->value = argv[*at] + equals + 1;
    else if (argv[*at + 1])
        *a->value = argv[++*at];
    else {
        ctl_usage(c, "%s needs a value", a->name);
        return -1;
    }
    return 0;
}

int args_parse(struct ctl *ctl, const struct ctl_command *c, const struct arg *args, char **argv)
{
    const struct arg json[] = {{"--json", &ctl->json, NULL}, {NULL, NULL, NULL}};
    int kept = 0;
    bool options = true;
    for (int i = 0; argv[i]; i++) {
        if (!options || argv[i][0] != '-' || argv[i][1] == '\0') {
            argv[kept++] = argv[i];
        } else if (strcmp(argv[i], "--") == 0) {
            options = false;
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            ctl_help(c, stdout);
            return -2;
        } else {
            struct slice name = slice_first(slice_str(argv[i]), strcspn(argv[i], "="));
            const struct arg *table = find(json, name) ? json : args;
            if (take_option(c, table, argv, &i) < 0)
                return -1;
        }
    }
    argv[kept] = NULL;
    return kept;
}

struct unit {
    char letter;
    int64_t factor;
};

/* A whole number with one of these letters behind it, or none. */
static int with_unit(const char *text, const struct unit *units, uint64_t min, int64_t max,
                     int64_t *out)
{
    struct slice digits = slice_str(text);
    int64_t factor = 1;
    uint64_t n;
    for (; units->letter && digits.len; units++)
        if (digits.ptr[digits.len - 1] == units->letter) {
            factor = units->factor;
            digits.len--;
            break;
        }
    if (digits.len == 0 || slice_u64(digits, &n) < 0 || n < min || n > (uint64_t)(max / factor))
        return -1;
    *out = (int64_t)n * factor;
    return 0;
}

int args_duration(const char *text, int64_t *seconds)
{
    static const struct unit units[] = {{'s', 1},     {'m', 60},     {'h', 3600},
                                        {'d', 86400}, {'w', 604800}, {'\0', 0}};
    return with_unit(text, units, 1, INT32_MAX, seconds);
}

int args_size(const char *text, int64_t *bytes)
{
    static const struct unit units[] = {{'k', 1 << 10}, {'m', 1 << 20}, {'g', 1 << 30},
                                        {'K', 1 << 10}, {'M', 1 << 20}, {'G', 1 << 30},
                                        {'\0', 0}};
    return with_unit(text, units, 0, INT64_C(1) << 50, bytes);
}

int args_moment(const char *text, int64_t *seconds)
{
    static const char *const formats[] = {"%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        struct tm tm = {.tm_mday = 1};
        const char *end = strptime(text, formats[i], &tm);
        if (!end || *end)
            continue;
        const int day = tm.tm_mday;
        tm.tm_isdst = -1;
        time_t t = mktime(&tm);
        if (t < 0 || tm.tm_mday != day) /* the 31st of November */
            return -1;
        *seconds = t;
        return 0;
    }
    if (args_duration(text, seconds) < 0)
        return -1;
    *seconds = (int64_t)time(NULL) - *seconds;
    return *seconds < 0 ? -1 : 0;
}

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/mem.h"
#include "sources/read.h"

int sources_parse_count(const char *text, uint64_t max, uint64_t *out)
{
    return slice_u64(slice_str(text), out) == 0 && *out <= max ? 0 : -1;
}

int sources_parse_time(const char *text, int64_t *microseconds)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    enum { MOST = 366 * 86400 };
    struct slice s = slice_str(text);
    uint64_t n;
    if (s.len < 2 || slice_u64(slice_first(s, s.len - 1), &n) < 0 || n == 0)
        return -1;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (s.ptr[s.len - 1] != units[i].unit)
            continue;
        if (n > (uint64_t)(MOST / units[i].seconds))
            return -1;
        *microseconds = (int64_t)n * units[i].seconds * 1000000;
        return 0;
    }
    return -1;
}

int sources_parse_date(const char *text, int64_t *seconds)
{
    struct tm t = {0};
    char again[32];
    int end = 0;
    if (sscanf(text, "%4d-%2d-%2d%n", &t.tm_year, &t.tm_mon, &t.tm_mday, &end) != 3 || text[end])
        return -1;
    t.tm_year -= 1900;
    t.tm_mon -= 1;
    *seconds = timegm(&t); /* which mends days that there are not: compare */
    return strftime(again, sizeof again, "%Y-%m-%d", &t) > 0 && strcmp(again, text) == 0 ? 0 : -1;
}

static int parse_table(struct slice s, struct source_ramp *out)
{
    uint32_t days[SOURCES_DAYS_MAX];
    uint16_t n = 0;
    while (s.len) {
        uint64_t value;
        if (n == SOURCES_DAYS_MAX || slice_u64(slice_trim(slice_cut(&s, ',')), &value) < 0 ||
            value == 0 || value > UINT32_MAX)
            return -1;
        days[n++] = (uint32_t)value;
    }
    if (n == 0)
        return -1;
    free(out->table);
    out->table = xmalloc(n * sizeof *days);
    memcpy(out->table, days, n * sizeof *days);
    out->days = n;
    return 0;
}

int sources_parse_warmup(const char *text, struct source_ramp *out)
{
    struct slice s = slice_str(text);
    int64_t time;
    if (slice_starts(s, SLICE("table:")))
        return parse_table(slice_from(s, 6), out);
    if (!slice_starts(s, SLICE("linear:")) || !slice_ends(s, SLICE("d")) ||
        sources_parse_time(text + 7, &time) < 0)
        return -1;
    xfree(&out->table);
    out->days = (uint16_t)(time / 86400 / 1000000);
    return out->days >= 1 && out->days <= SOURCES_DAYS_MAX ? 0 : -1;
}

bool sources_is_name(const char *text)
{
    size_t n = 0;
    for (; text[n]; n++)
        if (text[n] <= ' ' || text[n] > '~' || strchr("\"\\{}#=,", text[n]))
            return false;
    return n >= 1 && n <= SOURCES_NAME_MAX;
}

/* Letters, digits, hyphens and dots; labels of 1 to 63 characters. */
bool sources_is_host(const char *text)
{
    size_t n = 0, label = 0;
    for (; text[n]; n++) {
        char c = text[n];
        bool alphanumeric =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (c == '.' ? label == 0 : !alphanumeric && c != '-' && c != '_')
            return false;
        label = c == '.' ? 0 : label + 1;
        if (label > 63)
            return false;
    }
    return n >= 1 && n <= SOURCES_HOST_MAX && label > 0;
}

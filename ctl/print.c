#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/slice.h"
#include "ctl/ctl.h"

enum { NAME_WIDTH = 18, TIME_SIZE = 64, OWN_LINE_INDENT = 4 };
static const double NO_RATE = 1e6;     /* and above: not limited */
static const double A_TIMESTAMP = 1e8; /* larger numbers of seconds are points in time */

size_t print_control(struct slice s)
{
    const unsigned char *u = (const unsigned char *)s.ptr;
    if (s.len == 0)
        return 0;
    if (u[0] < 0x20 || u[0] == 0x7f)
        return 1;
    /* U+0080 to U+009F in UTF-8; U+009B does what ESC [ does */
    return s.len > 1 && u[0] == 0xc2 && u[1] >= 0x80 && u[1] < 0xa0 ? 2 : 0;
}

/* Replaces control characters in place. */
static void make_safe(char *text)
{
    for (size_t n; *text; text++)
        if ((n = print_control(slice_make(text, text[1] ? 2 : 1))) > 0)
            memset(text, '?', n);
}

static bool is_safe(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || (unsigned char)*text >= 0x7f)
            return false;
    return true;
}

void print_safe(FILE *out, const char *text)
{
    if (is_safe(text)) {
        fputs(text, out);
        return;
    }
    char *copy = xstrdup(text);
    make_safe(copy);
    fputs(copy, out);
    free(copy);
}

void print_time(char *out, size_t size, double when)
{
    time_t seconds = (time_t)when;
    struct tm tm;
    if (!localtime_r(&seconds, &tm) || strftime(out, size, "%Y-%m-%d %H:%M:%S", &tm) == 0)
        snprintf(out, size, "?");
}

void print_age(char *out, size_t size, double seconds)
{
    long s = seconds < 0 ? 0 : (long)seconds;
    if (s < 60)
        snprintf(out, size, "%lds", s);
    else if (s < 3600)
        snprintf(out, size, "%ldm", s / 60);
    else if (s < 86400)
        snprintf(out, size, "%ldh%02ldm", s / 3600, s % 3600 / 60);
    else
        snprintf(out, size, "%ldd%02ldh", s / 86400, s % 86400 / 3600);
}

void print_size(char *out, size_t size, double bytes)
{
    static const char units[] = " KMGTP";
    size_t u = 0;
    for (; bytes >= 1024 && u + 2 < sizeof units; u++)
        bytes /= 1024;
    if (u == 0)
        snprintf(out, size, "%.0f", bytes);
    else
        snprintf(out, size, bytes < 10 ? "%.1f%c" : "%.0f%c", bytes, units[u]);
}

void print_amount(char *out, size_t size, double bytes)
{
    print_size(out, size, bytes);
    size_t n = strlen(out);
    if (bytes < 1024)
        snprintf(out + n, size - n, bytes == 1 ? " byte" : " bytes");
}

void print_volume(char *out, size_t size, double bytes)
{
    static const char *const units[] = {"bytes", "KB", "MB", "GB", "TB", "PB"};
    size_t u = 0;
    for (; bytes >= 999.95 && u + 1 < sizeof units / sizeof units[0]; u++)
        bytes /= 1000;
    snprintf(out, size, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
}

const char *plural(long long n)
{
    return n == 1 ? "" : "s";
}

const char *colour(const struct ctl *ctl, const char *sequence)
{
    return ctl->colour ? sequence : "";
}

/* ---- tables --------------------------------------------------------------------- */

/* Characters of UTF-8 text: close enough to columns for addresses and words. */
static int columns_of(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static int terminal_width(void)
{
    struct winsize w;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

struct table *table_new(struct ctl *ctl, const char *const *titles)
{
    struct table *t = xcalloc(1, sizeof *t);
    t->ctl = ctl;
    for (; titles[t->columns]; t->columns++) {
        const char *title = titles[t->columns];
        t->titles[t->columns] = title;
        t->width[t->columns] = columns_of(*title == '>' ? title + 1 : title);
    }
    return t;
}

/* The end of a row on a terminal. What does not fit is never cut: it is what people
 * look for (why mail waits). */
static void put_last(struct table *t, const char *text, int pad, int used)
{
    if (!t->started || columns_of(text) + used <= terminal_width()) {
        printf("%*s%s\n", pad, "", text);
    } else if (t->said && strcmp(t->said, text) == 0) {
        puts("(as above)");
    } else {
        printf("\n%*s%s\n", OWN_LINE_INDENT, "", text);
        free(t->said);
        t->said = xstrdup(text);
    }
}

static void put_cell(struct table *t, size_t column, const char *text, int used)
{
    bool last = column + 1 == t->columns, right = t->titles[column][0] == '>';
    int pad = t->width[column] - columns_of(text);
    if (!t->ctl->terminal) {
        print_safe(stdout, text);
        putchar(last ? '\n' : '\t');
        return;
    }
    if (pad < 0)
        pad = 0;
    if (last)
        put_last(t, text, right ? pad : 0, used);
    else
        printf("%*s%s%*s  ", right ? pad : 0, "", text, right ? 0 : pad, "");
}

static void put_row(struct table *t, const char *const *cells)
{
    int used = 0;
    for (size_t i = 0; i < t->columns; i++) {
        put_cell(t, i, cells[i], used);
        used += t->width[i] + 2;
    }
}

static void put_titles(struct table *t)
{
    const char *titles[TABLE_COLUMNS];
    for (size_t i = 0; i < t->columns; i++)
        titles[i] = t->titles[i] + (t->titles[i][0] == '>');
    fputs(colour(t->ctl, COLOUR_BOLD), stdout);
    put_row(t, titles);
    fputs(colour(t->ctl, COLOUR_OFF), stdout);
    t->started = true;
}

static void flush_rows(struct table *t)
{
    if (!t->started)
        put_titles(t);
    for (size_t r = 0; r < t->rows; r++) {
        put_row(t, (const char *const *)t->cells[r]);
        for (size_t i = 0; i < t->columns; i++)
            xfree(&t->cells[r][i]);
    }
    t->rows = 0;
}

void table_row(struct table *t, const char *const *cells)
{
    if (!t->started && !t->ctl->terminal)
        put_titles(t);
    if (!t->ctl->terminal) { /* nothing to align, so nothing to gather */
        const char *shown[TABLE_COLUMNS];
        for (size_t i = 0; i < t->columns; i++)
            shown[i] = cells[i] && *cells[i] ? cells[i] : "-";
        put_row(t, shown);
        return;
    }
    if (t->rows == TABLE_BATCH)
        flush_rows(t);
    for (size_t i = 0; i < t->columns; i++) {
        char *cell = xstrdup(cells[i] && *cells[i] ? cells[i] : "-");
        make_safe(cell);
        int width = columns_of(cell);
        if (width > t->width[i])
            t->width[i] = width;
        t->cells[t->rows][i] = cell;
    }
    t->rows++;
}

void table_end(struct table *t)
{
    if (t->rows || t->started)
        flush_rows(t);
    free(t->said);
    free(t);
}

/* ---- JSON for people --------------------------------------------------------------- */

void print_json_line(const json_t *value)
{
    json_dumpf(value, stdout, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(16));
    putchar('\n');
}

/* A value that is neither a list nor an object, as text. Numbers with a fraction are
 * seconds, but for rates. */
static void scalar(char *out, size_t size, const char *key, const json_t *value)
{
    double number = json_number_value(value);
    if (json_is_string(value))
        snprintf(out, size, "%s", json_string_length(value) ? json_string_value(value) : "-");
    else if (json_is_boolean(value))
        snprintf(out, size, "%s", json_is_true(value) ? "yes" : "no");
    else if (json_is_number(value) && strcmp(key, "rate") == 0 && number >= NO_RATE)
        snprintf(out, size, "no limit");
    else if (json_is_number(value) && strcmp(key, "rate") == 0 && number < 0.1)
        snprintf(out, size, "%.0f/h", number * 3600);
    else if (json_is_number(value) && strcmp(key, "rate") == 0)
        snprintf(out, size, "%.1f/s", number);
    else if (json_is_real(value) && number > A_TIMESTAMP)
        print_time(out, size, number);
    else if (json_is_real(value))
        snprintf(out, size, "%.3fs", number);
    else if (json_is_integer(value))
        snprintf(out, size, "%lld", (long long)json_integer_value(value));
    else
        snprintf(out, size, "-");
}

static void print_object_table(struct ctl *ctl, const json_t *list)
{
    const char *titles[TABLE_COLUMNS + 1] = {NULL}, *key;
    json_t *value, *row;
    size_t n = 0, i;
    json_object_foreach(json_array_get(list, 0), key, value)
    {
        if (n < TABLE_COLUMNS && !json_is_array(value) && !json_is_object(value))
            titles[n++] = key;
    }
    struct table *t = table_new(ctl, titles);
    json_array_foreach(list, i, row)
    {
        char text[TABLE_COLUMNS][1024];
        const char *cells[TABLE_COLUMNS];
        for (size_t k = 0; k < n; k++) {
            scalar(text[k], sizeof text[k], titles[k], json_object_get(row, titles[k]));
            cells[k] = text[k];
        }
        table_row(t, cells);
    }
    table_end(t);
}

static void print_list(struct ctl *ctl, const json_t *list)
{
    const json_t *value;
    size_t i;
    char text[1024];
    if (json_is_object(json_array_get(list, 0))) {
        putchar('\n');
        print_object_table(ctl, list);
        return;
    }
    json_array_foreach(list, i, value)
    {
        scalar(text, sizeof text, "", value);
        print_safe(stdout, i ? ", " : "");
        print_safe(stdout, text);
    }
    puts(json_array_size(list) ? "" : "-");
}

static void print_value(struct ctl *ctl, const char *name, const json_t *value, int indent)
{
    const char *key;
    json_t *member;
    char text[2048];
    if (json_is_array(value)) {
        print_list(ctl, value);
        return;
    }
    if (!json_is_object(value)) {
        scalar(text, sizeof text, name, value);
        print_safe(stdout, text);
        putchar('\n');
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        int width = NAME_WIDTH - indent - (int)strlen(key);
        printf("%*s", indent, "");
        print_safe(stdout, key);
        putchar(':');
        bool table = json_is_object(json_array_get(member, 0));
        if (json_is_object(member))
            putchar('\n');
        else if (!table)
            printf("%*s ", width > 0 ? width : 0, "");
        print_value(ctl, key, member, indent + 2);
    }
}

void print_json(struct ctl *ctl, const json_t *value, int indent)
{
    print_value(ctl, "", value, indent);
}

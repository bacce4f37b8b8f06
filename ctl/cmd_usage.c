/* postern usage report: figures of a month, or its errors, as CSV. postern usage list: all
 * accounts, those first that have used most of their plan. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/csv.h"
#include "core/mem.h"
#include "ctl/accounts.h"

struct report {
    struct ctl *ctl;
    bool errors;
    unsigned long lines;
};

enum { FIELD_MAX = 8192 };

static void print_field(const char *text, bool last)
{
    struct buf field = BUF_INIT(FIELD_MAX);
    (void)csv_add(&field, slice_str(text), last);
    fwrite(field.data, 1, field.len, stdout);
    buf_free(&field);
}

static void print_member(const json_t *result, const char *name, bool last)
{
    const json_t *value = json_object_get(result, name);
    char text[64] = "";
    if (json_is_string(value)) {
        print_field(json_string_value(value), last);
        return;
    }
    if (json_is_boolean(value)) {
        print_field(json_is_true(value) ? "yes" : "no", last);
        return;
    }
    bool time = strcmp(name, "start") == 0 || strcmp(name, "end") == 0 || strcmp(name, "time") == 0;
    if (json_is_integer(value) && time)
        print_time(text, sizeof text, (double)json_integer_value(value));
    else if (json_is_integer(value))
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    printf("%s%s", text, last ? "\r\n" : ",");
}

static void print_titles(const char *const *columns)
{
    for (size_t i = 0; columns[i]; i++)
        printf("%s%s", columns[i], columns[i + 1] ? "," : "\r\n");
}

static const char *const *columns_of(const struct report *r)
{
    static const char *const figures[] = {"owner",           "start",         "end",
                                          "messages",        "bytes",         "delivered",
                                          "delivered_bytes", "refunded",      "refunded_bytes",
                                          "granted",         "granted_bytes", "plan",
                                          "limit",           "limit_bytes",   "overage",
                                          "overage_bytes",   "overage_block", "overage_unit",
                                          "overage_blocks",  "running",       NULL};
    static const char *const errors[] = {"time",      "account", "user", "id",
                                         "recipient", "reply",   NULL};
    return r->errors ? errors : figures;
}

static int on_line(json_t *result, void *arg)
{
    struct report *r = arg;
    const char *const *columns = columns_of(r);
    r->lines++;
    if (r->ctl->json) {
        print_json_line(result);
        return 0;
    }
    if (r->lines == 1)
        print_titles(columns);
    for (size_t i = 0; columns[i]; i++)
        print_member(result, columns[i], !columns[i + 1]);
    return 0;
}

/* "2026-11" to its first second and the first of the next month, as if all zones were UTC (quota
 * knows those of accounts); 0 or -1. */
static int month_range(const char *text, int64_t *from, int64_t *to)
{
    int year, month, n = 0;
    struct tm start = {.tm_mday = 1}, end = {.tm_mday = 1};
    if (sscanf(text, "%4d-%2d%n", &year, &month, &n) != 2 || text[n] || month < 1 || month > 12 ||
        year < 1970)
        return -1;
    start.tm_year = end.tm_year = year - 1900;
    start.tm_mon = month - 1;
    end.tm_mon = month;
    *from = timegm(&start);
    *to = timegm(&end);
    return 0;
}

int cmd_usage_report(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const char *month = NULL;
    struct report r = {.ctl = ctl};
    const struct arg args[] = {
        {"--month", NULL, &month}, {"--errors", &r.errors, NULL}, {NULL, NULL, NULL}};
    int64_t from = 0, to = 0;
    int count = args_parse(ctl, self, args, argv);
    (void)argc;
    if (count < 0)
        return args_status(count);
    if (count > 1)
        return ctl_usage(self, "give one account, or none for all");
    if (month && month_range(month, &from, &to) < 0)
        return ctl_usage(self, "--month %s: give a month such as 2026-11", month);
    json_t *request =
        json_pack("{s:s,s:s,s:I,s:I}", "request", r.errors ? "usage.failures" : "usage.report",
                  "account", count ? argv[0] : "", "from", (json_int_t)from, "to", (json_int_t)to);
    if (!request)
        return ctl_usage(self, "the account's name is no text");
    int status = accounts_ask(ctl, request, on_line, &r, NULL);
    if (status != CTL_OK || r.lines)
        return status;
    if (!ctl->json)
        print_titles(columns_of(&r)); /* whoever reads the file finds a table */
    if (count && !r.errors)
        return ctl_error(CTL_NOT_FOUND, "there is no usage of an account %s%s%s", argv[0],
                         month ? " in " : "", month ? month : "");
    return CTL_OK;
}

/* ---- postern usage list -------------------------------------------------------------------- */

struct row {
    json_t *usage;
    json_int_t percent, messages;
};

struct list_usage {
    struct ctl *ctl;
    struct row *rows;
    size_t count, room;
    json_int_t least;
};

static json_int_t number(const json_t *j, const char *name)
{
    return json_integer_value(json_object_get(j, name));
}

static int on_usage(json_t *result, void *arg)
{
    struct list_usage *l = arg;
    if (number(result, "percent") < l->least)
        return 0;
    if (l->count == l->room) {
        l->room = l->room ? 2 * l->room : 256;
        l->rows = xrealloc(l->rows, l->room * sizeof *l->rows);
    }
    l->rows[l->count++] =
        (struct row){json_incref(result), number(result, "percent"), number(result, "messages")};
    return 0;
}

static int by_share(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    if (x->percent != y->percent)
        return x->percent < y->percent ? 1 : -1;
    if (x->messages != y->messages)
        return x->messages < y->messages ? 1 : -1;
    return strcmp(json_string_value(json_object_get(x->usage, "owner")),
                  json_string_value(json_object_get(y->usage, "owner")));
}

/* What the plan and grants give: what share of it is used is `percent`. */
static void whole_of(char *out, size_t size, const json_t *j, bool bytes)
{
    json_int_t limit = number(j, bytes ? "limit_bytes" : "limit");
    json_int_t granted = number(j, bytes ? "granted_bytes" : "granted") +
                         number(j, bytes ? "grants_left_bytes" : "grants_left");
    if (!limit)
        snprintf(out, size, "-");
    else if (bytes)
        print_volume(out, size, (double)(limit + granted));
    else
        snprintf(out, size, "%lld", (long long)(limit + granted));
}

static void add_row(struct table *t, const struct row *r)
{
    char percent[32] = "-", messages[32], of[32], volume[32], of_volume[32];
    const char *reset = json_string_value(json_object_get(r->usage, "reset"));
    bool spike = json_is_true(json_object_get(r->usage, "spike"));
    bool over = number(r->usage, "overage") || number(r->usage, "overage_bytes");
    if (number(r->usage, "limit") || number(r->usage, "limit_bytes"))
        snprintf(percent, sizeof percent, "%lld%%", (long long)r->percent);
    snprintf(messages, sizeof messages, "%lld", (long long)r->messages);
    whole_of(of, sizeof of, r->usage, false);
    print_volume(volume, sizeof volume, (double)number(r->usage, "bytes"));
    whole_of(of_volume, sizeof of_volume, r->usage, true);
    const char *const cells[] = {json_string_value(json_object_get(r->usage, "owner")),
                                 json_string_value(json_object_get(r->usage, "plan")),
                                 percent,
                                 messages,
                                 of,
                                 volume,
                                 of_volume,
                                 reset ? reset : "-",
                                 spike  ? "far above its usual hour"
                                 : over ? "over its plan"
                                        : "-",
                                 NULL};
    table_row(t, cells);
}

int cmd_usage_list(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    static const char *const titles[] = {"ACCOUNT", "PLAN", ">USED", ">MESSAGES", ">OF",
                                         ">VOLUME", ">OF",  "RESET", "NOTE",      NULL};
    const char *least = NULL;
    struct list_usage l = {.ctl = ctl};
    const struct arg args[] = {{"--least", NULL, &least}, {NULL, NULL, NULL}};
    uint64_t n = 0;
    int count = args_parse(ctl, self, args, argv);
    (void)argc;
    if (count < 0)
        return args_status(count);
    if (count)
        return ctl_usage(self, "there is no use for %s; 'postern usage show' is about one account",
                         argv[0]);
    if (least && (slice_u64(slice_str(least), &n) < 0 || n > 1000000))
        return ctl_usage(self, "--least %s: give a share in percent, such as 80", least);
    l.least = (json_int_t)n;
    int status = accounts_ask(ctl, json_pack("{s:s}", "request", "usage.list"), on_usage, &l, NULL);
    if (l.count)
        qsort(l.rows, l.count, sizeof *l.rows, by_share);
    struct table *t = ctl->json || !l.count ? NULL : table_new(ctl, titles);
    for (size_t i = 0; i < l.count; i++) {
        if (t)
            add_row(t, &l.rows[i]);
        else
            print_json_line(l.rows[i].usage);
        json_decref(l.rows[i].usage);
    }
    if (t)
        table_end(t);
    free(l.rows);
    return status;
}

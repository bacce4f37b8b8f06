/* postern usage report: figures of a month, or its errors, as CSV. */
#include <string.h>
#include <time.h>

#include "core/csv.h"
#include "core/mem.h"
#include "ctl/accounts.h"

struct report {
    struct ctl *ctl;
    bool errors, started;
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
    bool time = strcmp(name, "start") == 0 || strcmp(name, "end") == 0 || strcmp(name, "time") == 0;
    if (json_is_integer(value) && time)
        print_time(text, sizeof text, (double)json_integer_value(value));
    else if (json_is_integer(value))
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    printf("%s%s", text, last ? "\r\n" : ",");
}

static int on_line(json_t *result, void *arg)
{
    static const char *const figures[] = {"owner",           "start",         "end",
                                          "messages",        "bytes",         "delivered",
                                          "delivered_bytes", "refunded",      "refunded_bytes",
                                          "granted",         "granted_bytes", NULL};
    static const char *const errors[] = {"time",      "account", "user", "id",
                                         "recipient", "reply",   NULL};
    struct report *r = arg;
    const char *const *columns = r->errors ? errors : figures;
    if (r->ctl->json) {
        print_json_line(result);
        return 0;
    }
    for (size_t i = 0; !r->started && columns[i]; i++)
        printf("%s%s", columns[i], columns[i + 1] ? "," : "\r\n");
    r->started = true;
    for (size_t i = 0; columns[i]; i++)
        print_member(result, columns[i], !columns[i + 1]);
    return 0;
}

/* "2026-11" to its first second and the first of the next month, UTC; 0 or -1. */
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
    return accounts_ask(ctl, request, on_line, &r, NULL);
}

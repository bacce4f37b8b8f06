/* queue list and summary. */
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "ctl/queue.h"

static double now(void)
{
    return (double)clock_wall() / (double)CLOCK_SECOND;
}

static const char *text_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

static double number_of(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

/* "in 4m", "now", or nothing */
static void until(char *out, size_t size, double when)
{
    char age[32];
    *out = '\0';
    if (when <= 0)
        return;
    if (when <= now()) {
        snprintf(out, size, "now");
        return;
    }
    print_age(age, sizeof age, when - now());
    snprintf(out, size, "in %s", age);
}

int queue_ask(struct ctl *ctl, json_t *selections, json_t *request, int (*line)(json_t *, void *),
              void (*raw)(struct slice, void *), void *arg, json_t *sums)
{
    static const char *const summed[] = {"matched", "changed", "missing", "recipients", "bytes"};
    int status = CTL_OK;
    json_t *select, *last;
    size_t i;
    json_array_foreach(selections, i, select)
    {
        json_t *one = json_copy(request);
        json_object_set(one, "select", select);
        status = client_ask_raw(ctl, one, line, raw, arg, &last);
        for (size_t k = 0; k < sizeof summed / sizeof summed[0] && status == CTL_OK; k++)
            json_object_set_new(sums, summed[k],
                                json_integer(json_integer_value(json_object_get(sums, summed[k])) +
                                             json_integer_value(json_object_get(last, summed[k]))));
        json_decref(last);
        if (status != CTL_OK)
            break;
    }
    json_decref(request);
    return status;
}

/* ---- list -------------------------------------------------------------------------- */

static const char *const list_titles[] = {"ID",        "STATUS",    ">AGE",  ">SIZE", "SENDER",
                                          "RECIPIENT", ">ATTEMPTS", ">NEXT", "REPLY", NULL};
static const char *const deleted_titles[] = {"ID",        "STATUS",    ">AGE",    ">SIZE", "SENDER",
                                             "RECIPIENT", ">ATTEMPTS", ">PURGED", "REPLY", NULL};

static void list_recipient(struct table *t, const json_t *m, const json_t *r)
{
    char age[32], size[32], attempts[16], next[48];
    const char *sender = text_of(m, "sender");
    print_age(age, sizeof age, now() - number_of(m, "arrival"));
    print_size(size, sizeof size, number_of(m, "size"));
    snprintf(attempts, sizeof attempts, "%.0f", number_of(r, "attempts"));
    const json_t *kept = json_object_get(m, "kept_until");
    until(next, sizeof next, kept ? json_number_value(kept) : number_of(r, "next"));
    table_row(t, (const char *[]){text_of(m, "id"), text_of(m, "status"), age, size,
                                  *sender ? sender : "<>", text_of(r, "address"), attempts, next,
                                  text_of(r, "reply")});
}

int queue_missing(const char *id, bool deleted)
{
    if (deleted)
        return ctl_error(CTL_NOT_FOUND, "there is no deleted message %s; it may be purged", id);
    return ctl_error(CTL_NOT_FOUND, "there is no message %s in the queue", id);
}

struct lister {
    struct ctl *ctl;
    struct table *table;
    bool deleted;
    unsigned long messages;
};

static int list_line(json_t *m, void *arg)
{
    struct lister *l = arg;
    size_t i;
    json_t *r;
    if (l->ctl->json) {
        print_json_line(m);
        return 0;
    }
    const char *missing = json_string_value(json_object_get(m, "missing"));
    if (missing) {
        queue_missing(missing, l->deleted);
        return 0;
    }
    l->messages++;
    json_array_foreach(json_object_get(m, "recipients"), i, r)
    {
        list_recipient(l->table, m, r);
    }
    json_t *left = json_object_get(m, "recipients_left_out");
    if (left) {
        char text[64];
        snprintf(text, sizeof text, "(%lld more)", (long long)json_integer_value(left));
        json_t *more = json_pack("{s:s}", "address", text);
        list_recipient(l->table, m, more);
        json_decref(more);
    }
    return 0;
}

static void print_raw(struct slice text, void *arg)
{
    struct lister *l = arg;
    l->messages++;
    fwrite(text.ptr, 1, text.len, stdout);
}

int queue_print(struct ctl *ctl, json_t *selections, bool deleted, json_t *request, json_t *sums)
{
    struct lister l = {.ctl = ctl,
                       .table = table_new(ctl, deleted ? deleted_titles : list_titles),
                       .deleted = deleted};
    if (!ctl->json)
        json_object_set_new(request, "brief", json_true());
    int status =
        queue_ask(ctl, selections, request, list_line, ctl->json ? print_raw : NULL, &l, sums);
    table_end(l.table);
    if (status == CTL_OK && !ctl->json && l.messages == 0 &&
        json_integer_value(json_object_get(sums, "missing")) == 0)
        fputs("No messages.\n", ctl->terminal ? stdout : stderr);
    if (status == CTL_OK && json_integer_value(json_object_get(sums, "missing")) > 0)
        status = CTL_NOT_FOUND;
    return status;
}

int cmd_queue_list(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    struct select_args s = {0};
    struct arg args[SELECT_ARGS + 3] = {{NULL, NULL, NULL}};
    const char *limit = NULL;
    uint64_t number = 0;
    (void)argc;
    select_options(&s, args);
    args[SELECT_ARGS] = (struct arg){"--limit", NULL, &limit};
    args[SELECT_ARGS + 1] = (struct arg){"--deleted", &s.deleted, NULL};
    int n = args_parse(ctl, self, args, argv);
    if (n < 0)
        return args_status(n);
    if (limit && (slice_u64(slice_str(limit), &number) < 0 || number == 0 || number > INT32_MAX))
        return ctl_usage(self, "--limit needs a number above 0");
    json_t *selections = select_build(self, &s, argv, true);
    if (!selections)
        return CTL_USAGE;
    json_t *request = json_pack("{s:s}", "request", "queue.list"), *sums = json_object();
    if (limit)
        json_object_set_new(request, "limit", json_integer((json_int_t)number));
    int status = queue_print(ctl, selections, s.deleted, request, sums);
    json_decref(sums);
    json_decref(selections);
    return status;
}

/* ---- summary ------------------------------------------------------------------------ */

static int summary_line(json_t *row, void *arg)
{
    json_array_append(arg, row);
    return 0;
}

static int by_recipients(const void *a, const void *b)
{
    double x = number_of(*(json_t *const *)a, "recipients");
    double y = number_of(*(json_t *const *)b, "recipients");
    return x < y ? 1 : x > y ? -1 : 0;
}

static void summary_row(struct table *t, const json_t *row)
{
    static const char *const counts[] = {"recipients", "active", "deferred", "hold"};
    char numbers[4][24], oldest[32];
    for (size_t i = 0; i < 4; i++)
        snprintf(numbers[i], sizeof numbers[i], "%.0f", number_of(row, counts[i]));
    print_age(oldest, sizeof oldest, now() - number_of(row, "oldest"));
    table_row(t, (const char *[]){text_of(row, "domain"), numbers[0], numbers[1], numbers[2],
                                  numbers[3], oldest, text_of(row, "reply")});
}

static void print_summary(struct ctl *ctl, const json_t *rows, const json_t *total)
{
    static const char *const titles[] = {"DOMAIN", ">RECIPIENTS", ">ACTIVE",    ">DEFERRED",
                                         ">HOLD",  ">OLDEST",     "LAST REPLY", NULL};
    size_t count = json_array_size(rows);
    json_t **sorted = count ? calloc(count, sizeof *sorted) : NULL;
    struct table *t = table_new(ctl, titles);
    if (sorted) {
        for (size_t i = 0; i < count; i++)
            sorted[i] = json_array_get(rows, i);
        qsort(sorted, count, sizeof *sorted, by_recipients);
        for (size_t i = 0; i < count; i++)
            summary_row(t, sorted[i]);
    }
    table_end(t);
    free(sorted);
    if (ctl->terminal && count)
        putchar('\n');
    char size[32];
    print_amount(size, sizeof size, number_of(total, "bytes"));
    long long messages = (long long)number_of(total, "messages");
    long long recipients = (long long)number_of(total, "recipients");
    printf("%lld message%s, %lld recipient%s, %s; %.0f active, %.0f deferred, %.0f held, %.0f "
           "arriving\n",
           messages, plural(messages), recipients, plural(recipients), size,
           number_of(total, "active"), number_of(total, "deferred"), number_of(total, "hold"),
           number_of(total, "incoming"));
}

int cmd_queue_summary(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    struct select_args s = {0};
    struct arg args[SELECT_ARGS + 2] = {{NULL, NULL, NULL}};
    (void)argc;
    select_options(&s, args);
    args[SELECT_ARGS] = (struct arg){"--deleted", &s.deleted, NULL};
    int n = args_parse(ctl, self, args, argv);
    if (n < 0)
        return args_status(n);
    json_t *selections = select_build(self, &s, argv, true);
    if (!selections)
        return CTL_USAGE;
    json_t *rows = json_array(), *total = NULL;
    int status = CTL_OK;
    if (json_array_size(selections) > 1)
        status = ctl_usage(self, "at most %d IDs can be summed up at a time", (int)SELECT_BATCH);
    else if (json_array_size(selections) == 1)
        status = client_ask(ctl,
                            json_pack("{s:s, s:O}", "request", "queue.summary", "select",
                                      json_array_get(selections, 0)),
                            summary_line, rows, &total);
    if (status == CTL_OK && ctl->json) {
        size_t i;
        json_t *row;
        json_array_foreach(rows, i, row)
        {
            print_json_line(row);
        }
        print_json_line(total);
    } else if (status == CTL_OK) {
        print_summary(ctl, rows, total);
    }
    json_decref(total);
    json_decref(rows);
    json_decref(selections);
    return status;
}

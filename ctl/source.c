/* source list, show, pools, suspend, resume. */
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"

struct listing {
    struct ctl *ctl;
    struct table *table; /* made with the first row */
    unsigned rows;
    bool senders; /* they have their heading */
    bool shared;  /* a source is in several pools */
};

static double number(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

static const char *text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

static void put_count(char out[32], const json_t *o, const char *object, const char *name)
{
    snprintf(out, 32, "%.0f", number(json_object_get(o, object), name));
}

static void put_percent(char out[32], const json_t *line, const char *name)
{
    const json_t *shares = json_object_get(line, "shares");
    if (json_object_get(shares, name))
        snprintf(out, 32, "%.1f%%", 100 * number(shares, name));
    else
        snprintf(out, 32, "-");
}

static void put_warm(char out[64], const json_t *line)
{
    if (json_object_get(line, "warmup_day") && !json_is_true(json_object_get(line, "warm")))
        snprintf(out, 64, "day %.0f of %.0f, %.0f of %.0f left today", number(line, "warmup_day"),
                 number(line, "warmup_days"), number(line, "left_today"),
                 number(line, "allowed_today"));
    else if (json_object_get(line, "allowed_today"))
        snprintf(out, 64, "%.0f of %.0f left today", number(line, "left_today"),
                 number(line, "allowed_today"));
    else
        snprintf(out, 64, "no limit");
}

static void row(struct listing *l, const char *const *titles, const char *const *cells)
{
    if (!l->table)
        l->table = table_new(l->ctl, titles);
    table_row(l->table, cells);
    l->rows++;
}

static void end_table(struct listing *l)
{
    if (l->table)
        table_end(l->table);
    l->table = NULL;
}

/* ---- list, pools ----------------------------------------------------------------------- */

static int list_line(json_t *line, void *arg)
{
    static const char *const titles[] = {"source",    ">today",   ">7 days",  ">deferred",
                                         ">rejected", ">blocked", ">waiting", "addresses",
                                         "state",     NULL};
    struct listing *l = arg;
    char today[32], week[32], deferred[32], rejected[32], blocked[32], waiting[32];
    if (l->ctl->json) {
        print_json_line(line);
        l->rows++;
        return 0;
    }
    put_count(today, line, "today", "accepted");
    put_count(week, line, "days7", "accepted");
    put_percent(deferred, line, "deferred");
    put_percent(rejected, line, "rejected");
    put_percent(blocked, line, "blocked");
    snprintf(waiting, sizeof waiting, "%.0f", number(line, "waiting"));
    const char *const cells[] = {text(line, "source"),
                                 today,
                                 week,
                                 deferred,
                                 rejected,
                                 blocked,
                                 waiting,
                                 text(line, "addresses"),
                                 text(line, "state")};
    row(l, titles, cells);
    return 0;
}

static int pool_line(json_t *line, void *arg)
{
    static const char *const titles[] = {
        "pool",     ">sources", ">usable", ">today by its sources", ">on their busiest day",
        "overflow", "advice",   NULL};
    struct listing *l = arg;
    char sources[32], usable[32], today[32], busiest[32];
    if (l->ctl->json) {
        print_json_line(line);
        l->rows++;
        return 0;
    }
    snprintf(sources, sizeof sources, "%.0f", number(line, "sources"));
    snprintf(usable, sizeof usable, "%.0f", number(line, "usable"));
    snprintf(today, sizeof today, "%.0f", number(line, "accepted_today"));
    snprintf(busiest, sizeof busiest, "%.0f", number(line, "busiest_day"));
    l->shared = l->shared || number(line, "shared_sources") > 0;
    const char *const cells[] = {
        text(line, "pool"),  sources, usable, today, busiest, text(line, "overflow"),
        text(line, "advice")};
    row(l, titles, cells);
    return 0;
}

static int list(struct ctl *ctl, const struct ctl_command *self, char **argv, const char *request,
                int (*line)(json_t *, void *))
{
    const struct arg none[] = {{NULL, NULL, NULL}};
    struct listing l = {.ctl = ctl};
    int n = args_parse(ctl, self, none, argv);
    if (n < 0)
        return args_status(n);
    if (n != 0)
        return ctl_usage(self, "takes no arguments");
    int status = client_ask(ctl, json_pack("{s:s}", "request", request), line, &l, NULL);
    end_table(&l);
    if (l.shared)
        puts("\nA source that is in several pools counts in each of them with all that it sent,\n"
             "whichever pool the mail came through.");
    if (status == CTL_OK && l.rows == 0 && !ctl->json)
        puts("No sources: mail leaves from smtp_bind_address; see source_config_file.");
    return status;
}

int cmd_source_list(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    (void)argc;
    return list(ctl, self, argv, "source.list", list_line);
}

int cmd_source_pools(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    (void)argc;
    return list(ctl, self, argv, "source.pools", pool_line);
}

/* ---- show -------------------------------------------------------------------------------- */

static void print_source(const json_t *line)
{
    char age[32];
    print_safe(stdout, text(line, "source"));
    printf(": ");
    print_safe(stdout, text(line, "addresses"));
    printf(", says it is ");
    print_safe(stdout, text(line, "helo"));
    printf("\n  state     ");
    print_safe(stdout, text(line, "state"));
    if (json_object_get(line, "suspended_for")) {
        print_age(age, sizeof age, number(line, "suspended_for"));
        printf(", for %s more", age);
    }
    printf("\n  weight    %.0f, in use for %.0f days; %s\n", number(line, "weight"),
           number(line, "age_days"),
           json_is_true(json_object_get(line, "warm")) ? "warm" : "being warmed up");
    printf("  waiting   %.0f recipients; blocked at %.0f destinations\n", number(line, "waiting"),
           number(line, "blocked_at"));
    if (*text(line, "listed")) {
        print_age(age, sizeof age, number(line, "listed_for"));
        printf("  listed    for %s by ", age);
        print_safe(stdout, text(line, "listed"));
        printf(": ");
        print_safe(stdout, text(line, "listed_text"));
        putchar('\n');
    }
    putchar('\n');
}

static void provider_row(struct listing *l, json_t *line)
{
    static const char *const titles[] = {"provider",  ">today",    ">7 days",
                                         ">accepted", ">deferred", ">rejected",
                                         ">blocked",  "warm-up",   NULL};
    static const char *const names[] = {"accepted", "deferred", "rejected", "blocked"};
    char today[32], week[32], shares[4][32], warm[64];
    put_count(today, line, "today", "accepted");
    put_count(week, line, "days7", "accepted");
    for (int i = 0; i < 4; i++)
        put_percent(shares[i], line, names[i]);
    put_warm(warm, line);
    const char *const cells[] = {
        text(line, "provider"), today, week, shares[0], shares[1], shares[2], shares[3], warm};
    row(l, titles, cells);
}

static int show_line(json_t *line, void *arg)
{
    struct listing *l = arg;
    if (l->ctl->json) {
        print_json_line(line);
        return 0;
    }
    if (json_object_get(line, "provider")) {
        provider_row(l, line);
    } else if (json_object_get(line, "sender")) {
        end_table(l);
        if (!l->senders)
            printf("\nWho sends from it (recent recipients, halved each day):\n");
        l->senders = true;
        printf("  %3.0f%%  %.0f, %.0f refused  ", number(line, "percent"),
               number(line, "recipients"), number(line, "refused"));
        print_safe(stdout, text(line, "sender"));
        putchar('\n');
    } else {
        print_source(line);
    }
    return 0;
}

int cmd_source_show(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const struct arg none[] = {{NULL, NULL, NULL}};
    struct listing l = {.ctl = ctl};
    (void)argc;
    int n = args_parse(ctl, self, none, argv);
    if (n < 0)
        return args_status(n);
    if (n != 1)
        return ctl_usage(self, "give one source");
    int status =
        client_ask(ctl, json_pack("{s:s, s:s}", "request", "source.show", "source", argv[0]),
                   show_line, &l, NULL);
    end_table(&l);
    return status;
}

int cmd_source_act(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const char *lasts = NULL, *reason = "";
    const struct arg args[] = {
        {"--for", NULL, &lasts}, {"--reason", NULL, &reason}, {NULL, NULL, NULL}};
    struct listing l = {.ctl = ctl};
    int64_t seconds = 0;
    (void)argc;
    bool suspends = strcmp(self->name, "suspend") == 0;
    int n = args_parse(ctl, self, suspends ? args : args + 2, argv);
    if (n < 0)
        return args_status(n);
    if (n != 1)
        return ctl_usage(self, "give one source");
    if (lasts && args_duration(lasts, &seconds) < 0)
        return ctl_usage(self, "--for takes a time such as 30m, 2h or 1d");
    return client_ask(ctl,
                      json_pack("{s:s, s:s, s:s, s:s, s:I}", "request", "source.act", "action",
                                self->name, "source", argv[0], "reason", reason, "seconds",
                                (json_int_t)seconds),
                      show_line, &l, NULL);
}

/* shaping list, show, why, suspend, resume, set, reset. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"

static double number(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

static const char *text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

static void print_rate(double rate)
{
    if (rate >= 1e6)
        printf("%9s", "no limit");
    else
        printf("%7.1f/s", rate);
}

static int list_line(json_t *line, void *arg)
{
    struct ctl *ctl = arg;
    if (ctl->json) {
        print_json_line(line);
        return 0;
    }
    print_rate(number(line, "rate"));
    printf(" %5.0f %5.0f %6.0f %6.0f  ", number(line, "concurrency"),
           number(line, "messages_per_connection"), number(line, "in_flight"),
           number(line, "queued"));
    print_safe(stdout, text(line, "destination"));
    printf("  (");
    print_safe(stdout, text(line, "state"));
    printf(")\n");
    return 0;
}

/* ---- one destination in words ---------------------------------------------------------- */

static void print_wait(const char *before, const json_t *line, const char *name)
{
    char age[32];
    if (!json_object_get(line, name))
        return;
    print_age(age, sizeof age, number(line, name));
    printf("%s%s\n", before, age);
}

static void print_greylist(const json_t *learned)
{
    char age[32];
    printf("  greylisting ");
    if (json_object_get(learned, "greylist_refused")) {
        print_age(age, sizeof age, number(learned, "greylist_refused"));
        printf(" refused after %s", age);
    }
    if (json_object_get(learned, "greylist_passed")) {
        print_age(age, sizeof age, number(learned, "greylist_passed"));
        printf(" taken after %s", age);
    }
    putchar('\n');
}

static void print_limits(const json_t *line)
{
    const json_t *learned = json_object_get(line, "learned");
    const json_t *given = json_object_get(line, "configured");
    printf("  rate         ");
    print_rate(number(line, "rate"));
    if (json_object_get(learned, "rate_failed"))
        printf("   it refused at %.2f/s", number(learned, "rate_failed"));
    if (json_object_get(given, "message_rate"))
        printf("   configured: at most %.1f/s", number(given, "message_rate"));
    printf("\n  connections  %9.0f", number(line, "concurrency"));
    if (json_object_get(learned, "concurrency_failed"))
        printf("   it refused the %.0fth", number(learned, "concurrency_failed"));
    printf("   configured: at most %.0f", number(given, "connections"));
    printf("\n  messages on one connection  ");
    if (number(line, "messages_per_connection") > 0)
        printf("%.0f", number(line, "messages_per_connection"));
    else
        printf("no limit");
    if (json_object_get(learned, "messages_per_connection"))
        printf("   learned");
    putchar('\n');
    if (number(line, "connection_rate") > 0)
        printf("  new connections  %.1f a minute%s\n", 60 * number(line, "connection_rate"),
               json_object_get(learned, "connection_rate") ? "   learned" : "");
    if (json_object_get(learned, "greylist_refused") || json_object_get(learned, "greylist_passed"))
        print_greylist(learned);
}

static void print_events(const json_t *line)
{
    size_t i;
    json_t *e;
    json_array_foreach(json_object_get(line, "events"), i, e)
    {
        char age[32];
        print_age(age, sizeof age, number(e, "age"));
        printf("  %8s ago  %s", age, text(e, "change"));
        if (json_object_get(e, "seconds"))
            printf(" %.1fs", number(e, "seconds"));
        else if (number(e, "before") < 1e6)
            printf(" from %.2f to %.2f", number(e, "before"), number(e, "after"));
        else
            printf(" to %.2f", number(e, "after"));
        if (*text(e, "rule"))
            printf("  by rule %s, %s", text(e, "rule"), text(e, "where"));
        putchar('\n');
    }
}

/* "account shop suspended for 2h: complaints" */
static void print_brake(const json_t *b)
{
    char age[32];
    printf("  %s ", text(b, "kind"));
    print_safe(stdout, text(b, "who"));
    if (json_is_true(json_object_get(b, "suspended")) && json_object_get(b, "suspended_for")) {
        print_age(age, sizeof age, number(b, "suspended_for"));
        printf(" suspended for %s", age);
    } else if (json_is_true(json_object_get(b, "suspended"))) {
        printf(" suspended");
    } else {
        printf(" slowed to %.3f/s", number(b, "rate"));
    }
    printf("%s", json_is_true(json_object_get(b, "by_hand")) ? " by hand" : "");
    if (*text(b, "reason")) {
        printf(": ");
        print_safe(stdout, text(b, "reason"));
    }
    putchar('\n');
}

static void print_brakes(const json_t *line)
{
    size_t i;
    json_t *b;
    json_array_foreach(json_object_get(line, "brakes"), i, b) print_brake(b);
}

static void print_done(const json_t *line)
{
    print_safe(stdout, text(line, "who"));
    printf(" at ");
    print_safe(stdout, text(line, "at"));
    printf(": %s\n", strcmp(text(line, "action"), "suspend") == 0 ? "suspended" : "resumed");
}

/* Where it takes long to answer. */
static void print_sign(const char *name, const json_t *sign)
{
    if (sign)
        printf("  %s in %.2fs, usually %.2fs\n", name, number(sign, "now"), number(sign, "usual"));
}

static void print_lane(const json_t *line)
{
    print_safe(stdout, text(line, "destination"));
    if (*text(line, "source")) {
        printf(" from ");
        print_safe(stdout, text(line, "source"));
    }
    printf(": %s; %.0f in line, %.0f under way\n", text(line, "state"), number(line, "queued"),
           number(line, "in_flight"));
    print_wait("  goes on in   ", line, "next_in");
    if (*text(line, "reason")) {
        printf("  reason: ");
        print_safe(stdout, text(line, "reason"));
        putchar('\n');
    }
    print_limits(line);
    if (json_is_true(json_object_get(line, "strained"))) {
        print_sign("replies come", json_object_get(line, "reply_seconds"));
        print_sign("greets", json_object_get(line, "greeting_seconds"));
    }
    print_brakes(line);
    if (*text(line, "last_refusal")) {
        printf("  last refusal: ");
        print_safe(stdout, text(line, "last_refusal"));
        putchar('\n');
    }
    print_events(line);
}

static int show_line(json_t *line, void *arg)
{
    struct ctl *ctl = arg;
    if (ctl->json)
        print_json_line(line);
    else if (*text(line, "action"))
        print_done(line);
    else
        print_lane(line);
    return 0;
}

static int why_line(json_t *line, void *arg)
{
    struct ctl *ctl = arg;
    if (ctl->json) {
        print_json_line(line);
        return 0;
    }
    if (*text(line, "recipient")) {
        print_safe(stdout, text(line, "recipient"));
        printf(": ");
    }
    printf("%s\n", text(line, "waits"));
    if (json_object_get(line, "brake"))
        print_brake(json_object_get(line, "brake"));
    if (json_object_get(line, "destination"))
        print_lane(line);
    else
        print_wait("  in ", line, "next_in");
    if (*text(line, "because")) {
        printf("  last answer: ");
        print_safe(stdout, text(line, "because"));
        putchar('\n');
    }
    return 0;
}

/* ---- commands ------------------------------------------------------------------------------ */

int cmd_shaping_list(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    bool all = false;
    const struct arg args[] = {{"--all", &all, NULL}, {NULL, NULL, NULL}};
    (void)argc;
    int n = args_parse(ctl, self, args, argv);
    if (n < 0)
        return args_status(n);
    if (n != 0)
        return ctl_usage(self, "takes no arguments");
    if (!ctl->json)
        printf("%9s %5s %5s %6s %6s  %s\n", "rate", "conns", "msgs", "flying", "queued",
               "destination (state)");
    return client_ask(ctl, json_pack("{s:s, s:b}", "request", "shaping.list", "all", all),
                      list_line, ctl, NULL);
}

int cmd_shaping_show(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const struct arg none[] = {{NULL, NULL, NULL}};
    (void)argc;
    int n = args_parse(ctl, self, none, argv);
    if (n < 0)
        return args_status(n);
    if (n < 1 || n > 2)
        return ctl_usage(self, "give a destination, and a source address if you like");
    return client_ask(ctl,
                      json_pack("{s:s, s:s, s:s}", "request", "shaping.show", "destination",
                                argv[0], "source", n == 2 ? argv[1] : ""),
                      show_line, ctl, NULL);
}

int cmd_shaping_why(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const struct arg none[] = {{NULL, NULL, NULL}};
    (void)argc;
    int n = args_parse(ctl, self, none, argv);
    if (n < 0)
        return args_status(n);
    if (n != 1)
        return ctl_usage(self, "give one queue ID");
    return client_ask(ctl, json_pack("{s:s, s:s}", "request", "shaping.why", "id", argv[0]),
                      why_line, ctl, NULL);
}

/* A number above 0, or NAN after telling why. */
static double positive(const struct ctl_command *self, const char *option, const char *value)
{
    char *end;
    double number = value ? strtod(value, &end) : 0;
    if (!value || (*value && !*end && number > 0 && isfinite(number)))
        return number;
    ctl_usage(self, "%s takes a number above 0", option);
    return NAN;
}

int cmd_shaping_act(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const char *lasts = NULL, *reason = "", *rate = NULL, *connections = NULL, *messages = NULL;
    const char *source = "", *account = "", *domain = "";
    const struct arg suspend[] = {{"--for", NULL, &lasts},       {"--reason", NULL, &reason},
                                  {"--account", NULL, &account}, {"--domain", NULL, &domain},
                                  {"--source", NULL, &source},   {NULL, NULL, NULL}};
    const struct arg set[] = {{"--rate", NULL, &rate},
                              {"--connections", NULL, &connections},
                              {"--messages", NULL, &messages},
                              {"--source", NULL, &source},
                              {NULL, NULL, NULL}};
    bool suspends = strcmp(self->name, "suspend") == 0, sets = strcmp(self->name, "set") == 0;
    bool resumes = strcmp(self->name, "resume") == 0;
    int64_t seconds = 0;
    (void)argc;
    int n = args_parse(ctl, self,
                       suspends  ? suspend
                       : resumes ? suspend + 2
                       : sets    ? set
                                 : set + 3,
                       argv);
    if (n < 0)
        return args_status(n);
    if (n != 1)
        return ctl_usage(self, "give one destination");
    if (lasts && args_duration(lasts, &seconds) < 0)
        return ctl_usage(self, "--for takes a time such as 30m, 2h or 1d");
    double r = positive(self, "--rate", rate), c = positive(self, "--connections", connections),
           m = positive(self, "--messages", messages);
    if (isnan(r) || isnan(c) || isnan(m))
        return CTL_USAGE;
    if (sets && !rate && !connections && !messages)
        return ctl_usage(self, "say what: --rate, --connections or --messages");
    return client_ask(ctl,
                      json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:f, s:f, s:f}",
                                "request", "shaping.act", "action", self->name, "destination",
                                argv[0], "source", source, "account", account, "domain", domain,
                                "reason", reason, "seconds", (json_int_t)seconds, "rate", r,
                                "connections", c, "messages", m),
                      show_line, ctl, NULL);
}

/* shaping list, show, suspend, resume, set, reset. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"
#include "ctl/shaping.h"
#include "rules/rules.h"

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
    struct shaping_list list = {.ctl = ctl};
    json_t *last = NULL;
    if (!ctl->json)
        printf("%9s %5s %5s %6s %6s  %s\n", "rate", "conns", "msgs", "flying", "queued",
               "destination (state)");
    int status = client_ask(ctl, json_pack("{s:s, s:b}", "request", "shaping.list", "all", all),
                            shaping_list_line, &list, &last);
    if (status == CTL_OK && ctl->json && json_object_get(last, "left_out"))
        print_json_line(last);
    else if (status == CTL_OK && json_object_get(last, "left_out"))
        printf("and %.0f more\n", shaping_number(last, "left_out"));
    json_decref(last);
    return status;
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
    struct shaping_shown shown = {.ctl = ctl};
    return client_ask(ctl,
                      json_pack("{s:s, s:s, s:s}", "request", "shaping.show", "destination",
                                argv[0], "source", n == 2 ? argv[1] : ""),
                      shaping_show_line, &shown, NULL);
}

/* qmgr has the same bounds. */
#define RATE_MOST 1e6
enum { COUNT_MOST = 10000 };

/* A rate in recipients a second, as in providers.conf; 0: not given; NAN after telling why. */
static double rate_of(const struct ctl_command *self, const char *text)
{
    double rate;
    if (!text)
        return 0;
    if (rules_parse_rate(text, &rate) == 0 && rate <= RATE_MOST)
        return rate;
    ctl_usage(self,
              "--rate takes recipients a second, such as 5, 0.5 or 100/min: from 0.1/d to %.0f",
              RATE_MOST);
    return NAN;
}

/* A whole number; 0: not given; NAN after telling why. */
static double count_of(const struct ctl_command *self, const char *option, const char *text)
{
    uint64_t n;
    if (!text)
        return 0;
    if (slice_u64(slice_str(text), &n) == 0 && n >= 1 && n <= COUNT_MOST)
        return (double)n;
    ctl_usage(self, "%s takes a whole number from 1 to %d", option, COUNT_MOST);
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
    double r = rate_of(self, rate), c = count_of(self, "--connections", connections),
           m = count_of(self, "--messages", messages);
    if (isnan(r) || isnan(c) || isnan(m))
        return CTL_USAGE;
    if (sets && !rate && !connections && !messages)
        return ctl_usage(self, "say what: --rate, --connections or --messages");
    struct shaping_shown shown = {.ctl = ctl};
    return client_ask(ctl,
                      json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:f, s:f, s:f}",
                                "request", "shaping.act", "action", self->name, "destination",
                                argv[0], "source", source, "account", account, "domain", domain,
                                "reason", reason, "seconds", (json_int_t)seconds, "rate", r,
                                "connections", c, "messages", m),
                      shaping_show_line, &shown, NULL);
}

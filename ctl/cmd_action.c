/* queue flush, hold, release, requeue, expire, delete, undelete. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ctl/queue.h"

enum { MANY = 100 };

/* Whether the operator is asked before it is done. */
enum asking {
    ASK_NEVER,
    ASK_MANY, /* on a terminal, for more than MANY messages */
    ASK       /* for more than one; without a terminal --yes must be said */
};

static const struct verb {
    const char *name, *past, *past_one; /* of several messages, of one */
    enum asking asking;
    bool default_all; /* without a selection means the whole queue */
} verbs[] = {
    {"flush", "flushed", "flushed", ASK_NEVER, true},
    {"hold", "held", "held", ASK_MANY, false},
    {"release", "released", "released", ASK_MANY, false},
    {"requeue", "requeued", "requeued", ASK_MANY, false},
    {"expire", "returned to their senders", "returned to its sender", ASK, false},
    {"delete", "deleted", "deleted", ASK, false},
    {"undelete", "brought back", "brought back", ASK_MANY, false},
};

struct action {
    struct ctl *ctl;
    const struct verb *verb;
    json_t *selections;
    bool dry_run, yes;
    bool deleted; /* it is about deleted messages */
};

static json_t *request_of(const struct action *a, bool dry_run, bool list)
{
    return json_pack("{s:s, s:s, s:b, s:b}", "request", "queue.action", "action", a->verb->name,
                     "dry_run", dry_run, "list", list);
}

static long long sum_of(const json_t *sums, const char *name)
{
    return (long long)json_integer_value(json_object_get(sums, name));
}

/* The verb's participle; deleting what is deleted already is for good. */
static const char *past_of(const struct action *a, long long messages)
{
    if (a->deleted && a->verb->asking == ASK)
        return "purged";
    return messages == 1 ? a->verb->past_one : a->verb->past;
}

/* ---- asking ------------------------------------------------------------------------- */

static int ignore_line(json_t *line, void *arg)
{
    (void)line, (void)arg;
    return 0;
}

/* Whether it can be taken back, in words that follow the count. */
static void describe_return(const struct action *a, char *out, size_t size)
{
    const struct config *c = ctl_config(a->ctl);
    char time[32];
    *out = '\0';
    if (a->verb->asking != ASK)
        return;
    snprintf(out, size, ", which cannot be undone");
    if (strcmp(a->verb->name, "delete") != 0 || a->deleted || !c || c->queue_undelete_time == 0)
        return;
    print_age(time, sizeof time, (double)c->queue_undelete_time);
    snprintf(out, size, "; for %s 'postern queue undelete' brings them back", time);
}

static int ask(const struct action *a, const json_t *sums)
{
    long long count = sum_of(sums, "matched"), recipients = sum_of(sums, "recipients");
    bool terminal = isatty(STDIN_FILENO);
    char size[32], words[128], answer[16] = "";
    print_amount(size, sizeof size, (double)sum_of(sums, "bytes"));
    describe_return(a, words, sizeof words);
    if (count <= 1 || (a->verb->asking == ASK_MANY && (count <= MANY || !terminal)))
        return CTL_OK;
    if (!terminal)
        return ctl_error(CTL_USAGE,
                         "%lld messages would be %s; nothing was done. Say --yes to do it", count,
                         past_of(a, count));
    fprintf(stderr, "%lld messages to %lld recipient%s (%s) will be %s%s. Go on? [y/N] ", count,
            recipients, plural(recipients), size, past_of(a, count), words);
    if (fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
        return CTL_OK;
    return ctl_error(CTL_FAILED, "nothing was done");
}

/* Counts what the selection matches and asks, if it has to be. CTL_OK: go on. */
static int confirm(const struct action *a)
{
    if (a->yes || a->verb->asking == ASK_NEVER)
        return CTL_OK;
    if (a->verb->asking == ASK_MANY && !isatty(STDIN_FILENO))
        return CTL_OK;
    json_t *sums = json_object();
    int status =
        queue_ask(a->ctl, a->selections, request_of(a, true, false), ignore_line, NULL, NULL, sums);
    if (status == CTL_OK)
        status = ask(a, sums);
    json_decref(sums);
    return status;
}

/* ---- doing -------------------------------------------------------------------------- */

static int missing_line(json_t *line, void *arg)
{
    const struct action *a = arg;
    const char *missing = json_string_value(json_object_get(line, "missing"));
    if (a->ctl->json)
        print_json_line(line);
    else if (missing)
        queue_missing(missing, a->deleted);
    return 0;
}

static void tell(const struct action *a, const json_t *sums)
{
    long long changed = sum_of(sums, "changed"), matched = sum_of(sums, "matched");
    const char *past = past_of(a, matched);
    if (a->ctl->json)
        print_json_line(sums);
    else if (changed == matched)
        printf("%lld message%s %s.\n", changed, plural(changed), past);
    else
        printf("%lld of %lld messages %s; nothing was to be done for the others.\n", changed,
               matched, past);
}

static int act(struct action *a)
{
    json_t *sums = json_object();
    int status = queue_ask(a->ctl, a->selections, request_of(a, false, a->ctl->json), missing_line,
                           NULL, a, sums);
    if (status == CTL_OK)
        tell(a, sums);
    if (status == CTL_OK && sum_of(sums, "missing") > 0)
        status = CTL_NOT_FOUND;
    json_decref(sums);
    return status;
}

static int dry_run(const struct action *a)
{
    json_t *sums = json_object();
    char size[32];
    int status = queue_print(a->ctl, a->selections, a->deleted, request_of(a, true, true), sums);
    long long matched = sum_of(sums, "matched"), recipients = sum_of(sums, "recipients");
    print_amount(size, sizeof size, (double)sum_of(sums, "bytes"));
    if ((status == CTL_OK || status == CTL_NOT_FOUND) && !a->ctl->json)
        printf("%lld message%s would be %s. (%lld recipient%s, %s)\n", matched, plural(matched),
               past_of(a, matched), recipients, plural(recipients), size);
    json_decref(sums);
    return status;
}

int cmd_queue_action(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    struct action a = {.ctl = ctl, .verb = verbs};
    struct select_args s = {0};
    struct arg args[SELECT_ARGS + 4] = {{NULL, NULL, NULL}};
    (void)argc;
    while (strcmp(a.verb->name, self->name) != 0)
        a.verb++;
    select_options(&s, args);
    args[SELECT_ARGS] = (struct arg){"--dry-run", &a.dry_run, NULL};
    args[SELECT_ARGS + 1] = (struct arg){"--yes", &a.yes, NULL};
    if (strcmp(a.verb->name, "delete") == 0)
        args[SELECT_ARGS + 2] = (struct arg){"--deleted", &s.deleted, NULL};
    int n = args_parse(ctl, self, args, argv);
    if (n < 0)
        return args_status(n);
    a.deleted = s.deleted || strcmp(a.verb->name, "undelete") == 0;
    a.selections = select_build(self, &s, argv, a.verb->default_all);
    if (!a.selections)
        return CTL_USAGE;
    int status = a.dry_run ? dry_run(&a) : confirm(&a);
    if (status == CTL_OK && !a.dry_run)
        status = act(&a);
    json_decref(a.selections);
    return status;
}

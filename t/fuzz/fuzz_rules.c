/* libraries: postern_rules postern_core */
/* The first line is a reply, the rest a providers.conf: reading it ends with a set or
 * an error, and matching ends in bounded time. */
#include <stdlib.h>

#include "rules/rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int give(const char *name, struct buf *text, void *arg, struct err *e)
{
    const struct slice *all = arg;
    if (strcmp(name, "a.conf") != 0)
        return err_set(e, "%s: no such file", name);
    return buf_adds(text, *all);
}

static void found(const char *text, bool error, void *arg)
{
    (void)text;
    (void)error;
    ++*(unsigned *)arg;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = slice_make(data, size), line = slice_cut(&rest, '\n');
    struct rules_reply reply = {.stage = RULES_MAIL, .code = 421, .text = line};
    struct err e;
    unsigned findings = 0;
    (void)rules_parse_reply(line, &reply);
    char subject[RULES_SUBJECT_MAX], again[RULES_SUBJECT_MAX];
    struct slice seen = rules_subject(reply.text, subject);
    if (seen.len > RULES_SUBJECT_MAX || !slice_eq(rules_subject(seen, again), seen))
        abort();
    struct rules *r = rules_load("a.conf", give, &rest, &e);
    if (!r)
        return 0;
    const struct rule *rule = rules_match(r, &reply);
    if (rule && rule->action == RULES_SUSPEND && rule->time <= 0)
        abort();
    struct slice host = slice_first(line, 100);
    struct rules_place place;
    struct rules_limits limits;
    rules_place(r, &host, 1, host, &place);
    rules_limits(r, &place, host, &limits);
    if (limits.connections && limits.start_connections > limits.connections)
        abort();
    rules_check(r, found, &findings);
    rules_free(r);
    return 0;
}

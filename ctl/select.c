#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "core/id.h"
#include "ctl/ctl.h"

void select_options(struct select_args *s, struct arg out[SELECT_ARGS])
{
    const struct arg table[SELECT_ARGS] = {
        {"--id", NULL, &s->id},
        {"--account", NULL, &s->account},
        {"--site", NULL, &s->site},
        {"--source", NULL, &s->source},
        {"--sender", NULL, &s->sender},
        {"--recipient", NULL, &s->recipient},
        {"--reply", NULL, &s->reply},
        {"--status", NULL, &s->status},
        {"--older-than", NULL, &s->older_than},
        {"--newer-than", NULL, &s->newer_than},
        {"--larger-than", NULL, &s->larger_than},
        {"--smaller-than", NULL, &s->smaller_than},
        {"--min-attempts", NULL, &s->min_attempts},
        {"--max-attempts", NULL, &s->max_attempts},
        {"--all", &s->all, NULL},
    };
    memcpy(out, table, sizeof table);
}

static int add_id(const struct ctl_command *c, json_t *ids, const char *text)
{
    if (!id_valid(slice_str(text)))
        return ctl_usage(c, "'%.40s' is not a queue ID", text);
    json_array_append_new(ids, json_string(text));
    return 0;
}

/* The first word of each line; what `queue list` prints will do, its titles too. */
static int ids_from_input(const struct ctl_command *c, json_t *ids)
{
    char *line = NULL;
    size_t size = 0;
    int rc = 0;
    for (bool first = true; rc == 0 && getline(&line, &size, stdin) > 0; first = false) {
        line[strcspn(line, " \t\r\n")] = '\0';
        if (*line && !(first && strcmp(line, "ID") == 0))
            rc = add_id(c, ids, line);
    }
    free(line);
    return rc;
}

static int collect_ids(const struct ctl_command *c, json_t *ids, const struct select_args *s,
                       char **positional)
{
    if (s->id && add_id(c, ids, s->id) != 0)
        return -1;
    for (; *positional; positional++) {
        int rc =
            strcmp(*positional, "-") == 0 ? ids_from_input(c, ids) : add_id(c, ids, *positional);
        if (rc != 0)
            return -1;
    }
    return 0;
}

static void set_text(json_t *select, const char *name, const char *value)
{
    if (value)
        json_object_set_new(select, name, json_string(value));
}

static int set_age(const struct ctl_command *c, json_t *select, const char *name, const char *value)
{
    int64_t seconds;
    if (!value)
        return 0;
    if (args_duration(value, &seconds) < 0)
        return ctl_usage(c, "'%.40s' is not a time such as 90s, 15m, 2h, 5d", value);
    json_object_set_new(select, name, json_integer(seconds));
    return 0;
}

static int set_size(const struct ctl_command *c, json_t *select, const char *name,
                    const char *value)
{
    int64_t bytes;
    if (!value)
        return 0;
    if (args_size(value, &bytes) < 0)
        return ctl_usage(c, "'%.40s' is not a size such as 500, 20k, 3m, 1g", value);
    json_object_set_new(select, name, json_integer(bytes));
    return 0;
}

static int set_number(const struct ctl_command *c, json_t *select, const char *name,
                      const char *value)
{
    uint64_t number;
    if (!value)
        return 0;
    if (slice_u64(slice_str(value), &number) < 0 || number > INT32_MAX)
        return ctl_usage(c, "'%.40s' is not a number of attempts", value);
    json_object_set_new(select, name, json_integer((json_int_t)number));
    return 0;
}

/* An empty value is most likely an unset variable in a script. */
static bool is_empty(const struct ctl_command *c, const char *option, const char *value)
{
    if (!value || *value)
        return false;
    ctl_usage(c, "%s is empty%s", option,
              strcmp(option, "--sender") == 0 ? "; for the null sender say '<>'" : "");
    return true;
}

/* All selectors but IDs. NULL after telling what is wrong. */
static json_t *filters(const struct ctl_command *c, const struct select_args *s)
{
    if (is_empty(c, "--account", s->account) || is_empty(c, "--site", s->site) ||
        is_empty(c, "--source", s->source) || is_empty(c, "--sender", s->sender) ||
        is_empty(c, "--recipient", s->recipient) || is_empty(c, "--reply", s->reply))
        return NULL;
    json_t *select = json_object();
    set_text(select, "account", s->account);
    set_text(select, "site", s->site);
    set_text(select, "source", s->source);
    set_text(select, "sender", s->sender && strcmp(s->sender, "<>") == 0 ? "" : s->sender);
    set_text(select, "recipient", s->recipient);
    set_text(select, "reply", s->reply);
    set_text(select, "status", s->status);
    if (set_age(c, select, "older_than", s->older_than) != 0 ||
        set_age(c, select, "newer_than", s->newer_than) != 0 ||
        set_size(c, select, "larger_than", s->larger_than) != 0 ||
        set_size(c, select, "smaller_than", s->smaller_than) != 0 ||
        set_number(c, select, "min_attempts", s->min_attempts) != 0 ||
        set_number(c, select, "max_attempts", s->max_attempts) != 0) {
        json_decref(select);
        return NULL;
    }
    if (s->all)
        json_object_set_new(select, "all", json_true());
    return select;
}

static json_t *in_batches(json_t *select, const json_t *ids)
{
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(ids); i += SELECT_BATCH) {
        json_t *batch = json_array(), *one = json_copy(select);
        for (size_t k = i; k < json_array_size(ids) && k < i + SELECT_BATCH; k++)
            json_array_append(batch, json_array_get(ids, k));
        json_object_set_new(one, "ids", batch);
        json_array_append_new(list, one);
    }
    return list;
}

json_t *select_build(const struct ctl_command *c, const struct select_args *s, char **positional,
                     bool default_all)
{
    bool from_input = false;
    for (char **p = positional; *p; p++)
        from_input = from_input || strcmp(*p, "-") == 0;
    json_t *ids = json_array(), *list = NULL;
    json_t *select = collect_ids(c, ids, s, positional) == 0 ? filters(c, s) : NULL;
    if (!select)
        goto out;
    bool nothing = json_object_size(select) == 0;
    if (s->deleted)
        json_object_set_new(select, "deleted", json_true());
    if (json_array_size(ids) || from_input) {
        list = in_batches(select, ids);
        goto out;
    }
    if (nothing) {
        if (!default_all) {
            ctl_usage(c, "say which messages: IDs or selectors, or --all for all of them");
            goto out;
        }
        json_object_set_new(select, "all", json_true());
    }
    list = json_array();
    json_array_append(list, select);
out:
    json_decref(select);
    json_decref(ids);
    return list;
}

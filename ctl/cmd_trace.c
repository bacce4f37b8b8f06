/* trace: what the event log and the queue know of a message. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/id.h"
#include "core/map.h"
#include "core/mem.h"
#include "ctl/ctl.h"

enum { TRACE_LIMIT = 20, TRACE_LIMIT_MAX = 1000, TRACE_LIST_MAX = 10 };

/* A message that matches. */
struct found {
    struct id id;
    bool whole; /* all of it was asked for, not only what one recipient got */
};

struct trace {
    struct ctl *ctl;
    const char *what; /* ID, Message-ID without <>, or address */
    size_t limit;
    /* messages that match, oldest first; a ring of `limit` */
    struct found *found;
    size_t count;
    size_t printed, queued;
    bool by_sender; /* how the queue was asked for what the event log does not know */
};

static struct found *find(const struct trace *t, const char *id)
{
    size_t n = t->count < t->limit ? t->count : t->limit;
    for (size_t i = 0; i < n; i++)
        if (strcmp(t->found[i].id.text, id) == 0)
            return &t->found[i];
    return NULL;
}

static bool is_what(const struct trace *t, const json_t *address)
{
    return json_is_string(address) &&
           slice_caseeq(slice_make(json_string_value(address), json_string_length(address)),
                        slice_str(t->what));
}

/* Whether any string in the event is what is looked for, with or without <>. */
static bool mentions(const json_t *value, const char *what)
{
    const char *key;
    json_t *member;
    size_t i;
    if (json_is_string(value)) {
        struct slice text = slice_make(json_string_value(value), json_string_length(value));
        if (slice_starts(text, SLICE("<")) && slice_ends(text, SLICE(">")))
            text = slice_make(text.ptr + 1, text.len - 2);
        return slice_caseeq(text, slice_str(what));
    }
    if (json_is_object(value))
        json_object_foreach((json_t *)(uintptr_t)value, key, member)
        {
            if (mentions(member, what))
                return true;
        }
    if (json_is_array(value))
        json_array_foreach(value, i, member)
        {
            if (mentions(member, what))
                return true;
        }
    return false;
}

/* The same for all that is not about recipients. */
static bool mentions_beside_to(json_t *event, const char *what)
{
    const char *key;
    json_t *member;
    json_object_foreach(event, key, member)
    {
        if (strcmp(key, "to") != 0 && mentions(member, what))
            return true;
    }
    return false;
}

static void remember(struct trace *t, const char *text, bool whole)
{
    struct id id;
    struct found *known = text ? find(t, text) : NULL;
    if (known)
        known->whole |= whole;
    else if (text && id_parse(slice_str(text), &id) == 0)
        t->found[t->count++ % t->limit] = (struct found){id, whole};
}

/* Calls `event` for each line that may concern us: a cheap look at the text
 * comes before parsing it, for logs are long. */
static void each_event(struct trace *t, FILE *log, bool (*likely)(struct trace *, const char *),
                       void (*event)(struct trace *, json_t *))
{
    char *line = NULL;
    size_t size = 0;
    rewind(log);
    while (getline(&line, &size, log) > 0) {
        if (!likely(t, line))
            continue;
        json_t *value = json_loads(line, 0, NULL);
        if (json_is_object(value))
            event(t, value);
        json_decref(value);
    }
    free(line);
}

static bool has_what(struct trace *t, const char *line)
{
    return strcasestr(line, t->what) != NULL;
}

static void take_id(struct trace *t, json_t *event)
{
    if (mentions(event, t->what))
        remember(t, json_string_value(json_object_get(event, "id")),
                 mentions_beside_to(event, t->what));
}

static bool any_id(struct trace *t, const char *line)
{
    size_t n = t->count < t->limit ? t->count : t->limit;
    for (size_t i = 0; i < n; i++)
        if (strstr(line, t->found[i].id.text))
            return true;
    return false;
}

/* ---- printing ------------------------------------------------------------------------ */

static void print_compact(const char *key, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT);
    printf(" %s=", key);
    print_safe(stdout, text ? text : "?");
    free(text);
}

/* The beginning of a list; --json has all of it. */
static void print_list(const char *key, const json_t *value)
{
    size_t count = json_array_size(value);
    json_t *first = json_array();
    for (size_t i = 0; i < count && i < TRACE_LIST_MAX; i++)
        json_array_append(first, json_array_get(value, i));
    print_compact(key, first);
    json_decref(first);
    if (count > TRACE_LIST_MAX)
        printf(" (and %zu more)", count - TRACE_LIST_MAX);
}

static void print_member(const char *key, const json_t *value)
{
    char number[64];
    if (json_is_array(value)) {
        print_list(key, value);
        return;
    }
    if (json_is_object(value)) {
        print_compact(key, value);
        return;
    }
    const char *text = json_string_value(value);
    if (!text && json_is_integer(value)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
        text = number;
    } else if (!text && json_is_real(value)) {
        snprintf(number, sizeof number, "%.3f", json_real_value(value));
        text = number;
    } else if (!text) {
        text = json_is_true(value) ? "yes" : "no";
    }
    bool quote = !*text || strchr(text, ' ');
    printf(quote ? " %s=\"" : " %s=", key);
    print_safe(stdout, text);
    if (quote)
        putchar('"');
}

static const char *event_colour(const struct ctl *ctl, const char *event)
{
    if (strcmp(event, "delivered") == 0)
        return colour(ctl, COLOUR_GREEN);
    if (strcmp(event, "deferred") == 0 || strcmp(event, "held") == 0)
        return colour(ctl, COLOUR_YELLOW);
    if (strcmp(event, "bounced") == 0 || strcmp(event, "expired") == 0)
        return colour(ctl, COLOUR_RED);
    return "";
}

/* Whether an event is not one of another recipient than the one that was asked for. */
static bool concerns(const struct trace *t, const struct found *found, const json_t *to)
{
    return found->whole || !json_is_string(to) || is_what(t, to);
}

static void print_event(struct trace *t, json_t *event)
{
    const char *id = json_string_value(json_object_get(event, "id")), *key;
    const char *name = json_string_value(json_object_get(event, "event"));
    const json_t *time = json_object_get(event, "time");
    json_t *member;
    char when[64] = "";
    const struct found *found = id ? find(t, id) : NULL;
    if (!found || !concerns(t, found, json_object_get(event, "to")))
        return;
    t->printed++;
    if (t->ctl->json) {
        print_json_line(event);
        return;
    }
    if (json_is_number(time))
        print_time(when, sizeof when, json_number_value(time));
    else
        snprintf(when, sizeof when, "%s", json_is_string(time) ? json_string_value(time) : "");
    printf("%s  %s  %s%-10s%s", when, id, event_colour(t->ctl, name ? name : ""), name ? name : "?",
           colour(t->ctl, COLOUR_OFF));
    json_object_foreach(event, key, member)
    {
        bool empty = (json_is_string(member) && json_string_length(member) == 0) ||
                     (json_is_number(member) && json_number_value(member) == 0) ||
                     json_is_false(member);
        if (!empty && strcmp(key, "id") && strcmp(key, "event") && strcmp(key, "time"))
            print_member(key, member);
    }
    putchar('\n');
}

/* ---- the queue ------------------------------------------------------------------------ */

static int queued_line(json_t *m, void *arg)
{
    struct trace *t = arg;
    char next[64];
    size_t i;
    json_t *r;
    const char *id = json_string_value(json_object_get(m, "id"));
    if (!id)
        return 0;
    t->queued++;
    if (t->ctl->json) {
        json_t *event = json_pack("{s:s, s:O}", "event", "queued", "message", m);
        print_json_line(event);
        json_decref(event);
        return 0;
    }
    const struct found *found = find(t, id);
    bool whole = found ? found->whole : t->by_sender;
    json_array_foreach(json_object_get(m, "recipients"), i, r)
    {
        if (!whole && !is_what(t, json_object_get(r, "address")))
            continue;
        const json_t *due = json_object_get(r, "next");
        const char *reply = json_string_value(json_object_get(r, "reply"));
        print_time(next, sizeof next, json_number_value(due));
        printf("%sin the queue%s  %s  %s  to=", colour(t->ctl, COLOUR_YELLOW),
               colour(t->ctl, COLOUR_OFF), id, json_string_value(json_object_get(m, "status")));
        print_safe(stdout, json_string_value(json_object_get(r, "address")));
        printf(" attempts=%lld%s%s", (long long)json_integer_value(json_object_get(r, "attempts")),
               due ? " next=" : "", due ? next : "");
        if (reply) {
            printf(" reply=\"");
            print_safe(stdout, reply);
            putchar('"');
        }
        putchar('\n');
    }
    return 0;
}

static int ask_queue(struct trace *t, json_t *select)
{
    return client_ask(t->ctl,
                      json_pack("{s:s, s:o, s:i}", "request", "queue.list", "select", select,
                                "limit", (int)t->limit),
                      queued_line, t, NULL);
}

static int trace_queue(struct trace *t)
{
    json_t *ids = json_array();
    size_t n = t->count < t->limit ? t->count : t->limit;
    if (client_probe(t->ctl) == CTL_NOT_RUNNING) {
        json_decref(ids);
        return CTL_OK; /* the event log alone is an answer, too */
    }
    for (size_t i = 0; i < n; i++)
        json_array_append_new(ids, json_string(t->found[i].id.text));
    if (n)
        return ask_queue(t, json_pack("{s:o}", "ids", ids));
    json_decref(ids);
    if (!strchr(t->what, '@'))
        return CTL_OK;
    /* unknown to the event log, as when it is not written */
    int status = ask_queue(t, json_pack("{s:s}", "recipient", t->what));
    if (status == CTL_OK && t->queued == 0) {
        t->by_sender = true;
        status = ask_queue(t, json_pack("{s:s}", "sender", t->what));
    }
    return status;
}

/* The event log, or NULL after telling why there is none. */
static FILE *open_log(struct ctl *ctl, const char *file)
{
    const struct config *c = ctl_config(ctl);
    const char *path = file ? file : c ? c->event_log_file : "";
    if (!c)
        return NULL;
    if (!*path) {
        ctl_error(CTL_OK, "event_log_file is not set in main.cf: only the queue is looked at");
        return NULL;
    }
    FILE *log = fopen(path, "re");
    if (!log)
        ctl_error(CTL_OK, "%s: %s; only the queue is looked at", path, strerror(errno));
    return log;
}

static int run_trace(struct trace *t, const char *file)
{
    FILE *log = open_log(t->ctl, file);
    remember(t, t->what, true);
    if (log) {
        if (t->count == 0)
            each_event(t, log, has_what, take_id);
        if (t->count)
            each_event(t, log, any_id, print_event);
        fclose(log);
    }
    if (!t->ctl->config)
        return CTL_FAILED;
    int status = trace_queue(t);
    if (status == CTL_OK && t->count > t->limit && !t->ctl->json)
        printf("These are the latest %zu of %zu messages; --limit shows more.\n", t->limit,
               t->count);
    if (status == CTL_OK && t->printed == 0 && t->queued == 0)
        status = ctl_error(CTL_NOT_FOUND, "neither the event log nor the queue knows of %.200s",
                           t->what);
    return status;
}

int cmd_trace(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const char *limit = NULL, *file = NULL;
    const struct arg args[] = {
        {"--limit", NULL, &limit}, {"--file", NULL, &file}, {NULL, NULL, NULL}};
    uint64_t number = TRACE_LIMIT;
    (void)argc;
    int n = args_parse(ctl, self, args, argv);
    if (n < 0)
        return args_status(n);
    if (n != 1 || !*argv[0])
        return ctl_usage(self, "give one queue ID, Message-ID or address");
    if (limit &&
        (slice_u64(slice_str(limit), &number) < 0 || number == 0 || number > TRACE_LIMIT_MAX))
        return ctl_usage(self, "--limit needs a number from 1 to %d", TRACE_LIMIT_MAX);
    struct slice what = slice_str(argv[0]);
    if (what.len > 2 && what.ptr[0] == '<' && what.ptr[what.len - 1] == '>')
        what = slice_make(what.ptr + 1, what.len - 2);
    char *copy = slice_dup(what);
    struct trace t = {.ctl = ctl, .what = copy, .limit = (size_t)number};
    t.found = xcalloc(t.limit, sizeof *t.found);
    int status = run_trace(&t, file);
    free(t.found);
    free(copy);
    return status;
}

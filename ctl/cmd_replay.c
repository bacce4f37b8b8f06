/* shaping replay: what two sets of rules make of the refusals in an event log. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/map.h"
#include "core/mem.h"
#include "ctl/ctl.h"
#include "ctl/event_log.h"
#include "ctl/replay.h"
#include "domain/organisation.h"
#include "rules/rules.h"
#include "rules/tally.h"

enum {
    SAMPLES = 3,
    SAMPLES_MAX = 100,
    DIFFERENCES_MAX = 5000, /* pairs of rules; further ones are counted together */
    SAMPLE_TEXT = 200,      /* bytes of a reply that are shown */
    ADDRESS_BYTES = 1024    /* of an account or domain */
};

static struct slice pair_key(const void *value)
{
    const struct pair *p = value;
    return slice_make((const char *)p->rules, sizeof p->rules);
}

/* ---- reading ------------------------------------------------------------------------- */

static struct slice text_of(const json_t *event, const char *name)
{
    const json_t *value = json_object_get(event, name);
    return slice_make(json_string_value(value), json_string_length(value));
}

/* Logs of before the stage was in them: most refusals are of recipients. */
static enum rules_stage stage_of(const json_t *event)
{
    struct slice name = text_of(event, "stage");
    for (unsigned k = RULES_CONNECT; k <= RULES_DOT; k++)
        if (slice_eq(name, slice_str(rules_stage_name(k))))
            return k;
    return RULES_RCPT;
}

static struct rules_place find_place(struct rules *set, const json_t *event)
{
    struct slice to = text_of(event, "to"), host = text_of(event, "mx");
    struct rules_place place;
    size_t at = slice_rchr(to, '@');
    rules_place(set, &host, host.len > 0, at < to.len ? slice_from(to, at + 1) : to, &place);
    return place;
}

static const struct rule *match(struct rules *set, const struct rules_place *place,
                                const json_t *event)
{
    struct slice status = text_of(event, "status");
    if (slice_ends(status, SLICE(".0.0"))) /* what the log says where the reply said nothing */
        status = SLICE("");
    struct rules_reply reply = {.stage = stage_of(event),
                                .code =
                                    (unsigned)json_integer_value(json_object_get(event, "code")),
                                .enhanced = status,
                                .text = text_of(event, "text"),
                                .provider = place->provider_index};
    return rules_match(set, &reply);
}

/* ---- counting, as the queue manager does -------------------------------------------------- */

/* Who has a share of its own, as dispatch_sharer names it. */
static void sharer_of(const json_t *event, char out[static ADDRESS_BYTES])
{
    struct slice account = text_of(event, "account"), from = text_of(event, "from");
    char name[DOMAIN_NAME_MAX + 1];
    if (account.len && account.len < ADDRESS_BYTES) {
        memcpy(out, account.ptr, account.len);
        out[account.len] = '\0';
        return;
    }
    _Static_assert((int)ADDRESS_BYTES > (int)DOMAIN_NAME_MAX + 1, "a domain's name finds room");
    struct slice of = domain_organisation(slice_from(from, slice_rchr(from, '@') + 1), name);
    (void)snprintf(out, ADDRESS_BYTES, "@%.*s", SLICE_ARG(of));
}

static struct slice first_of(const json_t *event, const char *const names[], size_t count)
{
    struct slice text = SLICE("");
    for (size_t i = 0; i < count && text.len == 0; i++)
        text = text_of(event, names[i]);
    return text;
}

static struct tally_subject subject_of(const struct rules_place *p, const json_t *event,
                                       char account[static ADDRESS_BYTES])
{
    static const char *const places[] = {"destination", "site", "mx"};
    json_int_t attempts = json_integer_value(json_object_get(event, "attempt"));
    sharer_of(event, account);
    return (struct tally_subject){
        .provider = p->provider,
        .destination = first_of(event, places, sizeof places / sizeof *places),
        .source = text_of(event, "source"),
        .account = slice_str(account),
        .domain = text_of(event, "domain"),
        .attempts = attempts > 0 && attempts < UINT_MAX ? (unsigned)attempts : 0};
}

/* A log of before deliveries had numbers: whether this event is of another one than that
 * before it. */
static bool differs_from_last(struct replay *r, const json_t *event)
{
    struct slice id = text_of(event, "id"), host = text_of(event, "mx");
    char *key = xasprintf("%.*s\n%.*s\n%lld\n%lld", SLICE_ARG(id), SLICE_ARG(host),
                          (long long)json_integer_value(json_object_get(event, "attempt")),
                          (long long)json_integer_value(json_object_get(event, "delivery")));
    bool same = id.len > 0 && r->last && strcmp(r->last, key) == 0;
    free(r->last);
    r->last = key;
    return !same;
}

/* Whether this event is the first of a delivery: mail that waited for a suspension was not
 * tried. */
static bool is_new_delivery(struct replay *r, const json_t *event)
{
    bool number = json_object_get(event, "delivery");
    r->numbered = r->numbered || number;
    return number == r->numbered && differs_from_last(r, event);
}

/* Of a delivery's replies one is what the shaper goes by. */
static bool is_judged(const struct replay *r, const json_t *event, bool new_delivery)
{
    return r->numbered ? json_is_true(json_object_get(event, "judged")) : new_delivery;
}

static void add_sample(const struct replay *r, struct pair *p, const json_t *event)
{
    if (p->sample_count >= r->samples)
        return;
    p->samples = xreallocarray(p->samples, p->sample_count + 1, sizeof *p->samples);
    struct slice id = text_of(event, "id"), text = text_of(event, "text");
    size_t len = text.len < SAMPLE_TEXT ? text.len : SAMPLE_TEXT;
    while (len < text.len && len > 0 && (text.ptr[len] & 0xc0) == 0x80)
        len--; /* not in the middle of a character */
    text = slice_first(text, len);
    p->samples[p->sample_count++] =
        xasprintf("%.*s %lld %.*s", SLICE_ARG(id),
                  (long long)json_integer_value(json_object_get(event, "code")), SLICE_ARG(text));
}

static void differ(struct replay *r, const struct rule *const rules[REPLAY_SETS],
                   const json_t *event)
{
    struct pair probe = {.rules = {rules[0], rules[1]}}, *p = map_get(&r->pairs, pair_key(&probe));
    if (!p && r->pairs.count >= DIFFERENCES_MAX) {
        r->other_differences++;
        return;
    }
    if (!p) {
        p = xcalloc(1, sizeof *p);
        *p = probe;
        map_put(&r->pairs, p);
    }
    p->count++;
    add_sample(r, p, event);
}

/* Whether they would do the same. */
static bool alike(const struct rule *a, const struct rule *b)
{
    if (!a || !b)
        return a == b;
    return strcmp(a->name, b->name) == 0 && a->action == b->action &&
           a->dimension == b->dimension && a->scope == b->scope && a->outcome == b->outcome &&
           a->time == b->time && a->factor >= b->factor && a->factor <= b->factor &&
           a->value >= b->value && a->value <= b->value && a->retry_after == b->retry_after &&
           a->greylist == b->greylist && a->after == b->after && a->period == b->period &&
           a->samples == b->samples && a->fraction >= b->fraction && a->fraction <= b->fraction;
}

/* What a set makes of a refusal: the rule that acts, or NULL. */
static const struct rule *judge(struct replay *r, int set, const struct rules_place *place,
                                const json_t *event, bool judged)
{
    char account[ADDRESS_BYTES];
    const struct rule *rule = match(r->sets[set], place, event);
    if (!rule) {
        r->nobody[set]++;
        return NULL;
    }
    unsigned index = rules_index(r->sets[set], rule);
    const struct tally_subject s = subject_of(place, event, account);
    r->matches[set][index]++;
    bool acts = tallies_counts(rule)
                    ? judged && tallies_acts(r->tallies[set], rule, index, &s, r->divisor, r->now)
                    : true;
    if (!acts)
        return NULL;
    r->counts[set][index]++;
    return rule;
}

static void take_event(struct replay *r, const json_t *event)
{
    const struct rule *found[REPLAY_SETS];
    struct rules_place places[REPLAY_SETS];
    char account[ADDRESS_BYTES];
    double time = json_number_value(json_object_get(event, "time")) * 1e6;
    const char *name = json_string_value(json_object_get(event, "event"));
    json_int_t code = json_integer_value(json_object_get(event, "code"));
    bool refused = name && (strcmp(name, "deferred") == 0 || strcmp(name, "bounced") == 0);
    if (!refused && !(name && strcmp(name, "delivered") == 0))
        return;
    r->attempts++;
    if (time > (double)r->now && time < 9e18)
        r->now = (int64_t)time;
    bool new_delivery = is_new_delivery(r, event);
    for (int k = 0; k < REPLAY_SETS; k++) {
        places[k] = find_place(r->sets[k], event);
        const struct tally_subject s = subject_of(&places[k], event, account);
        if (new_delivery)
            tallies_tried(r->tallies[k], r->scopes[k], &s, r->now);
    }
    if (!refused || json_is_true(json_object_get(event, "local")) || code < 400 || code > 599)
        return;
    r->refusals++;
    for (int k = 0; k < REPLAY_SETS; k++)
        found[k] = judge(r, k, &places[k], event, is_judged(r, event, new_delivery));
    if (!alike(found[0], found[1]))
        differ(r, found, event);
}

/* Whether it is an event: an object with its name. */
static bool take_line(struct replay *r, const char *line)
{
    bool event = line[0] == '{' && strstr(line, "\"event\"");
    if (!event || !strstr(line, "\"code\"")) /* a cheap look: logs are long */
        return event;
    json_t *parsed = json_loads(line, 0, NULL);
    bool object = json_is_object(parsed);
    if (object)
        take_event(r, parsed);
    json_decref(parsed);
    return object;
}

static int read_log(struct replay *r, struct event_log *log, struct err *e)
{
    const char *line, *unpacker = NULL;
    int rc;
    while ((rc = event_log_next(log, &line, e)) > 0) {
        if (log->lines == 1)
            unpacker = event_log_unpacker(line);
        r->bad_lines += !take_line(r, line);
    }
    if (rc < 0)
        return -1;
    if (unpacker)
        return err_set(e, "%s: is compressed: %s FILE | postern shaping replay - --rules ...",
                       log->path, unpacker);
    if (r->attempts == 0 && r->bad_lines > 0)
        return err_set(e,
                       "%s: is no event log: %lu of its %lu lines were not understood, and none "
                       "tells of a delivery; see event_log_file in main.cf",
                       log->path, r->bad_lines, log->lines);
    return 0;
}

/* ---- the command ------------------------------------------------------------------------ */

static void drop_pair(void *value)
{
    struct pair *p = value;
    for (unsigned i = 0; i < p->sample_count; i++)
        free(p->samples[i]);
    free(p->samples);
    free(p);
}

static int run(struct replay *r, struct event_log *log)
{
    for (int k = 0; k < REPLAY_SETS; k++) {
        r->counts[k] = xcalloc(rules_count(r->sets[k]) + 1UL, sizeof *r->counts[k]);
        r->matches[k] = xcalloc(rules_count(r->sets[k]) + 1UL, sizeof *r->matches[k]);
        r->tallies[k] = tallies_new();
        r->scopes[k] = tallies_scopes(r->sets[k]);
    }
    map_init(&r->pairs, pair_key);
    struct err e;
    int status = read_log(r, log, &e) == 0 ? CTL_OK : ctl_error(CTL_FAILED, "%s", e.text);
    if (status == CTL_OK)
        replay_print(r);
    map_clear(&r->pairs, drop_pair);
    map_free(&r->pairs);
    for (int k = 0; k < REPLAY_SETS; k++) {
        free(r->counts[k]);
        free(r->matches[k]);
        tallies_free(r->tallies[k]);
    }
    free(r->last);
    return status;
}

static int load_and_run(struct replay *r, const char *log, const char *tried, const char *against)
{
    int status = CTL_FAILED;
    struct event_log in;
    struct err e;
    if (event_log_open(&in, log, &e) < 0)
        return ctl_error(CTL_FAILED, "%s", e.text);
    r->sets[0] = provider_load(r->ctl, against);
    r->sets[1] = r->sets[0] ? provider_load(r->ctl, tried) : NULL;
    if (r->sets[1])
        status = run(r, &in);
    for (int k = 0; k < REPLAY_SETS; k++)
        if (r->sets[k])
            rules_free(r->sets[k]);
    event_log_close(&in);
    return status;
}

int cmd_shaping_replay(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const char *tried = NULL, *against = NULL, *samples = NULL;
    const struct arg args[] = {{"--rules", NULL, &tried},
                               {"--against", NULL, &against},
                               {"--samples", NULL, &samples},
                               {NULL, NULL, NULL}};
    struct replay r = {.ctl = ctl, .samples = SAMPLES};
    uint64_t number;
    (void)argc;
    int n = args_parse(ctl, self, args, argv);
    if (n < 0)
        return args_status(n);
    if (n != 1 || !tried)
        return ctl_usage(self, "give an event log, and with --rules a file");
    if (samples && (slice_u64(slice_str(samples), &number) < 0 || number > SAMPLES_MAX))
        return ctl_usage(self, "--samples takes a number up to 100");
    if (samples)
        r.samples = (unsigned)number;
    const struct config *c = ctl_config(ctl);
    if (!c)
        return CTL_FAILED;
    r.divisor = (unsigned)c->shaping_time_divisor;
    against = against ? against : c->provider_config_file;
    if (!*against)
        return ctl_error(CTL_FAILED,
                         "provider_config_file is empty: say with --against what to compare with");
    return load_and_run(&r, argv[0], tried, against);
}

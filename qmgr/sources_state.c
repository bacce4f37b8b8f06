/* What is known of sources, over restarts: a line of JSON for each. */
#include <arpa/inet.h>
#include <jansson.h>
#include <stdio.h>

#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/sources.h"

#define STATE_FILE "sources.state"
enum {
    SAVE_SECONDS = 10,
    SAVE_SECONDS_MANY = 60, /* with more than so many sources: */
    MANY = 200,
    NAME_MAX_KEPT = SITE_NAME_MAX + 64, /* of a provider, or a destination's key */
    /* counts that a turn writes, some milliseconds; and that one line has at most */
    SLICE_COUNTS = 1000,
    LINE_COUNTS = 500
};

/* ---- saving ------------------------------------------------------------------------------ */

static void put_counts(struct buf *b, const struct source_record *r)
{
    json_list(b, NULL);
    json_str(b, NULL, slice_str(r->provider));
    json_int(b, NULL, r->day);
    for (int i = 0; i < SOURCE_DAYS; i++) {
        const struct source_counts *c = &r->days[i];
        json_int(b, NULL, c->accepted);
        json_int(b, NULL, c->deferred);
        json_int(b, NULL, c->rejected);
        json_int(b, NULL, c->blocked);
    }
    json_list_end(b);
}

static void put_shares(struct buf *b, const struct source *s)
{
    json_list(b, "senders");
    for (int i = 0; i < SOURCE_SHARES; i++) {
        if (!s->shares[i].name)
            continue;
        json_list(b, NULL);
        json_str(b, NULL, slice_str(s->shares[i].name));
        json_int(b, NULL, (int64_t)s->shares[i].recipients);
        json_int(b, NULL, (int64_t)s->shares[i].refused);
        json_list_end(b);
    }
    json_list_end(b);
}

/* The name and addresses by which a line is known to be of this source. */
static void begin_line(struct buf *b, const struct qmgr *q, const struct source *s)
{
    char text[80];
    json_begin(b);
    json_str(b, "name", slice_str(s->name));
    json_str(b, "addresses", slice_str(source_addresses(s, text)));
    json_int(b, "day", sources_day_length(q));
}

static void end_line(struct buf *b)
{
    json_end(b);
    buf_addc(b, '\n');
}

static void put_source(struct buf *b, const struct qmgr *q, const struct source *s)
{
    int64_t wall = clock_wall(), until = s->suspended_until;
    if (until < INT64_MAX)
        until = until > q->now ? wall + (until - q->now) : 0;
    begin_line(b, q, s);
    json_int(b, "began", s->began);
    json_int(b, "written", wall);
    json_int(b, "suspended_until", until);
    json_str(b, "reason", slice_str(s->reason));
    json_str(b, "listed", slice_str(s->listed_zones));
    json_str(b, "forgiven", slice_str(s->forgiven_zones));
    json_str(b, "listed_text", slice_str(s->listed_text));
    json_int(b, "listed_since", s->listed_since);
    json_int(b, "senders_day", s->shares_day);
    put_shares(b, s);
    json_list(b, "providers");
    for (size_t i = 0; i < s->record_count; i++)
        put_counts(b, s->records[i]);
    json_list_end(b);
    end_line(b);
}

/* What daily caps of single destinations have counted: a further line of their source. Returns how
 * many were looked at. */
static size_t put_places(struct buf *b, const struct qmgr *q, struct sources_saving *v)
{
    const struct source *s = v->of;
    size_t looked = 0;
    begin_line(b, q, s);
    json_bool(b, "more", true);
    json_list(b, "destinations");
    while (looked++ < LINE_COUNTS) {
        if (v->place->next == &s->place_list || v->places >= SOURCE_PLACES_KEPT) {
            v->of = NULL;
            break;
        }
        v->place = v->place->next;
        const struct source_record *r = container_of(v->place, struct source_record, of_source);
        if (r->days[r->day % SOURCE_DAYS].accepted == 0)
            continue;
        put_counts(b, r);
        v->places++;
    }
    json_list_end(b);
    end_line(b);
    return looked;
}

/* Its own line; its places follow. Returns what that counts as. */
static size_t begin_source(struct buf *b, const struct qmgr *q, struct sources_saving *v,
                           struct source *s)
{
    put_source(b, q, s);
    v->of = list_empty(&s->place_list) ? NULL : s;
    v->place = &s->place_list;
    v->places = 0;
    return 1 + s->record_count;
}

static bool put(struct qmgr *q, struct buf *b, bool first)
{
    struct sources *all = q->from;
    struct sources_saving *v = &all->saving;
    size_t count = 0;
    if (first) {
        bool many = all->conf && all->conf->count > MANY;
        all->file.pause = (many ? SAVE_SECONDS_MANY : SAVE_SECONDS) * CLOCK_SECOND;
        v->last = &all->all;
        count = begin_source(b, q, v, all->plain);
    }
    while (count < SLICE_COUNTS) {
        if (v->of) {
            count += put_places(b, q, v);
            continue;
        }
        if (v->last->next == &all->all)
            return false;
        v->last = v->last->next;
        count += begin_source(b, q, v, container_of(v->last, struct source, all));
    }
    return true;
}

void sources_saving_without(struct sources *all, const struct source *s)
{
    if (all->saving.last == &s->all)
        all->saving.last = s->all.prev;
    if (all->saving.of == s)
        all->saving.of = NULL;
}

void sources_saving_without_place(struct sources *all, const struct source_record *r)
{
    if (all->saving.of == r->source && all->saving.place == &r->of_source)
        all->saving.place = r->of_source.prev;
}

void sources_save_soon(struct qmgr *q)
{
    q->from->file.save_at = q->now;
}

/* ---- loading ------------------------------------------------------------------------------- */

static int64_t number(const json_t *value)
{
    return json_is_integer(value) ? json_integer_value(value) : 0;
}

static char *text_of(const json_t *o, const char *name, size_t max)
{
    const char *text = json_string_value(json_object_get(o, name));
    return slice_dup(slice_first(slice_str(text), max));
}

static void take_text(const json_t *o, const char *name, size_t max, char **out)
{
    free(*out);
    *out = text_of(o, name, max);
}

static uint32_t count_of(const json_t *list, size_t at)
{
    int64_t n = number(json_array_get(list, at));
    return n < 0 ? 0 : n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static void take_counts(struct source *s, const json_t *list,
                        struct source_record *(*place)(struct source *s, struct slice name))
{
    const char *name = json_string_value(json_array_get(list, 0));
    if (!name || strlen(name) > NAME_MAX_KEPT)
        return;
    struct source_record *r = place(s, slice_str(name));
    r->day = number(json_array_get(list, 1));
    r->day = r->day < 0 ? 0 : r->day;
    for (size_t i = 0; i < SOURCE_DAYS; i++)
        r->days[i] = (struct source_counts){count_of(list, 2 + 4 * i), count_of(list, 3 + 4 * i),
                                            count_of(list, 4 + 4 * i), count_of(list, 5 + 4 * i)};
}

static void take_shares(struct source *s, const json_t *list)
{
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        const char *name = json_string_value(json_array_get(one, 0));
        if (i >= SOURCE_SHARES || !name || !*name || strlen(name) > ACCOUNT_MAX)
            continue;
        struct source_share *share = source_share(s, slice_str(name));
        share->recipients = count_of(one, 1);
        share->refused = count_of(one, 2);
    }
}

/* "192.0.2.1, 2001:db8::1" */
static int take_addresses(const char *text, struct source_conf *out)
{
    struct slice rest = slice_str(text);
    while (rest.len) {
        char one[INET6_ADDRSTRLEN];
        struct slice part = slice_trim(slice_cut(&rest, ','));
        if (part.len == 0 || part.len >= sizeof one)
            return -1;
        memcpy(one, part.ptr, part.len);
        one[part.len] = '\0';
        if (inet_pton(AF_INET, one, out->v4) == 1)
            out->has_v4 = true;
        else if (inet_pton(AF_INET6, one, out->v6) == 1)
            out->has_v6 = true;
        else
            return -1;
    }
    return out->has_v4 || out->has_v6 ? 0 : -1;
}

static void take_all_counts(struct source *s, const json_t *o)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(o, "providers"), i, one) take_counts(s, one, source_record);
    json_array_foreach(json_object_get(o, "destinations"), i, one)
        take_counts(s, one, source_place);
}

/* Until when it is suspended by hand; monotonic. */
static int64_t suspended(const struct qmgr *q, const json_t *o)
{
    int64_t most = SOURCE_SUSPENDED_DAYS * INT64_C(86400) * CLOCK_SECOND,
            until = number(json_object_get(o, "suspended_until"));
    if (until == INT64_MAX)
        return until;
    int64_t left = kept_left(until, number(json_object_get(o, "written")));
    return left > 0 ? q->now + (left < most ? left : most) : 0;
}

/* What is of the source itself, not of where it sends to. */
static void take_state(const struct qmgr *q, struct source *s, const json_t *o)
{
    s->began = number(json_object_get(o, "began"));
    s->suspended_until = suspended(q, o);
    take_text(o, "reason", SOURCE_REASON_MAX, &s->reason);
    take_text(o, "listed", SOURCES_LISTS_MAX * (SOURCES_HOST_MAX + 1), &s->listed_zones);
    take_text(o, "forgiven", SOURCES_LISTS_MAX * (SOURCES_HOST_MAX + 1), &s->forgiven_zones);
    take_text(o, "listed_text", SOURCE_REASON_MAX, &s->listed_text);
    s->listed_since = number(json_object_get(o, "listed_since"));
    s->shares_day = number(json_object_get(o, "senders_day"));
    take_shares(s, json_object_get(o, "senders"));
}

/* A further line of the source before. */
static int take_more(struct qmgr *q, const json_t *o, const struct source_conf *c)
{
    struct source *s = container_of(q->from->all.prev, struct source, all);
    if (list_empty(&q->from->all) || !source_is(s, c))
        return -1;
    take_all_counts(s, o);
    return 0;
}

static int take_source(struct qmgr *q, const json_t *o, struct source_conf *c)
{
    const char *addresses = json_string_value(json_object_get(o, "addresses"));
    if (!addresses || take_addresses(addresses, c) < 0)
        return -1;
    if (json_is_true(json_object_get(o, "more")))
        return take_more(q, o, c);
    if (q->from->numbers[SOURCES_MAX])
        return -1;
    struct source *s = source_new(q->from, c);
    take_state(q, s, o);
    take_all_counts(s, o);
    return 0;
}

static int take(struct qmgr *q, const json_t *o)
{
    if (number(json_object_get(o, "day")) != sources_day_length(q))
        return 0; /* its counts are of other days */
    struct source_conf c = {.name = text_of(o, "name", SOURCES_NAME_MAX)};
    int rc = 0;
    if (*c.name)
        rc = take_source(q, o, &c);
    else
        take_all_counts(q->from->plain, o);
    free(c.name);
    return rc;
}

void sources_load(struct qmgr *q)
{
    queue_tick(q);
    q->from->file = (struct kept_file){.writing.name = STATE_FILE, .put = put};
    kept_file_load(&q->from->file, q, take,
                   "what sources have sent is counted anew, warm-ups included");
}

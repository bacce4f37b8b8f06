/* A lane in words: limits in force, learned and configured, state, last changes with the
 * rule that caused them, what is next. For the control socket, the log and events. */
#include <arpa/inet.h>
#include <stdio.h>

#include "core/json.h"
#include "core/log.h"
#include "qmgr/qmgr.h"
#include "qmgr/seats.h"
#include "qmgr/shaping_show.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"
#include "rules/rules.h"

void shaping_put_number(struct buf *b, const char *name, double value)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%.*f", value < 1 ? 6 : value < 10 ? 3 : 1, value);
    json_raw(b, name, slice_make(text, (size_t)n));
}

struct slice lane_source(const struct lane *l, char text[static LANE_SOURCE_MAX])
{
    struct slice address = lane_address(l);
    int family = address.len == 4 ? AF_INET : AF_INET6;
    if (address.len == 0 || !inet_ntop(family, address.ptr, text, LANE_SOURCE_MAX))
        return SLICE("");
    return slice_str(text);
}

struct slice lane_source6(const struct lane *l, char text[static LANE_SOURCE_MAX])
{
    const struct source *s = l->from;
    bool both = s && s->has_v4 && s->has_v6 && inet_ntop(AF_INET6, s->v6, text, LANE_SOURCE_MAX);
    return slice_str(both ? text : "");
}

void rules_put_where(struct buf *b, const struct rule *rule)
{
    char where[512];
    int n = snprintf(where, sizeof where, "%s:%d", rule->file, rule->line);
    json_str(b, "where", slice_first(slice_make(where, (size_t)n), sizeof where - 1));
}

static void put_rule(const struct rule *rule, struct buf *b)
{
    if (!rule)
        return;
    json_str(b, "rule", slice_str(rule->name));
    rules_put_where(b, rule);
}

static const struct rule *rule_of(const struct qmgr *q, const struct shaper_event *e)
{
    return e->rule && q->shaping.rules ? rules_at(q->shaping.rules, e->rule - 1u) : NULL;
}

static bool is_time(uint8_t change)
{
    return change >= SHAPER_DOOR_SHUT && change <= SHAPER_OPEN_AGAIN;
}

/* Of the last change that suspended it, or opened it again; 0: none. */
static uint16_t rule_of_door(const struct shaper *s)
{
    for (unsigned i = 1; i <= SHAPER_EVENTS; i++) {
        const struct shaper_event *e = &s->events[(s->events_next - i) % SHAPER_EVENTS];
        if (e->when && is_time(e->change))
            return e->rule;
    }
    return 0;
}

const struct rule *shaping_rule_of_suspension(const struct qmgr *q, const struct shaper *s)
{
    uint16_t number = s->suspended_until > q->now ? rule_of_door(s) : 0;
    return number && q->shaping.rules ? rules_at(q->shaping.rules, number - 1u) : NULL;
}

static void put_event(const struct qmgr *q, const struct shaper_event *e, struct buf *b)
{
    json_str(b, "change", slice_str(shaper_change_name(e->change)));
    if (is_time(e->change)) {
        shaping_put_number(b, "seconds", (double)(e->after > 0 ? e->after : e->before));
    } else {
        shaping_put_number(b, "before", (double)e->before);
        shaping_put_number(b, "after", (double)e->after);
    }
    put_rule(rule_of(q, e), b);
}

/* The door: nothing, or one message, is let through. */
static bool state_of_door(const struct shaper *s, int64_t now, struct lane_state *out)
{
    if (s->suspended_until > now) {
        out->when = s->suspended_until;
        out->room = SHAPER_SUSPENDED;
        out->code = s->unreachable ? "unreachable" : "suspended";
        out->words = s->unreachable ? "suspended: cannot be reached"
                                    : "suspended: it refuses everything or told us to stay away";
        return true;
    }
    if (s->probing) {
        out->code = "probe";
        out->words = s->in_flight ? "probing with one message" : "the next message is a probe";
    }
    return s->probing;
}

bool shaper_state(struct shaper *s, int64_t now, struct lane_state *out)
{
    *out = (struct lane_state){.room = SHAPER_GO, .code = "open", .words = "open"};
    if (state_of_door(s, now, out))
        return true;
    bool full = s->window_full, held = s->held;
    out->room = shaper_room(s, now, &out->when);
    s->held = held;
    s->window_full = full; /* to look is not to want */
    if (out->room == SHAPER_FULL) {
        out->code = "connections";
        out->words = "as many deliveries as allowed are under way";
    } else if (out->room == SHAPER_LATER) {
        bool rate = s->next_start > now,
             connection = shaper_connection_rate(s) > 0 && s->connecting.none_open;
        out->code = rate ? "rate" : connection ? "new_connections" : "connections";
        out->words = rate         ? "waiting for the rate"
                     : connection ? "waiting until a new connection is allowed"
                                  : "as many deliveries as allowed are under way";
    } else if (s->beyond) {
        out->words = "trying a higher rate";
    }
    return out->room != SHAPER_GO;
}

void lane_state(const struct qmgr *q, struct lane *l, struct lane_state *out)
{
    int64_t now = q->now;
    const struct halt *halt = halts_at(q, l->group, l->from);
    if (halt) {
        *out = (struct lane_state){.room = SHAPER_SUSPENDED,
                                   .code = "suspended_by_hand",
                                   .words = "suspended by hand",
                                   .when = halt->until < INT64_MAX ? halt->until : 0,
                                   .halt = halt};
        return;
    }
    if (shaper_state(&l->shaper, now, out))
        return;
    if (whole_holds(l, now, &out->when)) {
        out->room = out->when ? SHAPER_LATER : SHAPER_FULL;
        out->code = "all_sources";
        out->words = "waiting for the limits over all source addresses of its provider";
    } else if (l->queued == 0 && lane_room(q, l) == 0) {
        out->room = SHAPER_LATER;
        out->code = "daily_cap";
        out->words = "what may go there today has been sent, or is under way";
        out->when = sources_day_ends(q);
    } else if (strain_is(&l->shaper.strain)) {
        out->words = "open, but it takes long to answer: no growth";
    }
}

void shaping_put_learned(const struct shaper *s, struct buf *b)
{
    if (s->failed_rate > 0)
        shaping_put_number(b, "rate_failed", s->failed_rate);
    if (s->window_failed)
        json_int(b, "concurrency_failed", s->window_failed);
    if (s->messages)
        json_int(b, "messages_per_connection", s->messages);
    if (s->connecting.rate > 0)
        shaping_put_number(b, "connection_rate", (double)s->connecting.rate);
}

static void put_learned(const struct lane *l, struct buf *b)
{
    json_member(b, "learned");
    shaping_put_learned(&l->shaper, b);
    if (l->mail_max)
        json_int(b, "messages_announced", l->mail_max);
    if (l->greylist.refused)
        json_seconds(b, "greylist_refused", l->greylist.refused);
    if (l->greylist.passed)
        json_seconds(b, "greylist_passed", l->greylist.passed);
    json_end(b);
}

static void put_sign(const char *name, const struct strain_sign *s, struct buf *b)
{
    if (s->now <= 0)
        return;
    json_member(b, name);
    shaping_put_number(b, "now", (double)s->now);
    shaping_put_number(b, "usual", (double)s->usual);
    json_end(b);
}

static void put_strain(const struct strain *s, struct buf *b)
{
    put_sign("reply_seconds", &s->reply, b);
    put_sign("greeting_seconds", &s->greeting, b);
    json_bool(b, "strained", strain_is(s));
}

static void put_configured(const struct shaper_limits *l, struct buf *b)
{
    json_member(b, "configured");
    json_int(b, "connections", l->concurrency);
    json_int(b, "start_connections", l->initial);
    shaping_put_number(b, "start_rate", l->start_rate);
    if (l->rate > 0)
        shaping_put_number(b, "message_rate", l->rate);
    if (l->messages)
        json_int(b, "messages_per_connection", l->messages);
    if (l->daily_cap)
        json_int(b, "daily_cap", l->daily_cap);
    if (l->connection_rate > 0)
        shaping_put_number(b, "connection_rate", l->connection_rate);
    if (l->account_connections)
        json_int(b, "account_connections", l->account_connections);
    if (l->account_connections_max)
        json_int(b, "account_connections_max", l->account_connections_max);
    if (l->account_message_rate > 0)
        shaping_put_number(b, "account_message_rate", l->account_message_rate);
    json_end(b);
}

void shaping_put_events(const struct qmgr *q, const struct shaper *s, struct buf *b)
{
    json_list(b, "events");
    for (unsigned i = 0; i < SHAPER_EVENTS; i++) {
        const struct shaper_event *e = &s->events[(s->events_next + i) % SHAPER_EVENTS];
        if (!e->when)
            continue;
        json_begin(b);
        json_seconds(b, "age", (clock_tenths(q->now) - e->when) * (CLOCK_SECOND / 10));
        put_event(q, e, b);
        json_end(b);
    }
    json_list_end(b);
}

static void put_times(const struct qmgr *q, const struct lane *l, const struct lane_state *state,
                      struct buf *b)
{
    const struct shaper *s = &l->shaper;
    const struct halt *halt = state->halt;
    bool shut = s->suspended_until > q->now;
    int64_t until = halt ? halt->until : s->suspended_until;
    json_bool(b, "suspended", halt || shut);
    if ((halt || shut) && until < INT64_MAX)
        json_seconds(b, "suspended_for", until - q->now);
    if (halt) {
        json_str(b, "suspended_as", slice_str(halt->name));
        json_str(b, "reason", slice_str(halt->reason));
    } else {
        put_rule(shaping_rule_of_suspension(q, s), b);
        if (shut && l->blocked)
            json_bool(b, "blocked", true);
    }
    if (state->when > q->now)
        json_seconds(b, "next_in", state->when - q->now);
    if (!halt && (shut || s->probing))
        json_seconds(b, "next_probe_in", shut ? s->suspended_until - q->now : 0);
}

void lane_show(struct qmgr *q, struct lane *l, bool whole, struct buf *b)
{
    struct shaper *s = &l->shaper;
    char source[LANE_SOURCE_MAX];
    struct lane_state state;
    lane_state(q, l, &state);
    json_str(b, "destination", slice_str(l->group->name));
    if (l->group->provider)
        json_str(b, "provider", slice_str(l->group->provider));
    json_str(b, "source", lane_source(l, source));
    if (lane_source6(l, source).len)
        json_str(b, "source6", lane_source6(l, source));
    if (l->from)
        json_str(b, "source_name", slice_str(l->from->name));
    json_str(b, "state", slice_str(state.words));
    json_str(b, "state_code", slice_str(state.code));
    json_int(b, "queued", l->queued);
    json_int(b, "in_flight", s->in_flight);
    json_int(b, "open", l->open);
    shaping_put_number(b, "rate", s->rate);
    json_int(b, "concurrency", shaper_window(s));
    json_int(b, "concurrency_limit", l->shaper.limits->concurrency);
    json_int(b, "messages_per_connection", shaper_messages(s));
    if (shaper_connection_rate(s) > 0)
        shaping_put_number(b, "connection_rate", shaper_connection_rate(s));
    json_seconds(b, "rate_delay", l->shaper.limits->rate_delay);
    json_bool(b, "probing", s->probing);
    put_times(q, l, &state, b);
    if (!whole)
        return;
    put_strain(&s->strain, b);
    put_learned(l, b);
    put_configured(l->shaper.limits, b);
    lane_show_day(q, l, b);
    seats_show(q, l->group, b);
    shaping_put_events(q, s, b);
}

/* ---- log and events -------------------------------------------------------------------- */

/* Whose limits have changed. */
struct changed {
    const struct shaper *shaper;
    const char *name, *more; /* of the destination; ", all sources" */
    struct slice source;
    const struct answer *last; /* its last refusal, or NULL */
};

static void log_change(const struct qmgr *q, const struct changed *c, const struct shaper_event *e)
{
    const struct rule *rule = rule_of(q, e);
    struct buf text = BUF_INIT(4096);
    if (is_time(e->change))
        buf_printf(&text, "%.1fs", (double)(e->after > 0 ? e->after : e->before));
    else
        buf_printf(&text, "%.2f -> %.2f", (double)e->before, (double)e->after);
    if (rule)
        buf_printf(&text, ", rule %s (%s:%d)", rule->name, rule->file, rule->line);
    bool caused = e->change != SHAPER_OPEN_AGAIN && e->change != SHAPER_RATE_BEYOND;
    if (caused && c->last && e->change < SHAPER_OPEN_AGAIN) {
        buf_addstr(&text, ": ");
        answer_describe(c->last, &text);
    }
    log_info("shaping %s%s: %s: %.*s", log_esc(slice_str(c->name)), c->more,
             shaper_change_name(e->change), SLICE_ARG(buf_slice(&text)));
    buf_free(&text);
}

static void tell_changes(struct qmgr *q, const struct changed *c, uint8_t from)
{
    const struct shaper *s = c->shaper;
    if ((uint8_t)(s->events_next - from) > SHAPER_EVENTS)
        from = (uint8_t)(s->events_next - SHAPER_EVENTS);
    for (; from != s->events_next; from++) {
        const struct shaper_event *e = &s->events[from % SHAPER_EVENTS];
        struct buf *b = events_begin(q, "shaping");
        log_change(q, c, e);
        if (!b)
            continue;
        json_str(b, "destination", slice_str(c->name));
        json_str(b, "source", c->source);
        put_event(q, e, b);
        if (e->rule && c->last) {
            json_int(b, "code", c->last->code);
            json_str(b, "text", answer_text(c->last));
        }
        events_end(b);
    }
}

void events_shaping(struct qmgr *q, const struct lane *l, uint8_t from)
{
    char source[LANE_SOURCE_MAX];
    if (from == l->shaper.events_next)
        return;
    tell_changes(q,
                 &(struct changed){&l->shaper, l->group->name, "", lane_source(l, source), l->last},
                 from);
}

void events_shaping_all(struct qmgr *q, const struct shaper *s, const char *name,
                        const struct answer *last, uint8_t from)
{
    tell_changes(q, &(struct changed){s, name, ", all sources", SLICE("all"), last}, from);
}

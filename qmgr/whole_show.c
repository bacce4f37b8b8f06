/* Limits over all sources, told to people: as for a lane (shaping_show.c), what is in force,
 * learned and configured, the state, when it goes on, and the last changes with their rules. */
#include "core/json.h"
#include "qmgr/shaping_show.h"
#include "qmgr/whole.h"

static void put_in_force(const struct shaper *s, struct buf *b)
{
    if (shaper_window(s) < WHOLE_FREE)
        json_int(b, "concurrency", shaper_window(s));
    if (s->rate < WHOLE_FREE)
        shaping_put_number(b, "rate", s->rate);
    if (shaper_connection_rate(s) > 0)
        shaping_put_number(b, "connection_rate", shaper_connection_rate(s));
}

static void put_configured(const struct shaper_limits *l, struct buf *b)
{
    json_member(b, "configured");
    if (l->concurrency < WHOLE_FREE)
        json_int(b, "connections", l->concurrency);
    if (l->rate > 0)
        shaping_put_number(b, "message_rate", l->rate);
    if (l->connection_rate > 0)
        shaping_put_number(b, "connection_rate", l->connection_rate);
    json_end(b);
}

static void put_times(const struct qmgr *q, const struct shaper *s, const struct lane_state *state,
                      struct buf *b)
{
    bool suspended = s->suspended_until > q->now;
    if (suspended)
        json_seconds(b, "suspended_for", s->suspended_until - q->now);
    if (state->when > q->now)
        json_seconds(b, "next_in", state->when - q->now);
    if (suspended || s->probing)
        json_seconds(b, "next_probe_in", suspended ? s->suspended_until - q->now : 0);
}

void whole_show(struct qmgr *q, const struct group *g, struct buf *b)
{
    struct whole *w = g->whole;
    struct lane_state state;
    if (!w)
        return;
    struct shaper *s = &w->shaper;
    (void)shaper_state(s, q->now, &state);
    json_member(b, "all_sources");
    json_str(b, "of", slice_str(w->name));
    json_str(b, "state", slice_str(state.words));
    json_str(b, "state_code", slice_str(state.code));
    json_int(b, "in_flight", s->in_flight);
    json_int(b, "open", w->open);
    put_in_force(s, b);
    json_bool(b, "probing", s->probing);
    put_times(q, s, &state, b);
    json_member(b, "learned");
    shaping_put_learned(s, b);
    json_end(b);
    put_configured(&w->limits, b);
    if (w->last) {
        struct buf text = BUF_INIT(8 * ANSWER_TEXT_MAX);
        answer_describe(w->last, &text);
        json_str(b, "last_refusal", buf_slice(&text));
        buf_free(&text);
    }
    shaping_put_events(q, s, b);
    json_end(b);
}

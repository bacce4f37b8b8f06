#include "qmgr/shaper.h"

#include "core/clock.h"
#include "qmgr/shaper_inside.h"

/*
 * The controller's whole: what may start, what came of it, what the operator says. Its
 * loops are in shaper_rate.c, shaper_window.c, shaper_door.c and connect_rate.c.
 *
 * The constants were chosen with t/bench/shaper-sim, which runs the controller
 * against models of limiters (token buckets, fixed windows, penalty boxes, slow
 * servers); the figures are in doc/operators-guide.md.
 */

/* ---- time: minutes, because providers answer in minutes ---------------------- */
static const int64_t GROWTH = 60 * CLOCK_SECOND;     /* doubling; 20/s to 160/s in 3 minutes */
static const int64_t HOLD = 300 * CLOCK_SECOND;      /* longer wastes what a raised limit offers, */
static const int64_t KNOCK = 60 * CLOCK_SECOND;      /* shorter costs a refusal too often */
static const int64_t KNOCK_MAX = 480 * CLOCK_SECOND; /* so long a reopened door stays unused */
static const int64_t DEFER = 600 * CLOCK_SECOND;     /* worth a log line a message, and a place out
                                                      * of the line */

/* ---- not divided for simulations: they follow the network, not the provider ---- */
static const int64_t SLACK = CLOCK_SECOND / 10;   /* lateness that may be caught up on: timers
                                                   * and a busy machine, not a burst */
static const int64_t SPACED = CLOCK_SECOND / 200; /* the least pace that timers keep */
static const int64_t PROVEN = 30 * CLOCK_SECOND;  /* a success says so long that the path works */

void shaper_times_init(struct shaper_times *t, unsigned divisor)
{
    int64_t by = divisor ? divisor : 1;
    *t = (struct shaper_times){.growth = GROWTH / by,
                               .hold = HOLD / by,
                               .knock = KNOCK / by,
                               .knock_max = KNOCK_MAX / by,
                               .defer = DEFER / by};
}

double shaper_rate_bound(const struct shaper *s)
{
    return s->limits->rate > 0 ? s->limits->rate : SHAPER_RATE_FREE;
}

void shaper_init(struct shaper *s, const struct shaper_limits *limits)
{
    *s = (struct shaper){.limits = limits,
                         .window = limits->initial,
                         .rate = limits->start_rate,
                         .rate_hold = limits->times.hold,
                         .window_hold = limits->times.hold,
                         .messages_patience = 32};
    if (s->window > limits->concurrency)
        s->window = limits->concurrency;
    if (s->rate <= 0 || s->rate > shaper_rate_bound(s))
        s->rate = shaper_rate_bound(s);
}

void shaper_note(struct shaper *s, enum shaper_change change, double before, double after,
                 uint16_t rule, int64_t now)
{
    s->events[s->events_next++ % SHAPER_EVENTS] = (struct shaper_event){
        clock_tenths(now), (float)before, (float)after, rule, (uint8_t)change};
}

uint32_t shaper_window(const struct shaper *s)
{
    uint32_t window = (uint32_t)s->window, bound = s->limits->concurrency;
    window = window < bound ? window : bound;
    return s->probing || window < 1 ? 1 : window;
}

uint32_t shaper_messages(const struct shaper *s)
{
    uint32_t bound = s->limits->messages;
    return bound == 0 || (s->messages && s->messages < bound) ? s->messages : bound;
}

bool shaper_works(const struct shaper *s, int64_t now)
{
    return s->proven && now - s->proven < PROVEN && !s->probing;
}

static struct connect_bounds connect_bounds(const struct shaper *s)
{
    const struct shaper_limits *l = s->limits;
    return (struct connect_bounds){l->connection_rate, l->times.growth, l->times.hold};
}

double shaper_connection_rate(const struct shaper *s)
{
    const struct connect_bounds b = connect_bounds(s);
    return connect_rate_limit(&s->connecting, &b);
}

/* ---- may it start? ------------------------------------------------------------ */

enum shaper_room shaper_room(struct shaper *s, int64_t now, int64_t *when)
{
    if (s->suspended_until > now) {
        *when = s->suspended_until;
        bool quiet = !s->unreachable && s->suspend_time <= s->limits->times.defer;
        return quiet ? SHAPER_LATER : SHAPER_SUSPENDED;
    }
    if (s->in_flight >= shaper_window(s)) {
        s->window_full = true;
        if (!shaper_widen(s, now, when))
            return *when ? SHAPER_LATER : SHAPER_FULL;
    }
    if (s->next_start > now) {
        s->held = true;
        *when = s->next_start;
        return SHAPER_LATER;
    }
    const struct connect_bounds b = connect_bounds(s);
    return connect_rate_room(&s->connecting, &b, now, when) ? SHAPER_GO : SHAPER_LATER;
}

/* ---- the rate ------------------------------------------------------------------- */

/* So long after a delivery of these the next one may start. */
static int64_t pace_of(const struct shaper *s, uint32_t recipients)
{
    int64_t step = (int64_t)(recipients / s->rate * (double)CLOCK_SECOND);
    return step > s->limits->rate_delay ? step : s->limits->rate_delay;
}

void shaper_started(struct shaper *s, uint32_t recipients, int64_t now)
{
    int64_t late = now - s->next_start;
    /* a delivery waited for it, or is one of those that catch up after such a wait */
    bool catching_up = s->binding && now == s->started_last;
    bool binding = s->next_start > 0 && late < SLACK && (s->held || catching_up);
    s->held = false;
    s->binding = binding;
    s->in_flight++;
    if (binding) {
        int64_t dt = now - s->started_last;
        s->paced += dt;
        shaper_grow_rate(s, dt, now);
    }
    s->started_last = now;
    int64_t from = late < SLACK && s->next_start > 0 ? s->next_start : now;
    int64_t pace = pace_of(s, recipients);
    s->next_start = from + pace;
    /* what is late is caught up on at twice the pace: of those that start together none knows
     * yet that the first of them is refused */
    if (pace >= SPACED && s->next_start < now + pace / 2)
        s->next_start = now + pace / 2;
}

/* ---- connections in a time ------------------------------------------------------------ */

bool shaper_may_connect(struct shaper *s, int64_t now)
{
    const struct connect_bounds b = connect_bounds(s);
    return connect_rate_take(&s->connecting, &b, now);
}

void shaper_may_not_connect(struct shaper *s, int64_t now)
{
    const struct connect_bounds b = connect_bounds(s);
    connect_rate_result(&s->connecting, &b, true, 0, now);
}

void shaper_returned(struct shaper *s, uint32_t recipients, int64_t started, int64_t now)
{
    const struct connect_bounds b = connect_bounds(s);
    connect_rate_result(&s->connecting, &b, false, 0, now);
    s->connecting.none_open = true;
    s->in_flight--;
    int64_t back = s->next_start - pace_of(s, recipients);
    back = back > now ? back : now;
    if (started >= s->rate_cut && back < s->next_start) /* else it is the pace of a cut since */
        s->next_start = back;
}

static void too_often(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    const struct connect_bounds b = connect_bounds(s);
    double before = connect_rate_limit(&s->connecting, &b);
    if (connect_rate_refused(&s->connecting, &b, r->started, r->value, r->factor, now))
        shaper_note(s, SHAPER_CONNECTING_CUT, before, (double)s->connecting.rate, r->rule, now);
}

static void learn_connections(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    const struct connect_bounds b = connect_bounds(s);
    connect_rate_result(&s->connecting, &b, r->may_connect, r->connections, now);
    s->connecting.none_open = false; /* its connection may be open now */
}

/* ---- early signs ---------------------------------------------------------------------- */

static void look_for_strain(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    const struct strain_sign *reply = &s->strain.reply, *greeting = &s->strain.greeting;
    strain_note(&s->strain, r->greeting, 0);
    enum strain_change change = strain_turn(&s->strain, s->limits->times.growth, now);
    if (change == STRAIN_SAME)
        return;
    bool by_reply = reply->now - reply->usual > greeting->now - greeting->usual;
    const struct strain_sign *sign = by_reply ? reply : greeting;
    double before = s->window;
    if (change == STRAIN_BEGINS)
        shaper_note(s, SHAPER_STRAINED, (double)sign->usual, (double)sign->now, 0, now);
    if (change == STRAIN_ENDS)
        shaper_note(s, SHAPER_STRAIN_OVER, (double)sign->usual, (double)sign->now, 0, now);
    if (change != STRAIN_WORSE || s->window < 2)
        return;
    s->window -= 1;
    s->window_grown = now;
    shaper_note(s, SHAPER_STRAIN_WORSE, before, s->window, 0, now);
}

static void succeed(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    if (s->failed_cohorts > 0 && !s->probing)
        shaper_dropped_others(s, now);
    s->failed_cohorts = 0;
    s->proven = now;
    s->taken += r->recipients;
    if (r->recipients)
        s->accepted = now;
    if (s->rate >= SHAPER_RATE_FREE)
        shaper_count_free(s, r->recipients, now);
    if (s->probing) {
        if (s->shut_since)
            shaper_door_opened(s, now);
        s->shut_since = 0;
        shaper_note(s, SHAPER_OPEN_AGAIN, (double)s->suspend_time / (double)CLOCK_SECOND, 0, 0,
                    now);
        if (s->unreachable && s->window < s->limits->initial)
            s->window = s->limits->initial;
        s->next_start = now;
    }
    s->probing = s->unreachable = false;
    s->suspend_time = 0;
    shaper_grow_window(s, r->latency + r->greeting, now);
    shaper_used_up(s, r->use_count);
    strain_note(&s->strain, 0, r->latency);
}

/* True if the signal has suspended the lane, as for a dead destination or a rule's word. */
static bool take_signal(struct shaper *s, const struct shaper_report *r, bool idle, int64_t now)
{
    shaper_count_answers(s, r);
    switch (r->signal) {
    case SHAPER_OK:
        if (!idle || r->started >= s->rate_cut)
            succeed(s, r, now);
        if (r->put_off && !r->recipients && s->taken < 1)
            shaper_measure_anew(s); /* nothing was taken yet: that time says nothing */
        if (r->put_off && s->next_start > now)
            shaper_give_back(s, r->put_off, now);
        break;
    case SHAPER_NEUTRAL:
        break;
    case SHAPER_UNREACHABLE:
        return !idle && shaper_unreachable(s, now);
    case SHAPER_TOO_FAST:
        if (!idle)
            shaper_too_fast(s, r, now);
        break;
    case SHAPER_TOO_MANY:
        if (!idle)
            shaper_too_many(s, r, now);
        break;
    case SHAPER_TOO_LONG:
        shaper_too_long(s, r, now);
        break;
    case SHAPER_TOO_MUCH:
        if (!idle && (r->started >= s->rate_cut || s->probing)) {
            s->cut_from = 0; /* the rate had nothing to do with it */
            shaper_shut_door(s, SHAPER_KNOCK_GROWS * s->limits->times.knock, now, r->rule);
        }
        break;
    case SHAPER_TOO_OFTEN:
        too_often(s, r, now);
        break;
    case SHAPER_GO_AWAY:
        return !idle && shaper_go_away(s, r, now);
    }
    return false;
}

bool shaper_believes(const struct shaper *s, const struct shaper_report *r, int64_t now)
{
    return s->suspended_until <= now || (r->signal == SHAPER_OK && r->started >= s->rate_cut);
}

bool shaper_finished(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    int64_t before = s->suspended_until;
    bool idle = before > now; /* what was under way then says nothing new */
    if (s->in_flight)
        s->in_flight--;
    if (r->closed_after)
        shaper_closes_silently(s, r->closed_after, now);
    if (r->may_connect || r->connections)
        learn_connections(s, r, now);
    else
        s->connecting.none_open = false;
    look_for_strain(s, r, now);
    if (r->trial == SHAPER_TRIAL_FAILED)
        shaper_undo_trial(s, now);
    bool suspended = take_signal(s, r, idle, now);
    /* a door that is shut for the rest of the day is as good as a suspension */
    bool long_shut = s->suspended_until > before && s->suspend_time > s->limits->times.defer;
    return suspended || long_shut;
}

bool shaper_told_to_go(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    return s->suspended_until <= now && shaper_go_away(s, r, now);
}

/* ---- by hand, and over restarts ------------------------------------------------------------ */

void shaper_end_trial(struct shaper *s)
{
    s->trial_rate = 0;
}

void shaper_unsuspend(struct shaper *s)
{
    s->suspended_until = 0;
}

void shaper_keep_away(struct shaper *s, int64_t until, int64_t now)
{
    s->suspended_until = until;
    s->suspend_time = until - now;
    s->probing = true;
}

void shaper_note_kept(struct shaper *s, uint16_t rule, int64_t now)
{
    shaper_note(s, s->unreachable ? SHAPER_SUSPENDED_UNREACHABLE : SHAPER_SUSPENDED_REFUSED, 0,
                (double)(s->suspended_until - now) / (double)CLOCK_SECOND, rule, now);
}

void shaper_set(struct shaper *s, double rate, uint32_t concurrency, uint32_t messages, int64_t now)
{
    if (rate > 0) {
        rate = rate < shaper_rate_bound(s) ? rate : shaper_rate_bound(s);
        shaper_note(s, SHAPER_SET_BY_HAND, s->rate, rate, 0, now);
        s->rate = s->failed_rate = rate;
        s->rate_held = 0;
        s->trial_rate = 0;
        s->next_start = now;
        shaper_measure_anew(s);
    }
    if (concurrency > 0) {
        uint32_t most = s->limits->concurrency;
        shaper_note(s, SHAPER_SET_BY_HAND, s->window, concurrency < most ? concurrency : most, 0,
                    now);
        s->window = concurrency;
        s->window_failed = concurrency + 1;
        s->window_cut = now;
    }
    if (messages > 0) {
        shaper_note(s, SHAPER_SET_BY_HAND, s->messages, messages, 0, now);
        s->messages = messages;
    }
}

bool shaper_remembers(const struct shaper *s, int64_t now)
{
    return s->next_start > now;
}

void shaper_remember(const struct shaper *s, struct shaper_memory *out)
{
    *out = (struct shaper_memory){.rate = s->rate,
                                  .failed_rate = s->failed_rate,
                                  .connection_rate = (double)s->connecting.rate,
                                  .connection_rate_failed = (double)s->connecting.failed,
                                  .blind = s->blind,
                                  .window = (uint32_t)s->window,
                                  .window_failed = s->window_failed,
                                  .messages = s->messages,
                                  .period = s->period,
                                  .shut_for = s->shut_for};
}

void shaper_recall(struct shaper *s, const struct shaper_memory *m)
{
    if (m->rate >= SHAPER_RATE_LEAST)
        s->rate = m->rate < shaper_rate_bound(s) ? m->rate : shaper_rate_bound(s);
    s->failed_rate = m->failed_rate;
    s->trial_rate = 0;
    s->connecting.rate = (float)m->connection_rate;
    s->connecting.failed = (float)m->connection_rate_failed;
    s->blind = m->blind;
    s->period = m->period;
    s->shut_for = m->shut_for;
    if (m->window >= 1)
        s->window = m->window < s->limits->concurrency ? m->window : s->limits->concurrency;
    s->window_failed = m->window_failed;
    s->messages = m->messages;
}

const char *shaper_change_name(uint8_t change)
{
    static const char *const names[] = {
        [SHAPER_RATE_CUT] = "rate cut",
        [SHAPER_CONCURRENCY_CUT] = "concurrency cut",
        [SHAPER_MESSAGES_CUT] = "messages per connection cut",
        [SHAPER_DOOR_SHUT] = "everything is refused: pause",
        [SHAPER_SUSPENDED_REFUSED] = "suspended: told to stay away",
        [SHAPER_SUSPENDED_UNREACHABLE] = "suspended: cannot be reached",
        [SHAPER_OPEN_AGAIN] = "open again",
        [SHAPER_RATE_BEYOND] = "rate tried beyond what failed",
        [SHAPER_SET_BY_HAND] = "set by hand",
        [SHAPER_CONNECTING_CUT] = "new connections cut",
        [SHAPER_RATE_RESTORED] = "rate restored: the cut did not help",
        [SHAPER_STRAINED] = "it takes long to answer: no growth",
        [SHAPER_STRAIN_WORSE] = "it takes even longer: a connection fewer",
        [SHAPER_STRAIN_OVER] = "it answers as fast as before",
    };
    return change < sizeof names / sizeof names[0] ? names[change] : "?";
}

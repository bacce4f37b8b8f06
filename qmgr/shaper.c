#include "qmgr/shaper.h"

#include <math.h>

#include "core/clock.h"

/*
 * The constants were chosen with t/bench/shaper-sim, which runs the controller
 * against models of limiters (token buckets, fixed windows, penalty boxes, slow
 * servers); the figures are in doc/operators-guide.md.
 */

/* ---- time: minutes, because providers answer in minutes ---------------------- */
static const int64_t GROWTH = 60 * CLOCK_SECOND;     /* doubling; 20/s to 160/s in 3 minutes */
static const int64_t HOLD = 360 * CLOCK_SECOND;      /* longer wastes what a raised limit offers, */
static const int64_t KNOCK = 20 * CLOCK_SECOND;      /* shorter costs a refusal too often */
static const int64_t KNOCK_MAX = 480 * CLOCK_SECOND; /* so long a reopened door stays unused */
static const int64_t DAY = INT64_C(86400) * CLOCK_SECOND;
static const int64_t DEFER = 600 * CLOCK_SECOND; /* worth a log line a message, and a place out
                                                  * of the line */

/* ---- not divided for simulations: they follow the network, not the provider ---- */
static const int64_t SLACK = CLOCK_SECOND / 10;   /* lateness that may be caught up on: timers
                                                   * and a busy machine, not a burst */
static const int64_t STAGGER = CLOCK_SECOND / 10; /* between new connections: a refusal of the
                                                   * first comes before the next is made */
static const int64_t PROVEN = 30 * CLOCK_SECOND;  /* a success says so long that the path works */

enum { TAKEN_TELLS = 5 }; /* messages on a connection; fewer may be chance */
enum { ENOUGH = 12 };     /* recipients taken between two refusals that make a measurement */

/* Below a measured rate: what is left refills the other side's allowance. */
#define UNDER_MEASURED 0.95
/* So far above the measured rate it may as well have grown meanwhile: measured anew. */
#define FAR_BEYOND 2.5
/* The first refusal ever: the rate was doubling each minute, and what the other side had
 * in store for a minute hid when it passed the limit. */
#define CUT_FIRST 0.4
/* A refusal too soon for a measurement: the limit is well below, by what the few that were
 * taken suggest, but within these bounds. */
#define CUT_BLIND 0.6
#define CUT_MOST 0.35
/* Fast recovery ends here, relative to where it failed. */
#define NEAR_FAILED 0.9
#define NEAR_BLIND 0.8
/* Going beyond doubles the rate in this many growth times at first; so does recovery from a
 * refusal that measured nothing, for the limit may be anywhere below. */
#define BEYOND_GROWTHS 3.0
/* A limit that fails where it failed before is left alone longer, up to this. */
#define HOLD_LONGER 1.3
#define HOLD_MOST 1.7
/* Where few recipients pass in that time it is longer, up to HOLD_SLOW times. */
#define HOLD_MESSAGES 80.0
#define HOLD_SLOW 2
/* A door that was shut for so many first pauses had a reason other than the rate. */
#define LONG_SHUT 4
/* Openings so alike come by the clock. */
#define PERIOD_TOLERANCE 0.25
/* Each pause is so many times as long as the one before: each knock may count against us. */
enum { KNOCK_GROWS = 3 };
/* Where a limit of connections is hit though few deliveries are under way (idle ones
 * count, too), this remains. */
#define CONNECTIONS_LEFT 0.7
/* What is put off (greylisting) uses up little of what is allowed: this share of its time is
 * given back. Not all: to be asked costs the other side something, too. */
#define PUT_OFF_BACK 0.75
/* Where fewer of those that were tried were taken, it shows nothing that more are allowed. */
#define TAKEN_LEAST 0.5
#define RATE_FREE 1e6 /* a rate that is none */
#define RATE_FIRST                                                                                 \
    10.0                /* what is tried after the first refusal of an unlimited destination,      \
                         * at least */
#define RATE_LEAST 0.02 /* recipients a second: one a minute */

void shaper_times_init(struct shaper_times *t, unsigned divisor)
{
    int64_t by = divisor ? divisor : 1;
    *t = (struct shaper_times){.growth = GROWTH / by,
                               .hold = HOLD / by,
                               .knock = KNOCK / by,
                               .knock_max = KNOCK_MAX / by,
                               .day = DAY / by,
                               .defer = DEFER / by};
}

static double rate_bound(const struct shaper *s)
{
    return s->limits->rate > 0 ? s->limits->rate : RATE_FREE;
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
    if (s->rate <= 0 || s->rate > rate_bound(s))
        s->rate = rate_bound(s);
}

static void note(struct shaper *s, enum shaper_change change, double before, double after,
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

static bool capped(struct shaper *s, int64_t now, int64_t *when)
{
    if (!s->limits->daily_cap)
        return false;
    if (now - s->day_began >= s->limits->times.day) {
        s->day_began = now;
        s->day_used = 0;
    }
    *when = s->day_began + s->limits->times.day;
    return s->day_used >= s->limits->daily_cap;
}

enum shaper_room shaper_room(struct shaper *s, int64_t now, int64_t *when)
{
    if (s->suspended_until > now) {
        *when = s->suspended_until;
        bool quiet = !s->unreachable && !s->by_hand && s->suspend_time <= s->limits->times.defer;
        return quiet ? SHAPER_LATER : SHAPER_SUSPENDED;
    }
    if (s->in_flight >= shaper_window(s)) {
        s->window_full = true;
        return SHAPER_FULL;
    }
    if (s->next_start > now) {
        s->held = true;
        *when = s->next_start;
        return SHAPER_LATER;
    }
    if (capped(s, now, when))
        return SHAPER_LATER;
    const struct connect_bounds b = connect_bounds(s);
    return connect_rate_room(&s->connecting, &b, now, when) ? SHAPER_GO : SHAPER_LATER;
}

/* ---- the rate ------------------------------------------------------------------- */

/* The pace was binding for dt: more may be tried. */
static void grow_rate(struct shaper *s, int64_t dt, int64_t now)
{
    const struct shaper_times *t = &s->limits->times;
    double growths;
    s->rate_held += dt;
    s->growth_due += dt;
    if (strain_is(&s->strain) || s->steady || s->probing || s->accepted <= s->grown)
        return;
    dt = s->growth_due < t->growth / 4 ? s->growth_due : t->growth / 4;
    /* what was answered with something else (greylisting) proves nothing */
    double share = s->tried > s->taken_of_tried ? (double)s->taken_of_tried / s->tried : 1;
    growths = share < TAKEN_LEAST ? 0 : (double)dt / (double)t->growth * share;
    s->growth_due = 0;
    s->tried = s->taken_of_tried = 0;
    s->grown = now;
    double near = (s->blind ? NEAR_BLIND : NEAR_FAILED) * s->failed_rate;
    if (s->failed_rate <= 0 || s->rate < near) {
        s->rate *= exp2(s->blind ? growths / BEYOND_GROWTHS : growths);
        if (s->failed_rate > 0 && s->rate > near)
            s->rate = near;
    } else if (s->rate_held >= s->rate_hold) {
        if (!s->beyond)
            note(s, SHAPER_RATE_BEYOND, s->rate, s->failed_rate, 0, now);
        s->beyond = true;
        s->rate *= exp2(growths / (s->rate > 1.5 * s->failed_rate ? 1 : BEYOND_GROWTHS));
    }
    if (s->rate > rate_bound(s))
        s->rate = rate_bound(s);
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
    s->day_used += recipients;
    s->tried += recipients;
    if (binding) {
        int64_t dt = now - s->started_last;
        s->sent += recipients;
        s->paced += dt;
        grow_rate(s, dt, now);
    }
    s->started_last = now;
    int64_t from = late < SLACK && s->next_start > 0 ? s->next_start : now;
    int64_t step = (int64_t)(recipients / s->rate * (double)CLOCK_SECOND);
    s->next_start = from + (step > s->limits->rate_delay ? step : s->limits->rate_delay);
}

/* ---- a door that opens again by the clock: a volume for each hour or day ---------- */

/* It was found open after a long time. */
static void note_opening(struct shaper *s, int64_t now)
{
    int64_t after = now - s->opened;
    if (s->opened) {
        double share = s->period > 0 ? (double)after / (double)s->period : 0;
        double periods = round(share);
        bool fits = periods >= 1 && fabs(share - periods) < PERIOD_TOLERANCE;
        s->periodic = fits && (periods < 2 || s->periodic);
        /* several: a day whose volume is not used up has no end that is seen */
        if (!fits || periods < 2)
            s->period = after;
    }
    s->opened = now;
}

/* How long to leave a shut door alone that has just been found shut: `knock` where nothing
 * is known. Sets the steps that follow. */
static int64_t first_knock(struct shaper *s, int64_t knock, int64_t now)
{
    int64_t wait;
    s->step = 0;
    if (s->periodic) {
        /* a little early, else it would be found open ever later */
        wait = s->opened + s->period - s->period / 10 - now;
        while (wait < knock)
            wait += s->period;
        s->step = s->period / 12;
    } else if (s->shut_for > 2 * knock) { /* a door that was shut for long will be again */
        wait = s->shut_for / 2;
        s->step = s->shut_for / 4;
    } else {
        return knock;
    }
    s->step = s->step > knock ? s->step : knock;
    s->steps_until = now + 2 * wait;
    return wait;
}

static int64_t next_knock(const struct shaper *s, int64_t now)
{
    const struct shaper_times *t = &s->limits->times;
    if (s->step && now < s->steps_until)
        return s->step;
    int64_t next = KNOCK_GROWS * s->suspend_time;
    return next < t->knock_max ? next : t->knock_max;
}

/* Everything is refused: knock again later, alone. */
static void shut_door(struct shaper *s, int64_t first, int64_t now, uint16_t rule)
{
    if (s->suspend_time == 0) {
        s->shut_since = now;
        s->suspend_time = first_knock(s, first, now);
    } else {
        s->suspend_time = next_knock(s, now);
    }
    s->suspended_until = now + s->suspend_time;
    s->probing = true;
    s->unreachable = false;
    s->rate_cut = s->window_cut = now;
    note(s, SHAPER_DOOR_SHUT, 0, (double)s->suspend_time / (double)CLOCK_SECOND, rule, now);
}

static void measure_anew(struct shaper *s)
{
    s->sent = s->taken = 0;
    s->paced = 0;
}

/* What shall remain of the rate, where it was refused after a few had been taken. */
static double few_taken(const struct shaper *s, double before)
{
    double share = s->paced > 0 ? (s->taken + 0.5) * 1e6 / (double)s->paced / before : CUT_MOST;
    return share < CUT_MOST ? CUT_MOST : share < CUT_BLIND ? share : CUT_BLIND;
}

static void too_fast(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    if (r->started < s->rate_cut && !s->probing)
        return;
    if (s->failed_rate > 0 && s->taken < 1) {
        shut_door(s, s->limits->times.knock, now, r->rule);
        return;
    }
    bool free = s->rate >= RATE_FREE;
    s->cut_from = s->rate < RATE_FREE ? (float)s->rate : 0;
    s->cut_failed = (float)s->failed_rate;
    s->volume = (float)s->taken;
    double before = s->rate, measured = s->paced > 0 ? s->taken * 1e6 / (double)s->paced : 0;
    bool blind = true,
         again = s->failed_rate > 0 && fabs(s->rate - s->failed_rate) < 0.5 * s->failed_rate;
    if (r->value > 0) {
        s->rate = s->failed_rate = r->value;
    } else if (r->factor > 0) {
        s->failed_rate = before;
        s->rate = before * r->factor;
    } else if (free) {
        s->failed_rate = measured > RATE_FIRST ? measured : RATE_FIRST;
        s->rate = CUT_BLIND * s->failed_rate;
    } else if (s->taken >= ENOUGH && measured < before && before < FAR_BEYOND * measured) {
        s->failed_rate = measured;
        s->rate = UNDER_MEASURED * measured;
        blind = false;
    } else {
        bool first = s->failed_rate <= 0;
        s->failed_rate = before;
        s->rate = (first ? CUT_FIRST : few_taken(s, before)) * before;
    }
    if (s->rate < RATE_LEAST)
        s->rate = RATE_LEAST;
    int64_t hold = s->limits->times.hold, few = (int64_t)(HOLD_MESSAGES / s->rate * 1e6);
    if (few > hold)
        hold = few < HOLD_SLOW * hold ? few : HOLD_SLOW * hold;
    s->rate_hold = again ? (int64_t)((double)s->rate_hold * HOLD_LONGER) : hold;
    int64_t most = (int64_t)((double)hold * HOLD_MOST);
    if (s->rate_hold > most)
        s->rate_hold = most;
    s->rate_held = 0;
    s->rate_cut = now;
    s->beyond = false;
    s->blind = blind;
    s->next_start = now + (int64_t)((double)CLOCK_SECOND / s->rate);
    measure_anew(s);
    note(s, SHAPER_RATE_CUT, before, s->rate, r->rule, now);
}

/* ---- concurrency ------------------------------------------------------------------ */

static void too_many(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    double before = s->window;
    if (s->in_flight == 0 && (s->probing || s->window < 2)) {
        shut_door(s, s->limits->times.knock, now, r->rule); /* not even one */
        return;
    }
    /* it allows those that are under way now; and those that are idle, which are not known
     * here */
    double others = s->in_flight > 1 ? s->in_flight : 1;
    if (r->started < s->window_cut) {
        if (s->window > others) {
            s->window = s->window - 1 > others ? s->window - 1 : others;
            s->window_failed = (uint32_t)s->window + 1;
        }
        return;
    }
    double left = floor(CONNECTIONS_LEFT * before + 0.5);
    if (left < before && left > others)
        others = left;
    if (r->value > 0)
        others = r->value;
    else if (r->factor > 0 && others > before * r->factor)
        others = before * r->factor;
    if (others < s->window)
        s->window = others;
    s->window = s->window < 1 ? 1 : s->window;
    bool again = s->window_failed == (uint32_t)s->window + 1;
    s->window_hold = again ? s->window_hold * 2 : s->limits->times.hold;
    if (s->window_hold > 8 * s->limits->times.hold)
        s->window_hold = 8 * s->limits->times.hold;
    s->window_failed = (uint32_t)s->window + 1;
    s->window_cut = s->window_grown = now;
    s->window_full = false;
    note(s, SHAPER_CONCURRENCY_CUT, before, s->window, r->rule, now);
}

static void grow_window(struct shaper *s, int64_t now)
{
    bool near = s->window_failed && (uint32_t)s->window + 1 >= s->window_failed;
    if (!s->window_full || strain_is(&s->strain) || (uint32_t)s->window >= s->limits->concurrency ||
        now - s->window_grown < STAGGER || (near && now - s->window_cut < s->window_hold))
        return;
    s->window += 1;
    s->window_grown = now;
    s->window_full = false;
    if (near) {
        s->window_failed = (uint32_t)s->window + 1; /* the next step waits again */
        s->window_cut = now - s->window_hold / 2;
    }
}

/* ---- messages on one connection ------------------------------------------------------ */

static void set_messages(struct shaper *s, uint32_t limit, uint16_t rule, int64_t now)
{
    uint32_t before = shaper_messages(s);
    if (s->messages && s->messages <= limit)
        s->messages_patience *= 2; /* it was tried beyond, in vain */
    if (s->messages_patience > 4096)
        s->messages_patience = 4096;
    s->messages = limit > 1 ? limit : 1;
    s->messages_good = 0;
    note(s, SHAPER_MESSAGES_CUT, before, s->messages, rule, now);
}

static void too_long(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    uint32_t limit = shaper_messages(s);
    /* some count transactions, others what they took: the smaller number is right for both,
     * unless too little was taken on this one to tell */
    uint32_t before = r->use_count > 0 ? r->use_count - 1 : 0;
    if (r->taken_count >= TAKEN_TELLS && r->taken_count < before)
        before = r->taken_count;
    if (r->value > 0)
        set_messages(s, (uint32_t)r->value, r->rule, now);
    else if (r->use_count <= 1)
        shut_door(s, s->limits->times.knock, now, r->rule); /* not even one */
    else if (limit == 0 || before < limit)
        set_messages(s, before, r->rule, now);
}

/* Connections that carried as many as are allowed, and worked: one day one more. */
static void used_up(struct shaper *s, uint32_t use_count)
{
    if (!s->messages || use_count < s->messages || ++s->messages_good < s->messages_patience)
        return;
    s->messages_good = 0;
    s->messages += 1 + s->messages / 8;
}

/* The server closes after so many without a word: twice the same is no accident. */
static void closes_silently(struct shaper *s, uint32_t after, int64_t now)
{
    uint32_t limit = shaper_messages(s);
    s->closed_count = after == s->closed_after ? s->closed_count + 1 : 1;
    s->closed_after = after;
    if (s->closed_count >= 2 && (limit == 0 || after < limit))
        set_messages(s, after, 0, now);
}

/* ---- doors ----------------------------------------------------------------------------- */

/* After a shut door. Long shut, it was a volume that was used up, not the rate. */
static void opened(struct shaper *s, int64_t now)
{
    s->shut_for = now - s->shut_since;
    if (s->shut_for < LONG_SHUT * s->limits->times.knock)
        return;
    note_opening(s, now);
    if (s->periodic && s->period <= s->limits->times.hold && s->volume >= ENOUGH) {
        /* so short a period that its volume may as well be spread over it */
        s->failed_rate = (double)s->volume * 1e6 / (double)s->period;
        s->rate = UNDER_MEASURED * s->failed_rate;
        s->blind = false;
    } else if (s->cut_from > 0) {
        bool known = s->cut_failed > 0;
        double most =
            known ? UNDER_MEASURED * (double)s->cut_failed : CUT_BLIND * (double)s->cut_from;
        s->rate = most < (double)s->cut_from ? most : (double)s->cut_from;
        s->failed_rate = (double)(known ? s->cut_failed : s->cut_from);
        s->cut_from = 0;
    }
}

static void succeed(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    s->failed_cohorts = 0;
    s->proven = now;
    s->taken += r->recipients;
    s->taken_of_tried += r->recipients;
    if (r->recipients)
        s->accepted = now;
    if (s->probing) {
        if (s->shut_since)
            opened(s, now);
        s->shut_since = 0;
        note(s, SHAPER_OPEN_AGAIN, (double)s->suspend_time / (double)CLOCK_SECOND, 0, 0, now);
        if (s->unreachable && s->window < s->limits->initial)
            s->window = s->limits->initial;
        s->next_start = now;
    }
    s->probing = s->unreachable = false;
    s->suspend_time = 0;
    grow_window(s, now);
    used_up(s, r->use_count);
    strain_note(&s->strain, 0, r->latency);
}

/* Otherwise the pace would be one of questions, and grow until all that was put off comes
 * again at once: a rate that was never allowed. */
static void give_back(struct shaper *s, uint32_t recipients, int64_t now)
{
    int64_t time = (int64_t)(PUT_OFF_BACK * recipients / s->rate * (double)CLOCK_SECOND);
    s->next_start = s->next_start - time > now ? s->next_start - time : now;
}

static bool suspend(struct shaper *s, int64_t first, enum shaper_change change, uint16_t rule,
                    int64_t now)
{
    bool dead = change == SHAPER_SUSPENDED_UNREACHABLE;
    int64_t max = dead ? s->limits->unreachable_max : s->limits->suspend_max;
    max = max > first ? max : first;
    int64_t time = s->suspend_time ? 2 * s->suspend_time : first;
    time = time < first ? first : time < max ? time : max;
    note(s, change, 0, (double)s->suspend_time / (double)CLOCK_SECOND, rule, now);
    s->suspend_time = time;
    s->suspended_until = now + time;
    s->unreachable = dead;
    s->probing = true;
    s->rate_cut = s->window_cut = now;
    return true;
}

static bool unreachable(struct shaper *s, int64_t now)
{
    uint32_t window = shaper_window(s);
    s->failed_cohorts += 1.0 / window;
    if (s->window > 1)
        s->window -= 1;
    /* a little less than the limit: fractions do not sum up exactly */
    if (!s->probing && s->failed_cohorts < s->limits->cohorts - 0.001)
        return false;
    return suspend(s, s->limits->suspend, SHAPER_SUSPENDED_UNREACHABLE, 0, now);
}

static bool go_away(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    if (r->started < s->rate_cut && !s->probing)
        return false;
    /* as a limit it is one of rate: what came before it was too much */
    if (s->failed_rate <= 0 || s->rate > CUT_BLIND * s->failed_rate) {
        s->failed_rate = s->rate;
        s->rate *= CUT_BLIND;
    }
    measure_anew(s);
    s->rate_held = 0;
    suspend(s, r->time, SHAPER_SUSPENDED_REFUSED, r->rule, now);
    return s->suspend_time > s->limits->times.defer;
}

/* ---- connections in a time ------------------------------------------------------------ */

bool shaper_may_connect(struct shaper *s, int64_t now)
{
    const struct connect_bounds b = connect_bounds(s);
    return connect_rate_take(&s->connecting, &b, now);
}

void shaper_returned(struct shaper *s, uint32_t recipients, int64_t now)
{
    const struct connect_bounds b = connect_bounds(s);
    connect_rate_result(&s->connecting, &b, false, 0, now);
    s->connecting.none_open = true;
    s->in_flight--;
    s->day_used -= recipients < s->day_used ? recipients : s->day_used;
    s->tried -= recipients < s->tried ? recipients : s->tried;
    s->next_start = now;
}

static void too_often(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    const struct connect_bounds b = connect_bounds(s);
    double before = connect_rate_limit(&s->connecting, &b);
    if (connect_rate_refused(&s->connecting, &b, r->started, r->value, r->factor, now))
        note(s, SHAPER_CONNECTING_CUT, before, (double)s->connecting.rate, r->rule, now);
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
        note(s, SHAPER_STRAINED, (double)sign->usual, (double)sign->now, 0, now);
    if (change == STRAIN_ENDS)
        note(s, SHAPER_STRAIN_OVER, (double)sign->usual, (double)sign->now, 0, now);
    if (change != STRAIN_WORSE || s->window < 2)
        return;
    s->window -= 1;
    s->window_grown = now;
    note(s, SHAPER_STRAIN_WORSE, before, s->window, 0, now);
}

/* A cut was an experiment, and has shown that the rate does not matter. */
static void restore(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    double before = s->rate;
    if (r->restore <= before)
        return;
    s->rate = r->restore < rate_bound(s) ? r->restore : rate_bound(s);
    s->failed_rate = r->restore_failed;
    s->next_start = now;
    measure_anew(s);
    note(s, SHAPER_RATE_RESTORED, before, s->rate, 0, now);
}

static void learn_connections(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    const struct connect_bounds b = connect_bounds(s);
    connect_rate_result(&s->connecting, &b, r->may_connect, r->connections, now);
    s->connecting.none_open = false; /* its connection may be open now */
}

bool shaper_finished(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    bool idle = s->suspended_until > now; /* what was under way then says nothing new */
    if (s->in_flight)
        s->in_flight--;
    if (r->closed_after)
        closes_silently(s, r->closed_after, now);
    if (r->may_connect || r->connections)
        learn_connections(s, r, now);
    else
        s->connecting.none_open = false;
    look_for_strain(s, r, now);
    s->steady = r->steady;
    if (r->restore > 0)
        restore(s, r, now);
    switch (r->signal) {
    case SHAPER_OK:
        if (!idle || r->started >= s->rate_cut)
            succeed(s, r, now);
        if (r->put_off && s->next_start > now)
            give_back(s, r->put_off, now);
        break;
    case SHAPER_NEUTRAL:
        break;
    case SHAPER_UNREACHABLE:
        return !idle && unreachable(s, now);
    case SHAPER_TOO_FAST:
        if (!idle)
            too_fast(s, r, now);
        break;
    case SHAPER_TOO_MANY:
        if (!idle)
            too_many(s, r, now);
        break;
    case SHAPER_TOO_LONG:
        too_long(s, r, now);
        break;
    case SHAPER_TOO_MUCH:
        if (!idle && (r->started >= s->rate_cut || s->probing)) {
            s->cut_from = 0; /* the rate had nothing to do with it */
            shut_door(s, KNOCK_GROWS * s->limits->times.knock, now, r->rule);
        }
        break;
    case SHAPER_TOO_OFTEN:
        too_often(s, r, now);
        break;
    case SHAPER_GO_AWAY:
        return !idle && go_away(s, r, now);
    }
    return false;
}

/* ---- by hand, and over restarts ------------------------------------------------------------ */

void shaper_unsuspend(struct shaper *s)
{
    s->suspended_until = 0;
    s->by_hand = false;
}

void shaper_suspend(struct shaper *s, int64_t until, int64_t now)
{
    s->suspended_until = until;
    s->by_hand = true;
    s->probing = true;
    note(s, SHAPER_SUSPENDED_BY_HAND, 0, (double)(until - now) / (double)CLOCK_SECOND, 0, now);
}

void shaper_keep_away(struct shaper *s, int64_t until, bool by_hand, int64_t now)
{
    s->suspended_until = until;
    s->suspend_time = until - now;
    s->by_hand = by_hand;
    s->probing = true;
}

void shaper_set(struct shaper *s, double rate, uint32_t concurrency, uint32_t messages, int64_t now)
{
    if (rate > 0) {
        note(s, SHAPER_SET_BY_HAND, s->rate, rate, 0, now);
        s->rate = s->failed_rate = rate < rate_bound(s) ? rate : rate_bound(s);
        s->rate_held = 0;
        s->next_start = now;
        measure_anew(s);
    }
    if (concurrency > 0) {
        note(s, SHAPER_SET_BY_HAND, s->window, concurrency, 0, now);
        s->window = concurrency;
        s->window_failed = concurrency + 1;
        s->window_cut = now;
    }
    if (messages > 0) {
        note(s, SHAPER_SET_BY_HAND, s->messages, messages, 0, now);
        s->messages = messages;
    }
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
    if (m->rate >= RATE_LEAST)
        s->rate = m->rate < rate_bound(s) ? m->rate : rate_bound(s);
    s->failed_rate = m->failed_rate;
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
        [SHAPER_SUSPENDED_BY_HAND] = "suspended by hand",
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

/*
 * The controller's doors: everything is refused, or nobody answers, or we were told to stay
 * away. Then one delivery at a time knocks, at growing intervals; a door that opens by the
 * clock (a volume for each hour or day) is waited for.
 */
#include <math.h>

#include "core/clock.h"
#include "qmgr/shaper_inside.h"

/* A door that was shut for so many first pauses had a reason other than the rate. */
#define LONG_SHUT 4
/* Openings so many periods apart may still be told to be of the same clock: a day whose volume
 * was not used up has no end that is seen. */
enum { PERIODS_APART = 4 };
/* The next opening is reckoned so many periods ahead; a door that was left alone for longer is
 * knocked at like one of which nothing is known. */
enum { PERIODS_AHEAD = 1000000 };
/* A period is known where it is to this part of itself; knocks are so far apart at least. */
enum { PERIOD_KNOWN = 3, PERIOD_PARTS = 16 };

/* ---- a door that opens again by the clock: a volume for each hour or day ---------- */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* It was found open after a long time. When it opened is known from the last knock in vain on,
 * and so is the period: what several openings have in common. */
static void note_opening(struct shaper *s, int64_t now)
{
    int64_t after = s->suspended_until - s->suspend_time, until = now;
    int64_t least = after - s->opened, most = until - s->opened_after;
    bool fits = false;
    for (int k = 1; s->period > 0 && !fits && k <= PERIODS_APART; k++) {
        int64_t low = later(least / k, s->period_least), high = earlier(most / k, s->period);
        fits = low < high;
        if (!fits)
            continue;
        s->periodic = k == 1 ? high - low < high / PERIOD_KNOWN : s->periodic;
        s->period_least = low;
        s->period = high;
        after = later(after, s->opened_after + k * low);
        until = earlier(until, s->opened + k * high);
    }
    if (s->opened && !fits) {
        s->periodic = false;
        s->period_least = later(least, 0);
        s->period = most;
    }
    s->opened_after = earlier(after, until);
    s->opened = until;
}

/* When the door opens next, between *from and *until. Just after the time it may as well be a
 * little late. */
static void next_opening(const struct shaper *s, int64_t now, int64_t *from, int64_t *until)
{
    int64_t part = s->period / PERIOD_PARTS, k = 1;
    /* nothing was seen of those that are over */
    if (s->period > 0 && now - part >= s->opened + s->period)
        k = (now - part - s->opened) / s->period + 1;
    if (k > PERIODS_AHEAD)
        k = PERIODS_AHEAD;
    *from = s->opened_after + k * s->period_least;
    *until = s->opened + k * s->period;
    *from = later(*from, now);
    *until = later(*until, now);
}

/* In the middle of what is left, so that each knock tells; at its end where that is small. */
static int64_t knock_at(const struct shaper *s, int64_t from, int64_t until)
{
    int64_t part = s->period / PERIOD_PARTS;
    return until - from <= 2 * part ? until : from + (until - from) / 2;
}

/* How long to leave a shut door alone that has just been found shut: `knock` where nothing
 * is known. Sets the steps that follow. */
static int64_t first_knock(struct shaper *s, int64_t knock, int64_t now)
{
    int64_t wait, from, until;
    s->step = 0;
    if (s->periodic) {
        next_opening(s, now, &from, &until);
        s->steps_until = until;
        return later(knock_at(s, from, until) - now, knock);
    }
    if (s->shut_for <= 2 * knock)
        return knock;
    wait = s->shut_for / 2; /* a door that was shut for long will be again */
    s->step = wait;
    s->steps_until = now + 2 * wait;
    return wait;
}

static int64_t next_knock(const struct shaper *s, int64_t now)
{
    const struct shaper_times *t = &s->limits->times;
    if (s->periodic && now < s->steps_until)
        return later(knock_at(s, now, s->steps_until) - now, s->period / PERIOD_PARTS);
    if (s->step && now < s->steps_until)
        return s->step;
    int64_t next = SHAPER_KNOCK_GROWS * s->suspend_time;
    return next < t->knock_max ? next : t->knock_max;
}

/* Everything is refused: knock again later, alone. */
void shaper_shut_door(struct shaper *s, int64_t first, int64_t now, uint16_t rule)
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
    s->trial_rate = 0;
    shaper_note(s, SHAPER_DOOR_SHUT, 0, (double)s->suspend_time / (double)CLOCK_SECOND, rule, now);
}

/* ---- doors ----------------------------------------------------------------------------- */

/* After a shut door. Long shut, it was a volume that was used up, not the rate. */
void shaper_door_opened(struct shaper *s, int64_t now)
{
    s->shut_for = now - s->shut_since;
    if (s->shut_for < LONG_SHUT * s->limits->times.knock)
        return;
    note_opening(s, now);
    if (s->periodic && s->period <= s->limits->times.hold && s->volume >= SHAPER_ENOUGH) {
        /* so short a period that its volume may as well be spread over it */
        s->failed_rate = (double)s->volume * 1e6 / (double)s->period;
        s->rate = SHAPER_UNDER_MEASURED * s->failed_rate;
        s->blind = false;
    } else if (s->cut_from > 0) {
        bool known = s->cut_failed > 0;
        double most = known ? SHAPER_UNDER_MEASURED * (double)s->cut_failed
                            : SHAPER_CUT_BLIND * (double)s->cut_from;
        s->rate = most < (double)s->cut_from ? most : (double)s->cut_from;
        s->failed_rate = (double)(known ? s->cut_failed : s->cut_from);
        s->cut_from = 0;
    }
}

static bool suspend(struct shaper *s, int64_t first, enum shaper_change change, uint16_t rule,
                    int64_t now)
{
    bool dead = change == SHAPER_SUSPENDED_UNREACHABLE;
    int64_t max = dead ? s->limits->unreachable_max : s->limits->suspend_max;
    if (!dead && !rule) /* nobody has said for how long */
        max = s->limits->times.knock_max;
    max = max > first ? max : first;
    int64_t time = s->suspend_time ? 2 * s->suspend_time : first;
    time = time < first ? first : time < max ? time : max;
    shaper_note(s, change, 0, (double)time / (double)CLOCK_SECOND, rule, now);
    s->suspend_time = time;
    s->suspended_until = now + time;
    s->unreachable = dead;
    s->probing = true;
    s->rate_cut = s->window_cut = now;
    return true;
}

bool shaper_unreachable(struct shaper *s, int64_t now)
{
    uint32_t window = shaper_window(s);
    s->failed_cohorts += 1.0 / window;
    if (s->window > 1)
        s->window -= 1;
    /* a little less than the limit: fractions do not sum up exactly */
    if (!s->probing && s->failed_cohorts < s->limits->cohorts - 0.001)
        return false;
    /* Others are under way, and may be let in: some servers let in so many and drop the rest
     * without a word. None is begun meanwhile, for with each that fails the window is one less. */
    if (!s->probing && s->in_flight)
        return false;
    return suspend(s, s->limits->suspend, SHAPER_SUSPENDED_UNREACHABLE, 0, now);
}

bool shaper_go_away(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    if (r->started < s->rate_cut && !s->probing)
        return false;
    shaper_lower_rate(s);
    suspend(s, r->time, SHAPER_SUSPENDED_REFUSED, r->rule, now);
    return s->suspend_time > s->limits->times.defer;
}

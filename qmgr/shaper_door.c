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
/* Openings so alike come by the clock. */
#define PERIOD_TOLERANCE 0.25

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

/*
 * The controller's rate: growth while the pace is what mail waits for, cuts by measurement,
 * and trials, which are cuts that may turn out to have been in vain.
 */
#include <math.h>

#include "core/clock.h"
#include "qmgr/shaper_inside.h"

/* The first refusal ever: the rate was doubling each minute, and what the other side had
 * in store hid when it passed the limit. Where that was a minute's worth, as is usual, this
 * share of the rate is just below it. */
#define CUT_FIRST 0.36
/* That is less sure than a measurement: more is tried after this part of the time. */
enum { FIRST_HOLD_PARTS = 2 };
/* Fast recovery ends here, relative to where it failed. */
#define NEAR_FAILED 0.9
#define NEAR_BLIND 0.8
/* Going beyond doubles the rate in this many growth times at first; so does recovery from a
 * refusal that measured nothing, for the limit may be anywhere below. */
#define BEYOND_GROWTHS 3.0
/* A limit that fails where it failed before is left alone longer, up to this. */
#define HOLD_LONGER 1.4
#define HOLD_MOST 1.7
/* Where few recipients pass in that time it is longer, up to HOLD_SLOW times. */
#define HOLD_MESSAGES 100.0
#define HOLD_SLOW 3
/* What is put off (greylisting) uses up little of what is allowed: this share of its time is
 * given back. Not all: to be asked costs the other side something, too. */
#define PUT_OFF_BACK 0.75
/* Where fewer of those that were answered lately were taken, it shows nothing that more are
 * allowed. */
#define TAKEN_LEAST 0.6
#define ANSWERS_LATELY 32.0F
/* Without a rate nothing is paced: what was taken in the last growth time is counted, the one
 * before it for as much of it as lies within a growth time. Less than this part of one shows
 * a burst, not a rate. */
#define FREE_LEAST (1 / 60.0)
/* Where too little was taken lately to tell at what rate it was refused first. */
#define RATE_FIRST 10.0

/* The pace was binding for dt: more may be tried. */
void shaper_grow_rate(struct shaper *s, int64_t dt, int64_t now)
{
    const struct shaper_times *t = &s->limits->times;
    double growths;
    s->rate_held += dt;
    s->growth_due += dt;
    if (strain_is(&s->strain) || s->trial_rate > 0 || s->probing || s->accepted <= s->grown)
        return;
    dt = s->growth_due < t->growth / 4 ? s->growth_due : t->growth / 4;
    /* what was answered with something else (greylisting) proves nothing */
    double share = s->answered > 0 ? (double)(s->answered_taken / s->answered) : 1;
    growths = share < TAKEN_LEAST ? 0 : (double)dt / (double)t->growth * share;
    s->growth_due = 0;
    s->grown = now;
    double near = (s->blind ? NEAR_BLIND : NEAR_FAILED) * s->failed_rate;
    if (s->failed_rate <= 0 || s->rate < near) {
        s->rate *= exp2(s->blind ? growths / BEYOND_GROWTHS : growths);
        if (s->failed_rate > 0 && s->rate > near)
            s->rate = near;
    } else if (s->rate_held >= s->rate_hold) {
        if (!s->beyond)
            shaper_note(s, SHAPER_RATE_BEYOND, s->rate, s->failed_rate, 0, now);
        s->beyond = true;
        s->rate *= exp2(growths / (s->rate > 1.5 * s->failed_rate ? 1 : BEYOND_GROWTHS));
    }
    if (s->rate > shaper_rate_bound(s))
        s->rate = shaper_rate_bound(s);
}

static void free_period(struct shaper *s, int64_t now)
{
    int64_t period = s->limits->times.growth;
    if (s->free_since == 0 || now - s->free_since >= 2 * period) {
        s->free_taken = s->free_before = 0;
        s->free_since = now;
    } else if (now - s->free_since >= period) {
        s->free_before = s->free_taken;
        s->free_taken = 0;
        s->free_since += period;
    }
}

void shaper_count_free(struct shaper *s, uint32_t recipients, int64_t now)
{
    free_period(s, now);
    s->free_taken += (float)recipients;
}

/* Recipients a second that were taken lately; where too few were to tell, at least RATE_FIRST. */
static double free_rate(struct shaper *s, int64_t now)
{
    free_period(s, now);
    double period = (double)s->limits->times.growth, in = (double)(now - s->free_since) / period;
    double taken = (double)s->free_taken, time = in > FREE_LEAST ? in : FREE_LEAST;
    if (s->free_before > 0) {
        taken += (double)s->free_before * (1 - in);
        time = 1;
    }
    double rate = taken * 1e6 / (time * period);
    return taken >= SHAPER_ENOUGH || rate > RATE_FIRST ? rate : RATE_FIRST;
}

void shaper_measure_anew(struct shaper *s)
{
    s->taken = 0;
    s->paced = 0;
}

/* What shall remain of the rate, where it was refused after a few had been taken. */
static double few_taken(const struct shaper *s, double before)
{
    double share =
        s->paced > 0 ? (s->taken + 0.5) * 1e6 / (double)s->paced / before : SHAPER_CUT_MOST;
    return share < SHAPER_CUT_MOST    ? SHAPER_CUT_MOST
           : share < SHAPER_CUT_BLIND ? share
                                      : SHAPER_CUT_BLIND;
}

/* The same after the first refusal ever: what was taken was allowed in a minute more than it
 * took, at least. */
static double first_cut(const struct shaper *s, double before)
{
    double minute = (double)s->limits->times.growth,
           allowed = s->taken * 1e6 / ((double)s->paced + minute), least = CUT_FIRST * before;
    allowed = SHAPER_UNDER_MEASURED * (allowed < before ? allowed : before);
    return allowed > least ? allowed : least;
}

/* How long nothing more is tried; failed_before: where it failed the last time, 0: never. */
static void leave_alone(struct shaper *s, double failed_before)
{
    int64_t hold = s->limits->times.hold, few = (int64_t)(HOLD_MESSAGES / s->rate * 1e6);
    if (few > hold)
        hold = few < HOLD_SLOW * hold ? few : HOLD_SLOW * hold;
    int64_t most = (int64_t)((double)s->limits->times.hold * HOLD_MOST),
            longer = (int64_t)((double)s->rate_hold * HOLD_LONGER);
    most = most > hold ? most : hold;
    if (failed_before <= 0)
        s->rate_hold = hold / FIRST_HOLD_PARTS;
    else if (fabs(s->failed_rate - failed_before) >= SHAPER_SAME_LIMIT * failed_before ||
             longer < hold)
        s->rate_hold = hold;
    else
        s->rate_hold = longer < most ? longer : most;
}

void shaper_too_fast(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    if (r->started < s->rate_cut && !s->probing)
        return;
    if (s->failed_rate > 0 && s->taken < 1 && r->trial == SHAPER_TRIAL_UNPROVEN)
        return; /* chance may be all that it is: no reason to shut a door */
    if (s->failed_rate > 0 && s->taken < 1) {
        shaper_shut_door(s, s->limits->times.knock, now, r->rule);
        return;
    }
    if (!r->trial) {
        s->trial_rate = 0; /* another reason: it would not be undone */
    } else if (s->trial_rate <= 0) {
        s->trial_rate = (float)s->rate;
        s->trial_failed = (float)s->failed_rate;
    }
    bool free = s->rate >= SHAPER_RATE_FREE;
    s->cut_from = s->rate < SHAPER_RATE_FREE ? (float)s->rate : 0;
    s->cut_failed = (float)s->failed_rate;
    s->volume = (float)s->taken;
    double failed_before = s->failed_rate, before = s->rate;
    double measured = s->paced > 0 ? s->taken * 1e6 / (double)s->paced : 0;
    bool blind = true, first = failed_before <= 0;
    if (r->value > 0) {
        /* never above what is in use, or configured */
        s->rate = s->failed_rate = fmin(r->value, fmin(before, shaper_rate_bound(s)));
    } else if (r->factor > 0) {
        s->failed_rate = before;
        s->rate = before * r->factor;
    } else if (free) {
        s->failed_rate = free_rate(s, now);
        s->rate = SHAPER_CUT_BLIND * s->failed_rate;
    } else if (first && s->taken >= SHAPER_ENOUGH) {
        s->rate = first_cut(s, before);
        s->failed_rate = s->rate / SHAPER_UNDER_MEASURED;
    } else if (s->taken >= SHAPER_ENOUGH && measured < before &&
               before < SHAPER_FAR_BEYOND * measured) {
        s->failed_rate = measured;
        s->rate = SHAPER_UNDER_MEASURED * measured;
        blind = false;
    } else {
        s->failed_rate = before;
        s->rate = (first ? CUT_FIRST : few_taken(s, before)) * before;
    }
    if (s->rate < SHAPER_RATE_LEAST)
        s->rate = SHAPER_RATE_LEAST;
    leave_alone(s, failed_before);
    s->rate_held = 0;
    s->rate_cut = now;
    s->beyond = false;
    s->blind = blind;
    int64_t pause = s->limits->times.growth / SHAPER_PAUSE_PARTS,
            step = (int64_t)((double)CLOCK_SECOND / s->rate);
    s->next_start = now + (step > pause ? step : pause);
    shaper_measure_anew(s);
    shaper_note(s, SHAPER_RATE_CUT, before, s->rate, r->rule, now);
}

void shaper_count_answers(struct shaper *s, const struct shaper_report *r)
{
    if (r->signal != SHAPER_OK && r->signal != SHAPER_NEUTRAL)
        return;
    /* where everybody is put off once, and then taken, more are asked than taken while it grows */
    double answers = r->recipients + (1 - PUT_OFF_BACK) * r->put_off;
    s->answered += answers > 0 ? (float)answers : 1;
    s->answered_taken += (float)r->recipients;
    if (s->answered > ANSWERS_LATELY) {
        s->answered /= 2;
        s->answered_taken /= 2;
    }
}

/* Otherwise the pace would be one of questions, and grow until all that was put off comes
 * again at once: a rate that was never allowed. */
void shaper_give_back(struct shaper *s, uint32_t recipients, int64_t now)
{
    int64_t time = (int64_t)(PUT_OFF_BACK * recipients / s->rate * (double)CLOCK_SECOND);
    s->next_start = s->next_start - time > now ? s->next_start - time : now;
}

/* A cut was an experiment, and has shown that the rate does not matter. */
void shaper_undo_trial(struct shaper *s, int64_t now)
{
    double before = s->rate, restored = (double)s->trial_rate;
    s->trial_rate = 0;
    if (restored <= before)
        return;
    s->rate = restored < shaper_rate_bound(s) ? restored : shaper_rate_bound(s);
    s->failed_rate = (double)s->trial_failed;
    s->next_start = now;
    shaper_measure_anew(s);
    shaper_note(s, SHAPER_RATE_RESTORED, before, s->rate, 0, now);
}

void shaper_lower_rate(struct shaper *s)
{
    if (s->failed_rate <= 0 || s->rate > SHAPER_CUT_BLIND * s->failed_rate) {
        s->failed_rate = s->rate;
        s->rate *= SHAPER_CUT_BLIND;
    }
    s->trial_rate = 0;
    s->rate_held = 0;
    shaper_measure_anew(s);
}

/*
 * The rate of a brake: cut where the sender is refused, as that of a lane (shaper_rate.c): once
 * for all that was under way, by what was taken since, and not again before something has been
 * taken; left alone for a while, then doubled up to near what failed and grown slowly beyond,
 * until the brake is off; and the tokens that its mail waits for. No queue here:
 * t/bench/shaper-sim runs it alone.
 */
#include "qmgr/brakes.h"

#include <math.h>

#include "qmgr/shaper_inside.h"

/* What a rule leaves of a sender's rate if it does not say and nothing is known: half, for what
 * it had was a share, and the others' mail goes on beside it. */
#define SLOWED 0.5
/* Always allowed, or nothing would show that it is over: one a minute. */
#define RATE_LEAST (1 / 60.0)
/* Below this part of the rate that failed it doubles, */
#define NEAR 0.8
/* beyond it grows by so much; */
#define BEYOND 1.25
/* where so many times what failed is taken the brake is off. */
#define RELEASED 4.0
/* A whole token, but for rounding. */
#define TOKEN 0.999

enum {
    BURST_SECONDS = 2,   /* worth of tokens that may go at once */
    HOLD_GROWS_MAX = 16, /* times the first */
    AGAIN_SECONDS = 3600 /* refused within that at the same rate it is left alone for longer */
};

static double most_tokens(const struct brake *b)
{
    return BURST_SECONDS * b->rate > 1 ? BURST_SECONDS * b->rate : 1;
}

/* Nothing goes for so long. */
static void pause_for(struct brake *b, int64_t time, int64_t now)
{
    b->pause = time;
    b->tokens = 0;
    b->cut = now;
    b->filled = now + time;
    b->taken = 0;
    b->paced = 0;
}

/* Not one was taken since the last cut: that tells nothing of the rate, but that it is too
 * early. */
static void wait_longer(struct brake *b, int64_t now)
{
    int64_t longer = SHAPER_KNOCK_GROWS * b->pause, most = b->times.knock_max;
    longer = longer > b->times.knock ? longer : b->times.knock;
    pause_for(b, longer < most ? longer : most, now);
    b->grown = b->filled + b->hold;
}

/* How long it is left alone. */
static int64_t hold_of(const struct brake *b, double failed_before, bool again)
{
    int64_t most = HOLD_GROWS_MAX * b->times.hold;
    if (!again || fabs(b->failed - failed_before) >= SHAPER_SAME_LIMIT * failed_before)
        return b->times.hold;
    return 2 * b->hold < most ? 2 * b->hold : most;
}

void brake_rate_cut(struct brake *b, double from, double set, double factor, int64_t now)
{
    bool again = b->failed > 0 && now - b->cut < AGAIN_SECONDS * CLOCK_SECOND;
    if (again && b->rate > 0 && b->taken == 0 && set <= 0) {
        wait_longer(b, now);
        return;
    }
    double failed_before = b->failed;
    double measured = (b->taken + 0.5) * 1e6 / (double)(b->paced + b->pause + 1);
    bool known = b->rate > 0 && b->taken >= SHAPER_ENOUGH && measured < from;
    double share = b->rate > 0 ? fmin(fmax(measured / from, SHAPER_CUT_MOST), SLOWED) : SLOWED;
    b->failed = from;
    if (set > 0) {
        b->rate = set;
    } else if (factor > 0) {
        b->rate = from * factor;
    } else if (known && from < SHAPER_FAR_BEYOND * measured) {
        b->failed = measured;
        b->rate = SHAPER_UNDER_MEASURED * measured;
    } else {
        b->rate = from * share;
    }
    b->rate = b->rate > RATE_LEAST ? b->rate : RATE_LEAST;
    b->failed = b->failed > b->rate ? b->failed : 2 * b->rate;
    b->hold = hold_of(b, failed_before, again);
    b->grown = now + b->hold;
    pause_for(b, b->times.growth / SHAPER_PAUSE_PARTS, now);
}

bool brake_rate_grow(struct brake *b, int64_t now)
{
    if (b->rate <= 0 || b->probing)
        return false;
    double near = NEAR * b->failed;
    for (; now - b->grown >= b->times.growth && b->rate > 0; b->grown += b->times.growth)
        if (b->rate < near)
            b->rate = 2 * b->rate < near ? 2 * b->rate : near;
        else
            b->rate = BEYOND * b->rate < RELEASED * b->failed ? BEYOND * b->rate : 0;
    return b->rate <= 0;
}

bool brake_rate_has_token(struct brake *b, int64_t now)
{
    if (now < b->filled)
        return false;
    double most = most_tokens(b), before = b->tokens;
    b->tokens += b->rate * (double)(now - b->filled) / 1e6;
    b->tokens = b->tokens < most ? b->tokens : most;
    /* where they are not used up the rate is not what the mail waits for */
    b->paced += (int64_t)((b->tokens - before) / b->rate * 1e6);
    b->filled = now;
    return b->tokens >= TOKEN;
}

void brake_rate_taken(struct brake *b, uint32_t recipients)
{
    b->taken += b->taken < UINT32_MAX - recipients ? recipients : 0;
}

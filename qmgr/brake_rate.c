/*
 * The rate of a brake: cut where the sender is refused, left alone for a while, then doubled up
 * to near what failed and grown slowly beyond, until the brake is off; and the tokens that its
 * mail waits for. No queue here: t/bench/shaper-sim runs it alone.
 */
#include "qmgr/brakes.h"

/* What a rule leaves of a sender's rate if it does not say: half, for what it had was a share,
 * and the others' mail goes on beside it. */
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
    AGAIN_SECONDS = 3600 /* refused within that it is left alone for longer */
};

void brake_rate_cut(struct brake *b, double from, double set, double factor, int64_t now)
{
    double rate = set > 0 ? set : from * (factor > 0 ? factor : SLOWED);
    bool again = b->failed > 0 && now - b->cut < AGAIN_SECONDS * CLOCK_SECOND;
    int64_t most = HOLD_GROWS_MAX * b->times.hold;
    b->hold = !again ? b->times.hold : 2 * b->hold < most ? 2 * b->hold : most;
    b->rate = rate > RATE_LEAST ? rate : RATE_LEAST;
    b->failed = from > b->rate ? from : 2 * b->rate;
    b->tokens = 0;
    b->filled = b->cut = now;
    b->grown = now + b->hold;
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
    double most = BURST_SECONDS * b->rate > 1 ? BURST_SECONDS * b->rate : 1;
    b->tokens += b->rate * (double)(now - b->filled) / 1e6;
    b->tokens = b->tokens < most ? b->tokens : most;
    b->filled = now;
    return b->tokens >= TOKEN;
}

#include "qmgr/connect_rate.h"

#include <math.h>

#include "core/clock.h"

/* So much of a minute may be opened at once: a queue that comes to life needs several
 * connections, and "100 a minute" is not meant as one each 0.6 seconds. */
#define BURST_SHARE 0.1
/* What was opened this many growth times ago counts e times less: limits are by the minute. */
#define RECENT_GROWTHS 0.7
/* What remains after a refusal, of what was opened lately. */
#define LEFT 0.7
/* One in so many growth times (minutes) is always tried. */
#define LEAST_GROWTHS 5.0
/* Beyond so many times what was refused the limit is no longer believed in. */
#define FORGOTTEN 8.0
/* It doubles in so many growth times: as slowly as the message rate beyond what failed. */
#define DOUBLES_GROWTHS 3.0

/* A token, less what a double forgets of one that is filled in small steps. */
#define TOKEN 0.999
/* It is looked again after so many seconds at the latest: a limit may be a few a month. */
#define LOOKS_AGAIN 86400.0
/* So many in a minute are counted at most: what a delivery process says is bounded, and so
 * is their sum. */
#define RECENT_MOST 1e6F

static double seconds(int64_t time)
{
    return (double)time / (double)CLOCK_SECOND;
}

double connect_rate_limit(const struct connect_rate *c, const struct connect_bounds *b)
{
    double learned = (double)c->rate;
    if (learned <= 0)
        return b->rate;
    return b->rate > 0 && b->rate < learned ? b->rate : learned;
}

static double bucket(double rate, const struct connect_bounds *b)
{
    double size = BURST_SHARE * seconds(b->growth) * rate;
    return size > 1 ? size : 1;
}

/* More than were allowed are made up for, up to a minute's worth: not for years, whatever a
 * delivery process says that it has opened. */
static double debt(double rate, const struct connect_bounds *b)
{
    double most = seconds(b->growth) * rate;
    return most > 1 ? most : 1;
}

/* Brings tokens and recent up to now. */
static void fill(struct connect_rate *c, const struct connect_bounds *b, int64_t now)
{
    double rate = connect_rate_limit(c, b);
    double most = bucket(rate, b);
    if (c->filled == 0) {
        c->tokens = most;
    } else {
        double tokens = c->tokens + rate * seconds(now - c->filled);
        c->tokens = tokens < most ? tokens : most;
        c->recent *= (float)exp(-seconds(now - c->filled) / (RECENT_GROWTHS * seconds(b->growth)));
    }
    c->filled = now;
}

bool connect_rate_room(struct connect_rate *c, const struct connect_bounds *b, int64_t now,
                       int64_t *when)
{
    double rate = connect_rate_limit(c, b);
    if (rate <= 0 || !c->none_open)
        return true;
    fill(c, b, now);
    if (c->tokens >= TOKEN)
        return true;
    double wait = (1 - c->tokens) / rate;
    *when = now + (int64_t)((wait < LOOKS_AGAIN ? wait : LOOKS_AGAIN) * (double)CLOCK_SECOND) + 1;
    return false;
}

bool connect_rate_take(struct connect_rate *c, const struct connect_bounds *b, int64_t now)
{
    if (connect_rate_limit(c, b) <= 0)
        return true;
    fill(c, b, now);
    if (c->tokens < TOKEN)
        return false;
    c->tokens -= 1;
    return true;
}

/* A limit that was learned is tried beyond where connections are what mail waits for. */
static void grow(struct connect_rate *c, const struct connect_bounds *b, int64_t now)
{
    int64_t since = c->grown > c->cut + b->hold ? c->grown : c->cut + b->hold;
    double rest = bucket(connect_rate_limit(c, b), b) - 1; /* of a bucket that was full */
    if (c->rate <= 0 || c->tokens >= rest || now <= since)
        return;
    int64_t dt = now - since < b->growth / 4 ? now - since : b->growth / 4;
    c->grown = now;
    c->rate *= (float)exp2((double)dt / (double)b->growth / DOUBLES_GROWTHS);
    if ((double)c->rate > FORGOTTEN * (double)c->failed)
        c->rate = 0;
}

void connect_rate_result(struct connect_rate *c, const struct connect_bounds *b, bool taken,
                         uint32_t opened, int64_t now)
{
    fill(c, b, now);
    double rate = connect_rate_limit(c, b);
    c->recent += (float)opened;
    if (c->recent > RECENT_MOST)
        c->recent = RECENT_MOST;
    c->tokens += (double)taken - (double)opened;
    if (c->tokens < -debt(rate, b))
        c->tokens = -debt(rate, b);
    if (rate <= 0)
        c->tokens = bucket(0, b);
    if (opened)
        grow(c, b, now);
}

bool connect_rate_refused(struct connect_rate *c, const struct connect_bounds *b, int64_t started,
                          double value, double factor, int64_t now)
{
    if (c->cut && started < c->cut)
        return false;
    fill(c, b, now);
    double minute = RECENT_GROWTHS * seconds(b->growth), least = 1 / (LEAST_GROWTHS * minute);
    double before = connect_rate_limit(c, b), measured = (double)c->recent / minute;
    double from = before > 0 && before < measured ? before : measured;
    double rate = value > 0 ? value : (factor > 0 ? factor : LEFT) * from;
    if (before > 0 && rate > before)
        rate = before; /* it was too much */
    c->failed = (float)(from > least ? from : least);
    c->rate = (float)(rate > least ? rate : least);
    if (c->tokens > 0)
        c->tokens = 0;
    c->cut = c->grown = now;
    return true;
}

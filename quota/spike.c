#include "quota/spike.h"

enum {
    HOUR = 3600,
    DAY = 86400,
    USUAL_HOURS = 168,   /* in the mean */
    GROWTH = 2,          /* times the day before's */
    FORGOTTEN_A_DAY = 8, /* the day before's falls by one part of these at most */
    DAYS_MAX = 60        /* after as many all of it is forgotten */
};

/* So many messages an hour are more than anybody sends; thousandths of them still fit. */
static const uint64_t count_max = UINT64_MAX / 1000 / 1000 / 10;

static bool is_guarded(const struct plan *p)
{
    return p->spike_factor && p->spike_action != SPIKE_OFF;
}

uint64_t spike_limit(const struct tally *t, const struct plan *p)
{
    uint64_t limit;
    if (!is_guarded(p))
        return UINT64_MAX;
    if (__builtin_mul_overflow(t->usual, p->spike_factor, &limit))
        return UINT64_MAX;
    limit /= 1000;
    return limit > p->spike_minimum ? limit : p->spike_minimum;
}

static uint64_t hour_with(const struct tally *t, uint64_t more)
{
    uint64_t sum;
    return __builtin_add_overflow(t->hour_count, more, &sum) ? UINT64_MAX : sum;
}

/* ---- learning ------------------------------------------------------------------------ */

/* What a day of learning may at most lead to. Who has no history yet is allowed what
 * makes the limit twice spike_minimum. */
static uint64_t usual_most(const struct tally *t, const struct plan *p)
{
    uint64_t base = t->usual_before, floor;
    if (!is_guarded(p))
        return UINT64_MAX;
    floor = p->spike_minimum < count_max ? p->spike_minimum * 1000 / p->spike_factor : UINT64_MAX;
    if (base < floor)
        base = floor;
    return base < UINT64_MAX / GROWTH ? base * GROWTH : UINT64_MAX;
}

/* The mean of the first hours is exact; then the oldest fade. */
static void learn(struct tally *t, const struct plan *p)
{
    uint64_t count = t->hour_count < count_max ? t->hour_count : count_max, limit;
    uint64_t most = usual_most(t, p);
    if (t->busy_hours < USUAL_HOURS)
        t->busy_hours++;
    limit = spike_limit(t, p);
    count = (count < limit ? count : limit) * 1000;
    t->usual = t->usual - t->usual / t->busy_hours + count / t->busy_hours;
    if (t->usual > most)
        t->usual = most;
}

/* Quiet days lower what growth is measured by slowly: a weekend is no new history. */
static void roll_day(struct tally *t, int64_t now)
{
    int64_t day = now - now % DAY;
    if (day == t->day)
        return;
    for (int64_t n = day > t->day ? (day - t->day) / DAY : 1, i = 0; i < n && i < DAYS_MAX; i++)
        t->usual_before -= t->usual_before / FORGOTTEN_A_DAY;
    if (t->usual_before < t->usual)
        t->usual_before = t->usual;
    t->day = day;
}

/* A clock that was wrong for a while has left times that do not come for long (F30). */
static void mend_times(struct tally *t, int64_t now)
{
    if (t->hour > now + HOUR) {
        t->hour = 0;
        t->hour_count = 0;
    }
    if (t->spike_since && t->spike_until > now + SPIKE_SECONDS)
        t->spike_until = now + SPIKE_SECONDS;
    if (t->spike_since > now)
        t->spike_since = now;
    if (t->spike_told > now)
        t->spike_told = now;
}

void spike_roll(struct tally *t, const struct plan *p, int64_t now)
{
    int64_t hour = now - now % HOUR;
    mend_times(t, now);
    bool acted = t->spike_since && t->spike_until > t->hour;
    if (t->spike_since && t->spike_until <= now)
        t->spike_since = t->spike_until = 0;
    if (hour > t->hour) {
        if (t->hour_count && !acted)
            learn(t, p);
        t->hour = hour;
        t->hour_count = 0;
    }
    roll_day(t, now);
}

/* ---- acting --------------------------------------------------------------------------- */

uint64_t spike_room(const struct tally *t, const struct plan *p, uint64_t pending)
{
    uint64_t limit = spike_limit(t, p), used = hour_with(t, pending);
    return limit == UINT64_MAX ? limit : limit > used ? limit - used : 0;
}

bool spike_acts(struct tally *t, const struct plan *p, uint64_t pending, uint64_t messages,
                int64_t now, bool *tell)
{
    *tell = false;
    if (!is_guarded(p))
        return false;
    bool beyond = messages > spike_room(t, p, pending);
    if (beyond) {
        *tell = !t->spike_since || now - t->spike_told >= SPIKE_TELL_SECONDS;
        if (!t->spike_since)
            t->spike_since = now;
        t->spike_until = now + SPIKE_SECONDS;
    }
    if (*tell)
        t->spike_told = now;
    return t->spike_since != 0;
}

void spike_end(struct tally *t)
{
    t->spike_since = t->spike_until = t->spike_told = 0;
    t->hour_count = 0;
}

void spike_teach(struct tally *t, uint64_t usual, int64_t now)
{
    t->usual = (usual < count_max ? usual : count_max) * 1000;
    t->usual_before = t->usual;
    t->busy_hours = t->usual ? USUAL_HOURS : 0;
    t->day = now - now % DAY;
}

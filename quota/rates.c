#include "quota/rates.h"

#include "quota/spike.h"

enum { WINDOWS_AHEAD_MAX = 400 /* of days and months, which are counted one by one */ };

static bool is_calendar(uint8_t unit)
{
    return unit == RATE_DAY || unit == RATE_MONTH;
}

static const struct plan_rate *rate_of(const struct plan_rate *rates, uint8_t unit)
{
    for (unsigned i = 0; i < PLAN_RATES_MAX && rates[i].count; i++)
        if (rates[i].unit == unit)
            return &rates[i];
    return NULL;
}

/* What is left of `count` when the window is w, of as many as were waiting when the one that
 * began at `at` was the window. */
static uint64_t carry(uint64_t count, const struct plan *p, const struct plan_rate *rate,
                      int64_t at, struct period w)
{
    uint64_t gone = 0;
    if (is_calendar(rate->unit))
        for (; gone < WINDOWS_AHEAD_MAX && at < w.start; gone++)
            at = plan_rate_window(p, rate->unit, at).end;
    else
        gone = (uint64_t)(w.start - at) / (uint64_t)(w.end - w.start);
    if (__builtin_mul_overflow(gone, rate->count, &gone))
        gone = UINT64_MAX;
    return count > gone ? count - gone : 0;
}

static void roll_window(struct tally *t, const struct plan *p, const struct plan_rate *rates,
                        uint8_t unit, int64_t now)
{
    struct period w = plan_rate_window(p, unit, now);
    const struct plan_rate *rate = rate_of(rates, unit);
    uint64_t carried = 0;
    /* a little ahead: the clock was set back, and the window goes on. Far ahead: it was
     * counted by a clock that was wrong (F30) */
    bool ahead = t->window[unit].start >= w.end;
    if (t->window[unit].start >= w.start && !ahead)
        return;
    if (rate && !ahead && p->rate_action == RATE_QUEUE && t->window[unit].start > 0) {
        carried = carry(t->window[unit].count, p, rate, t->window[unit].start, w);
    }
    t->window[unit].start = w.start;
    t->window[unit].count = carried;
}

void rates_roll(struct tally *t, const struct plan *p, const struct plan_rate *rates, int64_t now)
{
    for (uint8_t unit = 0; unit < TALLY_UNITS; unit++)
        roll_window(t, p, rates, unit, now);
    spike_roll(t, p, now);
}

void rates_add(struct tally *t, uint64_t messages, int64_t now)
{
    (void)now;
    for (int unit = 0; unit < TALLY_UNITS; unit++)
        if (__builtin_add_overflow(t->window[unit].count, messages, &t->window[unit].count))
            t->window[unit].count = UINT64_MAX;
    if (__builtin_add_overflow(t->hour_count, messages, &t->hour_count))
        t->hour_count = UINT64_MAX;
}

static uint64_t used_of(const struct tally *t, uint8_t unit, uint64_t pending)
{
    uint64_t used;
    return __builtin_add_overflow(t->window[unit].count, pending, &used) ? UINT64_MAX : used;
}

uint64_t rates_room(const struct tally *t, const struct plan *p, const struct plan_rate *rates,
                    uint64_t pending, int64_t now, const struct plan_rate **full, int64_t *next)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < PLAN_RATES_MAX && rates[i].count; i++) {
        uint64_t used = used_of(t, rates[i].unit, pending);
        uint64_t room = rates[i].count > used ? rates[i].count - used : 0;
        if (room < least) {
            least = room;
            *full = &rates[i];
            *next = plan_rate_window(p, rates[i].unit, now).end;
        }
    }
    return least;
}

/* The start of the window in which the last of `used` messages may go, counted from the one
 * that it is now. */
static int64_t turn_of(const struct plan *p, const struct plan_rate *rate, uint64_t used,
                       int64_t now)
{
    const uint64_t furthest = 1000000; /* windows: two years of minutes */
    uint64_t ahead = used ? (used - 1) / rate->count : 0;
    struct period w = plan_rate_window(p, rate->unit, now);
    if (ahead == 0)
        return now;
    ahead = ahead < furthest ? ahead : furthest;
    if (!is_calendar(rate->unit))
        return w.end + (int64_t)(ahead - 1) * (w.end - w.start);
    int64_t at = now;
    for (uint64_t n = 0; n < ahead && n < WINDOWS_AHEAD_MAX; n++)
        at = plan_rate_window(p, rate->unit, at).end;
    return at;
}

int64_t rates_turn(const struct tally *t, const struct plan *p, const struct plan_rate *rates,
                   uint64_t pending, uint64_t messages, int64_t now)
{
    int64_t latest = now;
    for (unsigned i = 0; i < PLAN_RATES_MAX && rates[i].count; i++) {
        uint64_t used = used_of(t, rates[i].unit, pending);
        if (__builtin_add_overflow(used, messages, &used))
            used = UINT64_MAX;
        int64_t at = turn_of(p, &rates[i], used, now);
        latest = at > latest ? at : latest;
    }
    return latest;
}

int64_t rates_again(struct tally *t, const struct plan *p, const struct plan_rate *rates,
                    uint64_t messages, int64_t until, int64_t now)
{
    int64_t latest = now;
    rates_roll(t, p, rates, now);
    if (until == 0) {
        latest = rates_turn(t, p, rates, 0, messages, now);
        for (int unit = 0; unit < TALLY_UNITS; unit++)
            t->window[unit].count = used_of(t, (uint8_t)unit, messages);
    }
    if (p->rate_action != RATE_QUEUE)
        return now;
    for (unsigned i = 0; until && i < PLAN_RATES_MAX && rates[i].count; i++) {
        uint8_t unit = rates[i].unit;
        if (until >= t->window[unit].start)
            continue; /* it is among what this one has counted */
        t->window[unit].count = used_of(t, unit, messages);
        int64_t at = turn_of(p, &rates[i], t->window[unit].count, now);
        latest = at > latest ? at : latest;
    }
    return latest;
}

/* Whose rate the turn is of: the longest whose window begins there. Those that wait for it are
 * carried from one of its windows into the next; in the others of now they are not. */
static int unit_of(const struct plan *p, int64_t turn)
{
    for (int unit = TALLY_UNITS; unit-- > 0;)
        if (plan_rate_window(p, (uint8_t)unit, turn).start == turn)
            return unit;
    return -1;
}

void rates_take_back(struct tally *t, const struct plan *p, const struct plan_rate *rates,
                     const struct rates_held *held, int64_t now)
{
    const int of = unit_of(p, held->turn);
    rates_roll(t, p, rates, now);
    for (int unit = 0; unit < TALLY_UNITS; unit++) {
        uint64_t *count = &t->window[unit].count;
        bool carried =
            unit == of && p->rate_action == RATE_QUEUE && rate_of(rates, (uint8_t)unit) != NULL;
        if (carried || held->counted >= t->window[unit].start)
            *count = *count > held->messages ? *count - held->messages : 0;
    }
}

void rates_print(struct buf *out, const struct plan_rate *r)
{
    static const char *const units[] = {"a minute", "an hour", "a day", "a month"};
    (void)buf_printf(out, "%llu %s", (unsigned long long)r->count, units[r->unit]);
}

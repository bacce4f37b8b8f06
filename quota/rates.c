#include "quota/rates.h"

#include "quota/spike.h"

enum { WINDOWS_AHEAD_MAX = 400 };

static const struct plan_rate *rate_of(const struct plan_rate *rates, uint8_t unit)
{
    for (unsigned i = 0; i < PLAN_RATES_MAX && rates[i].count; i++)
        if (rates[i].unit == unit)
            return &rates[i];
    return NULL;
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
        carried = t->window[unit].count;
        int64_t at = t->window[unit].start;
        for (int i = 0; i < WINDOWS_AHEAD_MAX && carried && at < w.start; i++) {
            carried = carried > rate->count ? carried - rate->count : 0;
            at = plan_rate_window(p, unit, at).end;
        }
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

int64_t rates_turn(const struct tally *t, const struct plan *p, const struct plan_rate *rates,
                   uint64_t pending, uint64_t messages, int64_t now)
{
    int64_t latest = now;
    for (unsigned i = 0; i < PLAN_RATES_MAX && rates[i].count; i++) {
        uint64_t used = used_of(t, rates[i].unit, pending);
        if (__builtin_add_overflow(used, messages, &used))
            used = UINT64_MAX;
        int64_t at = now;
        for (int n = 0; n < WINDOWS_AHEAD_MAX && used > rates[i].count; n++) {
            used -= rates[i].count;
            at = plan_rate_window(p, rates[i].unit, at).end;
        }
        latest = at > latest ? at : latest;
    }
    return latest;
}

void rates_print(struct buf *out, const struct plan_rate *r)
{
    static const char *const units[] = {"a minute", "an hour", "a day", "a month"};
    (void)buf_printf(out, "%llu %s", (unsigned long long)r->count, units[r->unit]);
}

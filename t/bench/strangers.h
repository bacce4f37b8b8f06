/*
 * Part of shaper-sim: recipients that a server puts off until it has known them for a while
 * (greylisting), and when they are tried again, as the queue does it.
 */
#ifndef POSTERN_T_BENCH_STRANGERS_H
#define POSTERN_T_BENCH_STRANGERS_H

#include <math.h>

#include "core/clock.h"
#include "qmgr/greylist.h"
#include "qmgr/odd.h"

enum { STRANGERS_MAX = 16384 };

struct stranger {
    int64_t since, due; /* 0: it was not tried yet */
    unsigned attempts;
};

struct strangers {
    struct stranger waiting[STRANGERS_MAX];
    unsigned count;
    bool taken_last; /* the last one that was started was one of these */
    struct greylist learned;
};

/* One whose time has come goes before others, but new ones are asked meanwhile: by turns. False:
 * there is none, or it is a new one's turn. */
static inline bool strangers_take(struct strangers *w, int64_t now, struct stranger *out)
{
    unsigned first = 0;
    for (unsigned i = 1; i < w->count; i++)
        if (w->waiting[i].due < w->waiting[first].due)
            first = i;
    bool turn = w->count > 0 && w->waiting[first].due <= now && !w->taken_last;
    w->taken_last = turn;
    if (!turn)
        return false;
    *out = w->waiting[first];
    w->waiting[first] = w->waiting[--w->count];
    return true;
}

/* It was refused for another reason: in line again. */
static inline void strangers_back(struct strangers *w, struct stranger s)
{
    if (s.since && w->count < STRANGERS_MAX)
        w->waiting[w->count++] = s;
}

/* It was put off; `first`: after so long it is tried again where nothing is known. o: the words
 * say nothing, so only what was learned does; else NULL. */
static inline void strangers_put_off(struct strangers *w, struct stranger s, struct odd *o,
                                     int64_t started, int64_t first)
{
    int64_t age = s.since ? started - s.since : 0;
    if (o && s.since)
        odd_again(o, age, false, true);
    s.since = s.since ? s.since : started;
    s.attempts++;
    if (!o || odd_is_greylisting(o)) {
        greylist_refused(&w->learned, age, first);
        s.due = s.since + greylist_next(&w->learned, age);
    } else {
        s.due = started + (int64_t)ldexp((double)first, (int)s.attempts - 1);
    }
    if (w->count < STRANGERS_MAX)
        w->waiting[w->count++] = s;
}

static inline void strangers_taken(struct strangers *w, const struct stranger *s, struct odd *o,
                                   int64_t started)
{
    if (!s->since)
        return;
    greylist_passed(&w->learned, started - s->since);
    if (o)
        odd_again(o, started - s->since, true, true);
}

#endif

/*
 * The controller's concurrency, and how many messages one connection carries.
 */
#include <math.h>

#include "core/clock.h"
#include "qmgr/shaper_inside.h"

/* Between new connections: a refusal of the first comes before the next is made. Not
 * divided for simulations: it follows the network. */
static const int64_t STAGGER = CLOCK_SECOND / 10;
/* Messages on a connection; fewer may be chance. */
enum { TAKEN_TELLS = 5 };
/* Where a limit of connections is hit though few deliveries are under way (idle ones
 * count, too), this remains. */
#define CONNECTIONS_LEFT 0.7
/* A number of connections that is refused again is left alone twice as long, up to this. */
enum { WINDOW_HOLD_MOST = 4 };
/* So many connections must have been used up for each four messages that one carries, until
 * more are tried: a refusal costs more than the greetings that a higher limit would save. */
enum { MESSAGES_EACH = 4 };

/* ---- concurrency ------------------------------------------------------------------ */

void shaper_too_many(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    double before = s->window;
    if (s->in_flight == 0 && (s->probing || s->window < 2)) {
        shaper_shut_door(s, s->limits->times.knock, now, r->rule); /* not even one */
        return;
    }
    /* it allows those that are under way now; and those that are idle, which are not known
     * here */
    double others = s->in_flight > 1 ? s->in_flight : 1;
    if (r->started < s->window_cut) {
        if (s->window > others) {
            s->window = s->window - 1 > others ? s->window - 1 : others;
            s->window_failed = (uint32_t)s->window + 1;
        }
        return;
    }
    double left = floor(CONNECTIONS_LEFT * before + 0.5);
    if (left < before && left > others)
        others = left;
    if (r->value > 0)
        others = r->value;
    else if (r->factor > 0 && others > before * r->factor)
        others = before * r->factor;
    if (others < s->window)
        s->window = others;
    s->window = s->window < 1 ? 1 : s->window;
    /* window_failed is one more where a step beyond it had been made */
    bool again = s->window_failed && (uint32_t)s->window + 2 >= s->window_failed;
    s->window_hold = again ? s->window_hold * 2 : s->limits->times.hold;
    if (s->window_hold > WINDOW_HOLD_MOST * s->limits->times.hold)
        s->window_hold = WINDOW_HOLD_MOST * s->limits->times.hold;
    s->window_failed = (uint32_t)s->window + 1;
    s->window_beyond = false;
    s->window_due = 0;
    s->window_cut = s->window_grown = now;
    s->window_full = false;
    shaper_note(s, SHAPER_CONCURRENCY_CUT, before, s->window, r->rule, now);
}

void shaper_dropped_others(struct shaper *s, int64_t now)
{
    double before = s->window_failed ? (double)s->window_failed - 1 : s->limits->initial;
    double under_way = s->in_flight + 1.0; /* with the one that worked */
    if (s->window < under_way)
        s->window = under_way < s->limits->concurrency ? under_way : s->limits->concurrency;
    s->window_hold = s->limits->times.hold;
    s->window_failed = (uint32_t)s->window + 1;
    s->window_beyond = false;
    s->window_due = 0;
    s->window_cut = s->window_grown = now;
    s->window_full = false;
    if (s->window < before)
        shaper_note(s, SHAPER_CONCURRENCY_CUT, before, s->window, 0, now);
}

/* Where it failed last, or would by one more. */
static bool near_failed(const struct shaper *s)
{
    return s->window_failed && (uint32_t)s->window + 1 >= s->window_failed;
}

static bool may_grow(const struct shaper *s, int64_t now)
{
    return !strain_is(&s->strain) && (uint32_t)s->window < s->limits->concurrency &&
           !(near_failed(s) && now - s->window_cut < s->window_hold);
}

/* Each delivery that worked earns one more. Where a server takes seconds to answer they come in
 * bunches, all that were started together; else it is known at once whether one more works. */
void shaper_grow_window(struct shaper *s, uint64_t latency, int64_t now)
{
    uint32_t most = latency > (uint64_t)STAGGER ? (uint32_t)s->window : 1;
    if (!may_grow(s, now))
        s->window_due = 0;
    else if (s->window_full && s->window_due < most)
        s->window_due++;
}

bool shaper_widen(struct shaper *s, int64_t now, int64_t *when)
{
    *when = 0;
    if (s->window_due == 0 || s->probing || !may_grow(s, now))
        return false;
    *when = s->window_grown + STAGGER;
    if (now < *when)
        return false;
    bool near = near_failed(s);
    s->window += 1;
    s->window_due--;
    s->window_grown = now;
    s->window_full = false;
    if (near) {
        /* the step before was right: those that follow need not wait for longer */
        if (s->window_beyond)
            s->window_hold = s->limits->times.hold;
        s->window_beyond = true;
        s->window_failed = (uint32_t)s->window + 1; /* the next step waits again */
        s->window_cut = now - s->window_hold / 2;
        s->window_due = 0;
    }
    return true;
}

/* ---- messages on one connection ------------------------------------------------------ */

/* What is tried next. */
static uint32_t beyond(uint32_t limit)
{
    return limit + 1 + limit / 8;
}

static void set_messages(struct shaper *s, uint32_t limit, uint16_t rule, int64_t now)
{
    uint32_t before = shaper_messages(s);
    if (s->messages > limit && s->messages <= beyond(limit))
        s->messages_patience *= 2; /* it was tried beyond, in vain */
    if (s->messages_patience > 4096)
        s->messages_patience = 4096;
    s->messages = limit > 1 ? limit : 1;
    s->messages_good = 0;
    shaper_note(s, SHAPER_MESSAGES_CUT, before, s->messages, rule, now);
}

void shaper_too_long(struct shaper *s, const struct shaper_report *r, int64_t now)
{
    uint32_t limit = shaper_messages(s);
    /* some count transactions, others what they took: the smaller number is right for both,
     * unless too little was taken on this one to tell */
    uint32_t before = r->use_count > 0 ? r->use_count - 1 : 0;
    if (r->taken_count >= TAKEN_TELLS && r->taken_count < before)
        before = r->taken_count;
    if (r->value > 0)
        set_messages(s, (uint32_t)r->value, r->rule, now);
    else if (r->use_count <= 1)
        shaper_shut_door(s, s->limits->times.knock, now, r->rule); /* not even one */
    else if (limit == 0 || before < limit)
        set_messages(s, before, r->rule, now);
}

/* The server closes after so many without a word: twice the same is no accident. */
void shaper_closes_silently(struct shaper *s, uint32_t after, int64_t now)
{
    uint32_t limit = shaper_messages(s);
    s->closed_count = after == s->closed_after ? s->closed_count + 1 : 1;
    s->closed_after = after;
    if (s->closed_count >= 2 && (limit == 0 || after < limit))
        set_messages(s, after, 0, now);
}

/* Connections that carried as many as are allowed, and worked: one day one more. */
void shaper_used_up(struct shaper *s, uint32_t use_count)
{
    uint32_t each = s->messages > MESSAGES_EACH ? s->messages / MESSAGES_EACH : 1;
    if (!s->messages || use_count < s->messages || ++s->messages_good / each < s->messages_patience)
        return;
    s->messages_good = 0;
    s->messages = beyond(s->messages);
}

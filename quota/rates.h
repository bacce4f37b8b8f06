/* Rates of a party: pure, on struct tally. */
#ifndef POSTERN_QUOTA_RATES_H
#define POSTERN_QUOTA_RATES_H

#include "quota/records.h"

/* Brings the windows, and the hour that spike.h looks at, up to now. What was queued beyond a rate
 * (rate_action = queue) is carried into the next window. */
void rates_roll(struct tally *t, const struct plan *p, const struct plan_rate *rates, int64_t now);
/* So many messages more; after rates_roll. */
void rates_add(struct tally *t, uint64_t messages, int64_t now);
/* How many messages the rates leave now, beside `pending` ones; *full is the rate
 * that leaves least, and *next when its window ends. UINT64_MAX without rates. */
uint64_t rates_room(const struct tally *t, const struct plan *p, const struct plan_rate *rates,
                    uint64_t pending, int64_t now, const struct plan_rate **full, int64_t *next);
/* When the rates let `messages` more go, if each waits for its turn: now, or the
 * start of a window to come. */
int64_t rates_turn(const struct tally *t, const struct plan *p, const struct plan_rate *rates,
                   uint64_t pending, uint64_t messages, int64_t now);
/* Such messages again, whose turn was `until` and who did not go then: they are counted in the
 * windows that began since. `until` 0: in none (rates_take_back). Returns their turn. */
int64_t rates_again(struct tally *t, const struct plan *p, const struct plan_rate *rates,
                    uint64_t messages, int64_t until, int64_t now);
/* Messages that wait for their turn. */
struct rates_held {
    uint64_t messages;
    int64_t counted, turn; /* when they were, and the start of the window that they wait for */
};
/* They shall get another turn: rates_again with `until` 0. They leave the windows that have
 * counted them, or to which they were carried; what others have sent in a window stays. */
void rates_take_back(struct tally *t, const struct plan *p, const struct plan_rate *rates,
                     const struct rates_held *held, int64_t now);
/* "50 a day" */
void rates_print(struct buf *out, const struct plan_rate *r);

#endif

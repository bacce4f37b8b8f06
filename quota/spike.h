/*
 * The spike guard: an account that sends far more than it used to, because its password
 * was stolen. Pure, on struct tally.
 *
 * What is usual is the mean of the account's busy hours, of the last week of them. An
 * hour beyond spike_factor times that (and beyond spike_minimum) makes the guard act,
 * and it goes on until an operator ends it or a whole day has passed in which nothing
 * was beyond the limit. So that a thief does not set the new measure, hours in which the
 * guard acts are not learned from, and in all others the mean at most doubles in a day.
 */
#ifndef POSTERN_QUOTA_SPIKE_H
#define POSTERN_QUOTA_SPIKE_H

#include "quota/records.h"

enum {
    SPIKE_SECONDS = 86400,     /* without anything beyond the limit, then the guard lets go */
    SPIKE_TELL_SECONDS = 86400 /* the owner is told again */
};

/* Messages an hour beyond which the account is far above its usual; UINT64_MAX: there is
 * no guard. */
uint64_t spike_limit(const struct tally *t, const struct plan *p);
/* The hour is over, or the day (rates_roll calls it). */
void spike_roll(struct tally *t, const struct plan *p, int64_t now);
/* Messages that the limit leaves in this hour, beside `pending` ones; UINT64_MAX without
 * a guard. */
uint64_t spike_room(const struct tally *t, const struct plan *p, uint64_t pending);
/* `messages` more are wanted, beside `pending` ones: whether the guard acts on them.
 * *tell: the owner is to be told, now or again. After spike_roll. */
bool spike_acts(struct tally *t, const struct plan *p, uint64_t pending, uint64_t messages,
                int64_t now, bool *tell);
/* An operator has looked: the guard lets go, and this hour counts from 0. */
void spike_end(struct tally *t);
/* An operator says what is usual: messages an hour. */
void spike_teach(struct tally *t, uint64_t usual, int64_t now);

#endif

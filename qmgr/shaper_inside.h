/* The controller's inside: what its files offer each other. */
#ifndef POSTERN_QMGR_SHAPER_INSIDE_H
#define POSTERN_QMGR_SHAPER_INSIDE_H

#include "qmgr/shaper.h"

enum { SHAPER_ENOUGH = 12 }; /* recipients taken between two refusals that make a measurement */
/* Each pause is so many times as long as the one before: each knock may count against us. */
enum { SHAPER_KNOCK_GROWS = 3 };

/* Below a measured rate: what is left refills the other side's allowance. */
#define SHAPER_UNDER_MEASURED 0.97
/* What remains of a rate that was refused without a measurement, at most. */
#define SHAPER_CUT_BLIND 0.6
/* So far above the measured rate it may as well have grown meanwhile: measured anew. */
#define SHAPER_FAR_BEYOND 2.5
/* A refusal too soon for a measurement: the limit is well below, by what the few that were
 * taken suggest, but not below this share (and not above SHAPER_CUT_BLIND). */
#define SHAPER_CUT_MOST 0.35
/* So far apart two measurements are of one limit. */
#define SHAPER_SAME_LIMIT 0.25
/* This part of a minute nothing is sent after a cut: else what comes a little early, or is
 * counted a little late, would find nothing in store. */
enum { SHAPER_PAUSE_PARTS = 10 };
#define SHAPER_RATE_FREE 1e6   /* a rate that is none */
#define SHAPER_RATE_LEAST 0.02 /* recipients a second: one a minute */

/* shaper.c: the bound that is configured; a change for `shaping show` and the log. */
double shaper_rate_bound(const struct shaper *s);
void shaper_note(struct shaper *s, enum shaper_change change, double before, double after,
                 uint16_t rule, int64_t now);

/* shaper_rate.c */
/* The pace was binding for dt: more may be tried. */
void shaper_grow_rate(struct shaper *s, int64_t dt, int64_t now);
/* The rate was refused. */
void shaper_too_fast(struct shaper *s, const struct shaper_report *r, int64_t now);
/* Told to stay away: as a limit it is one of rate, what came before it was too much. */
void shaper_lower_rate(struct shaper *s);
/* How many of those that were answered were taken: whether that shows that more are allowed. */
void shaper_count_answers(struct shaper *s, const struct shaper_report *r);
/* Recipients were put off, not taken: they used up little of the pace. */
void shaper_give_back(struct shaper *s, uint32_t recipients, int64_t now);
/* Recipients were taken where there is no rate: what a first refusal is measured by. */
void shaper_count_free(struct shaper *s, uint32_t recipients, int64_t now);
/* The cut on trial did not help: as before it. */
void shaper_undo_trial(struct shaper *s, int64_t now);
void shaper_measure_anew(struct shaper *s);

/* shaper_window.c */
/* Connections at a time were refused. */
void shaper_too_many(struct shaper *s, const struct shaper_report *r, int64_t now);
/* A delivery worked, and others that were begun with it got no connection: those that are
 * under way are as many as it allows. */
void shaper_dropped_others(struct shaper *s, int64_t now);
/* A delivery worked, and took so many microseconds: it may have earned one more at a time. */
void shaper_grow_window(struct shaper *s, uint64_t latency, int64_t now);
/* As many as are allowed are under way: true if it is one more now. Otherwise *when it will
 * be; 0: when a delivery has worked. */
bool shaper_widen(struct shaper *s, int64_t now, int64_t *when);
/* Messages on one connection were refused; or it was closed without a word after so many;
 * or it carried so many and worked. */
void shaper_too_long(struct shaper *s, const struct shaper_report *r, int64_t now);
void shaper_closes_silently(struct shaper *s, uint32_t after, int64_t now);
void shaper_used_up(struct shaper *s, uint32_t use_count);

/* shaper_door.c */
/* Everything is refused: knock again later, alone; after `first` where nothing is known. */
void shaper_shut_door(struct shaper *s, int64_t first, int64_t now, uint16_t rule);
/* A shut door was found open. */
void shaper_door_opened(struct shaper *s, int64_t now);
/* Nobody answers; told to stay away. True if the lane is suspended by it. */
bool shaper_unreachable(struct shaper *s, int64_t now);
bool shaper_go_away(struct shaper *s, const struct shaper_report *r, int64_t now);

#endif

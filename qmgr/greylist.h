/*
 * Greylisting: a destination that refuses a recipient it does not know yet, and takes it
 * when it is tried again late enough. How late is learned from the ages (microseconds
 * since the first such refusal of a recipient) at which it was refused and taken.
 *
 * Pure: no I/O, no allocation, no clock.
 */
#ifndef POSTERN_QMGR_GREYLIST_H
#define POSTERN_QMGR_GREYLIST_H

#include <stdbool.h>
#include <stdint.h>

struct greylist {
    int64_t refused; /* the greatest age that was too early; 0: none known */
    int64_t passed;  /* the smallest age that was late enough; 0: none known */
    int64_t first;   /* after how long it is tried where nothing is known */
    uint8_t late;    /* refusals since at ages that should have been late enough */
};

/* A recipient was refused (again) at that age; 0: for the first time. `first`: as above,
 * above 0. */
void greylist_refused(struct greylist *g, int64_t age, int64_t first);
/* A recipient that had been refused was taken at that age. */
void greylist_passed(struct greylist *g, int64_t age);
/* The age at which a recipient of this age had best be tried next. */
int64_t greylist_next(const struct greylist *g, int64_t age);
/* Whether to try at this age is known to be in vain. */
bool greylist_in_vain(const struct greylist *g, int64_t age);

#endif

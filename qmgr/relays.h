/* Relay processes, inside: what relays.c, relays_send.c and relays_result.c share. */
#ifndef POSTERN_QMGR_RELAYS_H
#define POSTERN_QMGR_RELAYS_H

#include "qmgr/qmgr.h"

struct relay {
    struct peer peer;
    struct list jobs;
    unsigned slot;
    uint32_t limit, in_flight; /* jobs that it takes; that it has */
    struct map lanes;          /* struct lane_at: where it has jobs or connections */
};

/* Of a delivery that says nothing about the destination. */
extern const struct shaper_report relays_nothing;

/* Gives the job its number in the table. */
void relays_add(struct relays *t, struct job *j);
/* NULL: there is none, or not any more. */
struct job *relays_find(const struct relays *t, uint64_t number);
/* RESULT and DOT. -1: it broke the rules. */
int relays_result(struct relay *relay, struct slice body, struct err *e);
int relays_dot(struct relay *r, struct slice body, struct err *e);

#endif

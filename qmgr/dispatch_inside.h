/* What the files of dispatch share: lanes.c, turns.c, jobs.c, dispatch.c. */
#ifndef POSTERN_QMGR_DISPATCH_INSIDE_H
#define POSTERN_QMGR_DISPATCH_INSIDE_H

#include "qmgr/qmgr.h"

struct account {
    struct list active;   /* in dispatch.active while it has ready queues */
    struct list ready[3]; /* queues, by class */
    int32_t deficit;
    struct class_turns turns;
    uint32_t queues, ready_count;
    /* what quota said of it, for any one destination; seats.h */
    struct list seats;
    uint32_t connections, generation;
    double rate; /* recipients a second */
    size_t name_len;
    char name[];
};

/* ---- lanes.c ---------------------------------------------------------------------------- */

/* NULL: it has nothing in line or under way. */
struct account *account_known(const struct qmgr *q, struct slice name);
/* What an account has for a lane in a class, or NULL. */
struct queue *queue_known(const struct qmgr *q, struct account *a, struct lane *l, uint8_t class);
/* What m's account has there in m's class; made if need be. */
struct queue *lane_queue(struct qmgr *q, struct lane *l, const struct message *m);
/* The account's queue there in another class (or k's own), or NULL. */
struct queue *queue_kin(const struct qmgr *q, const struct queue *k, uint8_t class);

/* ---- turns.c ---------------------------------------------------------------------------- */

/* k may start a job when its account's turn comes: the lane has room for one. */
void queue_ready(struct qmgr *q, struct queue *k);
/* k has nothing to start, or goes elsewhere. */
void queue_idle(struct qmgr *q, struct queue *k);
/* k waits for room at its lane; `first`: it has had its turn already, and there was none. */
void queue_waits(const struct qmgr *q, struct queue *k, bool first);
bool lane_has_waiting(const struct lane *l);
/* k, which is idle and has jobs, becomes ready, or waits at its lane behind the others. */
void queue_in_line(struct qmgr *q, struct queue *k);
/* One waiting queue becomes ready, if the lane has room; false: none. */
bool lane_wake(struct qmgr *q, struct lane *l);
/* The lane has no room: remembers whether it is for its rate, or for want of a connection. */
void lane_no_room(const struct qmgr *q, struct lane *l, enum shaper_room room);
/* What a job takes of what is short at k's lane: its recipients, and where connections are short
 * one more for each 64 KiB. */
uint32_t turn_cost(const struct queue *k, const struct job *j);
/* k starts a job of that cost, before it stands in line again: if others wait there, the account
 * leaves them so many turns that this one is paid for. */
void turn_pay(const struct qmgr *q, struct queue *k, uint32_t cost);
/* It was not tried. */
void turn_pay_back(const struct qmgr *q, struct queue *k, uint32_t cost);
/* A delivery that began at `started` was refused: whose deliveries were more than an even share
 * of those since the refusal before, all classes of an account together, leaves turns to others.
 * Once for a burst: what began before the last blame says nothing more. */
void lane_blame(const struct qmgr *q, struct lane *l, int64_t started);

/* ---- jobs.c ----------------------------------------------------------------------------- */

/* None of those that wait in a brake's line. */
bool queue_has_jobs(const struct queue *k);
/* Of a queue that has jobs. */
struct job *queue_first(struct queue *k);
/* Its line that the next one comes from: those that were put off, or the others. */
struct list *queue_line(struct queue *k);
/* Takes a queued job out of its queue, or out of the line of a brake. */
void job_unqueue(struct qmgr *q, struct job *j);
/* The lane is suspended: all that is in line there is deferred, and settled. */
void jobs_defer(struct qmgr *q, struct lane *l);

#endif

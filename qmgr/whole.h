/*
 * Wholes: limits over all source addresses of a provider together, of a destination
 * without a provider for that one. What holds there is configured (total_connections,
 * total_message_rate, total_connection_rate), or learned where rules have the scope
 * "provider": the same controller (shaper.h) a second time, that deliveries pass after
 * their lane's.
 *
 * A lane that has room itself waits at its whole: there the accounts take turns, however many
 * lanes each has.
 */
#ifndef POSTERN_QMGR_WHOLE_H
#define POSTERN_QMGR_WHOLE_H

#include "qmgr/qmgr.h"

enum { WHOLE_FREE = 1000000 }; /* connections: as many as the lanes allow */

struct whole {
    struct shaper shaper;
    struct shaper_limits limits;
    struct list waiting;   /* lanes, by of_whole: longest first */
    struct lane *turn;     /* a delivery of it may start: it has waited longest; or NULL */
    struct heap_node wake; /* of dispatch.whole_wakes: when there may be room for the first */
    char *key, *name;      /* of the map; for people */
    char *stable;          /* as the key, but the same after a restart */
    struct answer *last;   /* the reply that was about it last, or NULL */
    int64_t used;          /* monotonic: last delivery */
    /* what accounts were served, in units of turn_cost, by a hash of the account; NULL until
     * lanes wait for each other. Who comes anew begins at served_now. */
    uint64_t *served, served_now;
    uint32_t refs; /* groups */
    /* connections.h: of all its lanes together */
    uint32_t open, leaving, claims;
    int64_t wanted;     /* since then the first in line wants a place; 0: it does not */
    struct list places; /* struct lane_at with open connections, by of_whole */
};

void wholes_init(struct qmgr *q);
/* Gives a new group its whole, if it has a provider or there are such limits. */
void whole_join(struct qmgr *q, struct group *g);
void whole_leave(struct qmgr *q, struct group *g);
/* Other limits. */
void wholes_reload(struct qmgr *q);

/* May a delivery of the lane start? As shaper_room, for both. Where the lane has to wait for
 * the whole alone it says SHAPER_FULL, and whole_wake wakes it; `wants`: something does wait
 * there. */
enum shaper_room whole_room(struct qmgr *q, struct lane *l, bool wants, int64_t *when);
/* A delivery of k's starts, of that turn_cost; may_connect is the lane's answer. Returns that of
 * both. */
bool whole_started(struct qmgr *q, struct queue *k, uint32_t recipients, uint32_t cost,
                   bool may_connect);
/* It is over. Returns what is left to be said of the lane. */
struct shaper_report whole_finished(struct qmgr *q, struct lane *l, const struct shaper_report *r);
/* What started then was not tried, for want of a connection. */
void whole_returned(struct qmgr *q, struct queue *k, uint32_t recipients, uint32_t cost,
                    int64_t started);
/* Something is over, or has started: whose turn it is there has it, if there is room. */
void whole_wake(struct qmgr *q, const struct lane *l);
/* A connection was closed, or may be used: as whole_wake, but in the turn that follows. */
void whole_look_again(struct qmgr *q, struct whole *w);
/* The lane starts nothing now: if it was its turn there, it is another's. */
void whole_lose_turn(struct qmgr *q, const struct lane *l);
/* Gives turns where it is time. */
void wholes_turn(struct qmgr *q);

/* Whether it has no room, whoever asks; *when: until then, 0: until a delivery is over. */
bool whole_holds(const struct lane *l, int64_t now, int64_t *when);
/* By hand: ends a suspension; forgets what was learned. */
void whole_resume(struct qmgr *q, struct lane *l);
void whole_reset(struct qmgr *q, struct lane *l);
/* Ends all suspensions. */
void wholes_resume(struct qmgr *q);
/* Appends a member "all_sources", if the group has a whole. */
void whole_show(struct qmgr *q, const struct group *g, struct buf *b);

#endif

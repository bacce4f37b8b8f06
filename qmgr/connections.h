/*
 * Connections that are open at a destination, unused ones included: the other side counts them
 * all, so a limit of a lane, or of a whole (whole.h), bounds them, and not deliveries alone.
 *
 * A delivery that may open a connection has a claim to one place from its start to its RESULT;
 * an open connection has a place from the RESULT that told of it until relay tells that it is
 * closed. Claims and open ones together never exceed the limit. Where there is no place left a
 * delivery starts if there is an unused connection of its lane; otherwise one of another lane
 * is asked to go (SPARE), and the lane waits. Connections that are in use are shared out again
 * only after a while, or each message would need one of its own.
 */
#ifndef POSTERN_QMGR_CONNECTIONS_H
#define POSTERN_QMGR_CONNECTIONS_H

#include "qmgr/qmgr.h"

struct whole;

/* What a relay process has of a lane. */
struct lane_at {
    struct list of_whole; /* while it has open ones */
    struct lane *lane;
    struct relay *relay;
    uint64_t number; /* the lane's; the key */
    uint32_t open, leaving, sparing, in_flight;
};

void connections_init(struct relay *r);
/* The process is gone, and its connections with it: before its jobs are given to others, and
 * after that. */
void connections_lost(struct relay *r);
void connections_gone(struct relay *r);

/* Whether a delivery of the lane may start as far as the lane's own limit of connections, or its
 * whole's, is concerned. */
bool connections_room(const struct lane *l);
bool connections_room_of_all(const struct lane *l);
/* Whether one may be opened for it. */
bool connections_place(const struct lane *l);
/* Whether there is surely an unused connection of the lane. */
bool connections_idle(const struct lane *l);
/* Asks for a place for it: an unused connection goes, of this lane or of another of its whole;
 * `patient`: not of one that has mail in line. False: none goes. */
bool connections_want(struct qmgr *q, struct lane *l, bool patient);
/* Unused ones beyond the lane's limit go. */
void connections_trim(const struct qmgr *q, const struct lane *l);

/* Which process has an unused one of it and takes a job; NULL: none. */
struct relay *connections_where(const struct qmgr *q, const struct lane *l);
/* The same of this process. */
bool connections_idle_at(const struct relay *r, const struct lane *l);

/* A job that may open a connection starts; it is over, or was not tried. */
void connections_claim(struct lane *l);
void connections_unclaim(struct lane *l);
/* A job goes to r; it is over there. */
void connections_sent(struct relay *r, struct job *j);
void connections_back(struct job *j);
/* A job's RESULT. -1: that cannot be. */
int connections_result(struct job *j, const struct ipc_result *in, struct err *e);
/* CONNECTION. -1: it broke the rules. */
int connections_change(struct relay *r, struct slice body, struct err *e);
/* The whole of the lanes of this group is new. */
void connections_join(struct whole *w, const struct group *g);

#endif

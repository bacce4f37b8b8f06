/*
 * Whether a job still belongs where it stands. Where mail goes is looked up when a message comes
 * into line, and may change while it waits there: DNS gives other servers once the time of its
 * answer is over (RFC 5321, 5.1), a domain asks for other TLS, providers.conf gives a destination
 * to a provider or to a section of its own. So a job's recipients are asked for their routes once
 * more when it is about to start (a look into memory, for as long as the routes hold). And where a
 * group has lost a site or a domain, all that is in line there is gone through, a slice in each
 * turn and once a minute at most: what belongs elsewhere leaves, and the rest never leaves its
 * place.
 *
 * While a route is looked up, the queue waits whose first jobs are of it, and no other: one lookup
 * for all of a domain's jobs. Other domains of the queue go before, if one is near its front. For a
 * job of several domains a route counts that has held at any time since the wait began: where DNS
 * takes longer than its answers hold there is no time at which all of them do.
 */
#ifndef POSTERN_QMGR_MOVES_H
#define POSTERN_QMGR_MOVES_H

#include "qmgr/qmgr.h"

/* Whether the first job of a queue whose turn it is must not start: the queue waits for its route,
 * or the job has left for where it belongs. If false, the first job may be another one now, and has
 * the targets and rules about TLS that hold now. */
bool moves_hold(struct qmgr *q, struct queue *k);
/* The route that the queue waited for is known; it is in no list. */
void moves_go_on(struct qmgr *q, struct queue *k);
/* What is in line at the group's lanes may belong elsewhere: it is gone through soon, or if that
 * was done just before, in a minute, unless `at_once`. */
void moves_look(struct qmgr *q, struct group *g, bool at_once);
/* Goes through some of it; each turn. */
void moves_turn(struct qmgr *q);
/* When moves_turn has something to do, monotonic; INT64_MAX: nothing. */
int64_t moves_next_due(const struct qmgr *q);
/* Whether the lane, which is not the destination of that name any more, still has its mail: in line
 * (as far as that is looked through) or under way. For people. */
bool moves_remain(const struct qmgr *q, const struct lane *l, struct slice name);

#endif

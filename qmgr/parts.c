/* All parts of the queue in their order: what main.c starts and turns, and what a
 * fuzz target starts and turns without a process around it. */
#include "qmgr/alerts.h"
#include "qmgr/brakes.h"
#include "qmgr/halts.h"
#include "qmgr/memory.h"
#include "qmgr/moves.h"
#include "qmgr/sources.h"

void qmgr_init(struct qmgr *q, struct service *s)
{
    q->s = s;
    queue_init(q);
    groups_init(q);
    sources_init(q);
    memory_init(q);
    alerts_init(q);
    brakes_init(q);
    halts_init(q);
    sites_init(q);
    dispatch_init(q);
    relays_init(q);
    notices_init(q);
    charges_init(q);
    tokens_init(&q->tokens);
    pools_init(q);
    events_reload(q);
    deleted_reload(q);
}

void qmgr_turn(struct qmgr *q)
{
    queue_tick(q);
    queue_turn(q);
    sites_turn(q);
    sources_lists_turn(q);
    alerts_turn(q);
    brakes_turn(q);
    moves_turn(q);
    dispatch_turn(q);
    sites_turn(q); /* what it asks about */
    notices_turn(q);
    charges_turn(q);
    pools_turn(q);
    walks_turn(q);
    queue_sweep(q);
    intake_state(q);
    queue_check(q);
    channel_flush_all(); /* before the logs: somebody waits for what is in there */
}

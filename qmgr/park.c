/*
 * When memory is scarce, each queue (of an account for a site, in a class) has its
 * fair share of the room for envelopes; what is beyond waits on the disk. So fifty
 * thousand messages for a site that is slow or down never keep mail for other
 * sites, of other accounts or of another class from being delivered.
 */
#include "qmgr/qmgr.h"

enum {
    LOOK_AGAIN_SECONDS = 300, /* to twice as long: if it is not called before */
    RELEASE_AT_A_TIME = 2     /* for each job that leaves the queue */
};

static uint32_t fair_share(const struct qmgr *q)
{
    uint64_t limit = (uint64_t)q->s->config->qmgr_message_active_limit;
    uint64_t share = limit / 2 / (q->dispatch.busy_queues + 1u);
    return share < 1 ? 1 : (uint32_t)share;
}

bool park_wanted(const struct qmgr *q, const struct queue *k)
{
    return k->count >= fair_share(q) && queue_crowded(q);
}

void park(struct qmgr *q, struct queue *k, struct job *j)
{
    struct message *m = j->m;
    int64_t wait = LOOK_AGAIN_SECONDS * CLOCK_SECOND;
    uint32_t due = queue_seconds(q, q->now + wait + retry_jitter(wait));
    for (uint32_t i = 0; i < j->count; i++) {
        recipient_waits(m, j->rcpts[i], due);
        m->env->recipients[j->rcpts[i]].parked = true;
    }
    m->env->queued -= j->count;
    list_remove(&m->parked);
    list_push(&k->parked, &m->parked);
    job_free(q, j);
}

void park_release(struct qmgr *q, struct queue *k)
{
    if (k->count > fair_share(q) / 2 || k->lane->shaper.suspended_until > q->now)
        return;
    /* those that are held, or have no more to send here, would end the chain */
    for (int i = 0; i < RELEASE_AT_A_TIME && !list_empty(&k->parked);)
        i += message_hurry(q, container_of(list_pop(&k->parked), struct message, parked));
}

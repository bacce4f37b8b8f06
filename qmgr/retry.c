/* When to try again, and when to give up. */
#include <stdlib.h>

#include "qmgr/qmgr.h"

int64_t retry_jitter(int64_t span)
{
    return span > 0 ? (int64_t)((uint64_t)rand() % (uint64_t)span) : 0;
}

int64_t retry_backoff(const struct config *c, unsigned attempts)
{
    int64_t wait = c->minimal_backoff_time, max = c->maximal_backoff_time;
    for (unsigned i = 1; i < attempts && wait < max; i++)
        wait *= 2;
    if (wait > max)
        wait = max;
    wait *= CLOCK_SECOND;
    /* 10 % either way: what failed together does not come back together (F47) */
    return wait - wait / 10 + retry_jitter(wait / 5 + 1);
}

int64_t retry_age(const struct qmgr *q, const struct message *m)
{
    return q->now - m->born;
}

static int64_t lifetime(const struct qmgr *q, const struct message *m)
{
    const struct config *c = q->s->config;
    bool notice = (m->flags & MESSAGE_NOTICE) || message_sender(m).len == 0;
    return (notice ? c->bounce_queue_lifetime : c->maximal_queue_lifetime) * CLOCK_SECOND;
}

bool retry_expired(const struct qmgr *q, const struct message *m)
{
    return retry_age(q, m) - m->env->held * CLOCK_SECOND >= lifetime(q, m);
}

bool retry_is_late(const struct qmgr *q, const struct message *m)
{
    int64_t late = q->s->config->delay_warning_time * CLOCK_SECOND;
    return late > 0 && retry_age(q, m) >= late;
}

int64_t retry_until(const struct qmgr *q, const struct message *m)
{
    return m->arrival + m->env->held * CLOCK_SECOND + lifetime(q, m);
}

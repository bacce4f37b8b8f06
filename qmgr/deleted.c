/*
 * Messages that the operator deleted stay in the spool for queue_undelete_time,
 * with a flag in their file: until then they can be brought back. They are on the
 * disk only, are not in the queue that others see, and give way, the oldest
 * first, when the disk's reserve or the room for messages is reached: what was
 * thrown away never keeps new mail out.
 *
 * It goes when quota knows that it was not delivered (charges_lost), which its file is the only
 * record of; only where room is missing it goes before that.
 *
 * What a relay has when its message is deleted cannot be called back. Its result
 * is marked and recorded as always: who was delivered to is not sent to again,
 * and who failed is reported only if the message comes back.
 */
#include "core/log.h"
#include "qmgr/qmgr.h"

enum {
    PURGE_AT_A_TIME = 512, /* in one turn */
    BLOCK = 4096
};

#define PURGE_AGAIN CLOCK_SECOND       /* what was in use when it was to be purged... */
#define PURGE_LATER (5 * CLOCK_SECOND) /* ...or what quota does not know of, as it is away */
#define LOOK CLOCK_SECOND              /* between looks at the disk's free space... */
#define LOOK_OFTEN (CLOCK_SECOND / 10) /* ...when there is little */
#define FREED_SHOWS CLOCK_SECOND       /* until what was purged is among it */

static int64_t keep_time(const struct qmgr *q)
{
    return q->s->config->queue_undelete_time * CLOCK_SECOND;
}

/* What purging it gives back to the disk, at least. */
static uint64_t footprint(const struct message *m)
{
    return (message_size(m) + BLOCK) / BLOCK * BLOCK;
}

/* The spool counts kept messages as free space, as long as they really go when it
 * is needed. */
static void offer(struct qmgr *q)
{
    store_yield(q->store, q->deleted_bytes + q->freed_bytes, q->deleted_count + q->freed_count);
}

/* ---- coming and going ------------------------------------------------------------------ */

/* Its flag is set. From the queue's list to the other, to be purged at `due`. */
static void enter(struct qmgr *q, struct message *m, int64_t due)
{
    walks_forget(q, m);
    list_remove(&m->all);
    list_push(&q->deleted, &m->all);
    list_remove(&m->parked);
    m->kept = true;
    q->deleted_count++;
    q->deleted_bytes += footprint(m);
    message_count_held(q, m);
    message_plan(q, m, due);
    offer(q);
}

void deleted_forget(struct qmgr *q, struct message *m)
{
    if (!m->kept)
        return;
    m->kept = false;
    q->deleted_count--;
    q->deleted_bytes -= footprint(m);
}

void deleted_found(struct qmgr *q, struct message *m)
{
    int64_t keep = keep_time(q), gone;
    if (__builtin_sub_overflow(clock_wall(), m->env->flags_at, &gone) || gone < 0)
        gone = 0;
    m->env->removed = true;
    enter(q, m, q->now + (gone < keep ? keep - gone : 0));
}

bool message_delete(struct qmgr *q, struct message *m)
{
    if (m->flags & MESSAGE_DELETED) { /* once more: for good */
        message_plan(q, m, q->now);
        return true;
    }
    int64_t keep = keep_time(q);
    message_withdraw(q, m);
    message_plan(q, m, INT64_MAX);
    bool at_rest = m->env->queued == 0 && m->env->failing == 0 && m->pins == 0;
    if (keep == 0 && at_rest && !m->charged)
        m->flags |= MESSAGE_DELETED; /* its file goes now: nothing to write into it */
    else
        message_set_flags(q, m, m->flags | MESSAGE_DELETED);
    enter(q, m, q->now + keep);
    return true;
}

bool message_undelete(struct qmgr *q, struct message *m)
{
    if (!(m->flags & MESSAGE_DELETED) || m->refunded)
        return false;
    message_plan(q, m, INT64_MAX);
    walks_forget(q, m);
    deleted_forget(q, m);
    list_remove(&m->all);
    list_push(&q->all, &m->all);
    message_set_flags(q, m, m->flags & ~MESSAGE_DELETED);
    m->env->removed = false;
    offer(q);
    return true;
}

/* ---- the end ---------------------------------------------------------------------------- */

static bool in_use(const struct message *m)
{
    const struct envelope *e = m->env;
    return m->pins || m->phase == PHASE_LOADING || (e && (e->queued || e->failing || e->noticing));
}

/* False if it is in use just now. m is gone otherwise. */
static bool purge_now(struct qmgr *q, struct message *m)
{
    if (in_use(m))
        return false;
    if (!m->env || m->env->removed)
        events_purged(q, m);
    charges_lost(q, m);
    if (!m->quarantined)
        store_finish(q->store, &m->id, &m->ref);
    message_drop(q, m);
    return true;
}

/* Its time is over. True if it is gone. */
static bool purge_or_wait(struct qmgr *q, struct message *m)
{
    bool used = in_use(m);
    if (!used)
        charges_lost(q, m);
    if (!used && charges_known(q, m))
        return purge_now(q, m);
    if (m->env)
        m->env->purge = true;
    message_plan(q, m, q->now + (used || q->charges.peer.channel ? PURGE_AGAIN : PURGE_LATER));
    return false;
}

void deleted_settle(struct qmgr *q, struct message *m)
{
    struct envelope *e = m->env;
    if (e->queued || e->failing || e->noticing || m->pins || m->viewers)
        return;
    bool now = e->purge || m->due.key <= q->now;
    if (!e->removed) {
        q->counters.removed++;
        events_removed(q, m, "deleted");
    }
    if (now && purge_or_wait(q, m))
        return;
    e->removed = true;
    message_stub(q, m, m->due.key);
}

/* Purges up to `most`, the oldest first, until `bytes` and `files` are given back. */
static unsigned give_way(struct qmgr *q, uint64_t bytes, uint64_t files, unsigned most)
{
    struct heap_node *n;
    unsigned count = 0, owed = 0;
    while ((bytes || files) && count < most && (n = heap_min(&q->kept))) {
        struct message *m = container_of(n, struct message, due);
        uint64_t size = footprint(m);
        unsigned charged = m->charged && !(m->refunded && charges_known(q, m));
        if (!purge_now(q, m))
            break;
        owed += charged && !q->charges.peer.channel;
        q->freed_bytes += size;
        q->freed_count++;
        bytes -= size < bytes ? size : bytes;
        files -= files > 0;
        count++;
    }
    if (owed)
        log_warning("%u deleted messages were purged to make room while quota is away: if qmgr "
                    "ends before it is back, they count as delivered",
                    owed);
    return count;
}

static uint64_t missing(uint64_t free, uint64_t freed, uint64_t wanted)
{
    return free + freed < wanted ? wanted - free - freed : 0;
}

static void look_at_space(struct qmgr *q)
{
    const struct config *c = q->s->config;
    uint64_t reserve = (uint64_t)c->queue_minfree;
    struct store_stats s;
    if (q->now >= q->freed_shows) {
        q->freed_bytes = q->freed_count = 0;
        q->freed_shows = q->now + FREED_SHOWS;
    }
    offer(q);
    store_stats(q->store, &s);
    q->deleted_look = q->now + (s.bytes_free < reserve + reserve / 2 ? LOOK_OFTEN : LOOK);
    bool known = s.bytes_free || s.inodes_free;
    uint64_t bytes = missing(s.bytes_free, q->freed_bytes, reserve);
    uint64_t files = missing(s.inodes_free, q->freed_count, (uint64_t)c->queue_minfree_inodes);
    if (!known || (bytes == 0 && files == 0))
        return;
    unsigned count = give_way(q, bytes, files, 16 * PURGE_AT_A_TIME);
    if (count)
        log_warning("%u deleted messages purged before their time: less than queue_minfree or "
                    "queue_minfree_inodes is free on the spool's disk",
                    count);
}

void deleted_turn(struct qmgr *q)
{
    struct heap_node *n;
    for (int i = 0; i < PURGE_AT_A_TIME && (n = heap_min(&q->kept)) && n->key <= q->now; i++)
        (void)purge_or_wait(q, container_of(n, struct message, due));
    uint64_t limit = (uint64_t)q->s->config->qmgr_message_limit;
    if (q->messages.count > limit && q->deleted_count)
        give_way(q, 0, q->messages.count - limit, PURGE_AT_A_TIME);
    if (q->kept.count && q->now >= q->deleted_look)
        look_at_space(q);
}

int64_t deleted_next_due(const struct qmgr *q)
{
    const struct heap_node *n = heap_min(&q->kept);
    if (!n)
        return INT64_MAX;
    return n->key < q->deleted_look ? n->key : q->deleted_look;
}

void deleted_reload(struct qmgr *q)
{
    int64_t change = keep_time(q) - q->deleted_keep;
    q->deleted_keep = keep_time(q);
    if (change == 0)
        return;
    list_each(&q->deleted, n)
    {
        struct message *m = container_of(n, struct message, all);
        if (heap_has(&m->due))
            heap_set(&q->kept, &m->due, m->due.key + change);
    }
}

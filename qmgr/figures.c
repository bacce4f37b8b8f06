/* Figures for `postern status`, and the chores of every minute. */
#include <malloc.h>

#include "core/log.h"
#include "qmgr/sources.h"

enum { SWEEP_SECONDS = 60 };

/* What happened in the last sixty seconds: all of the minute under way, and of the one
 * before it the share that is not over for as long, as if it had been even. */
static struct queue_counters lately(const struct qmgr *q)
{
    const struct queue_counters *now = &q->counters, *then = &q->minute_start, *full = &q->a_minute;
    int64_t left = (q->next_sweep - q->now) / CLOCK_SECOND;
    uint64_t share = left < 0 ? 0 : left > SWEEP_SECONDS ? SWEEP_SECONDS : (uint64_t)left;
    return (struct queue_counters){
#define LATELY(name) .name = now->name - then->name + full->name * share / SWEEP_SECONDS
        LATELY(accepted), LATELY(accepted_bytes), LATELY(refused), LATELY(delivered),
        LATELY(deferred), LATELY(bounced),        LATELY(expired), LATELY(removed),
        LATELY(notices),  LATELY(bad_peers),
#undef LATELY
    };
}

static unsigned sources_listed(const struct qmgr *q)
{
    unsigned listed = 0;
    list_each(&q->from->all, n)
    {
        const struct source *s = container_of(n, struct source, all);
        listed += s->conf && s->listed;
    }
    return listed;
}

void queue_figures(struct qmgr *q, struct queue_figures *out)
{
    const struct mallinfo2 heap = mallinfo2();
    *out = (struct queue_figures){
        .total = q->counters,
        .a_minute = lately(q),
        .messages = q->messages.count - q->deleted_count,
        .deleted = q->deleted_count,
        .deleted_bytes = q->deleted_bytes,
        .active = q->active,
        .held = q->held,
        .jobs_queued = q->dispatch.queued,
        .jobs_in_flight = q->dispatch.in_flight,
        .body_bytes = q->body_bytes,
        .sites = q->sites.sites.count,
        .routes = q->sites.routes.count,
        .sources_listed = sources_listed(q),
        .relays = q->relays.count,
        .smtpds = q->smtpd_count,
        .resolve = q->sites.peer.channel != NULL,
        .bounce = q->notices.peer.channel != NULL,
        .scanning = !q->scanned,
        .spool_state = intake_current_state(q),
        .heap_bytes = heap.uordblks + heap.hblkhd,
        .heap_free_bytes = heap.fordblks,
        .started = q->started,
    };
    store_stats(q->store, &out->store);
}

static void minute(struct qmgr *q)
{
    const struct queue_counters *now = &q->counters, *then = &q->minute_start;
    q->a_minute = (struct queue_counters){
        .accepted = now->accepted - then->accepted,
        .accepted_bytes = now->accepted_bytes - then->accepted_bytes,
        .refused = now->refused - then->refused,
        .delivered = now->delivered - then->delivered,
        .deferred = now->deferred - then->deferred,
        .bounced = now->bounced - then->bounced,
        .expired = now->expired - then->expired,
        .removed = now->removed - then->removed,
        .notices = now->notices - then->notices,
        .bad_peers = now->bad_peers - then->bad_peers,
    };
    q->minute_start = *now;
}

void queue_sweep(struct qmgr *q)
{
    if (q->now < q->next_sweep)
        return;
    if (q->next_sweep)
        minute(q);
    q->next_sweep = q->now + SWEEP_SECONDS * CLOCK_SECOND;
    sites_sweep(q);
    dispatch_sweep(q);
}

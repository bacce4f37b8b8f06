/* Relay processes: which there are and which gets a job, the table of what is under way,
 * and what becomes of it when a process dies. */
#include <stdio.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "qmgr/connections.h"
#include "qmgr/relays.h"

enum {
    RELAY_JOBS_MAX = 100000, /* whatever it says */
    LOST_AT_ONCE_MAX = 2     /* then a message that kills relay processes waits too */
};

void relays_init(struct qmgr *q)
{
    buf_init(&q->relays.rcpts, 2 * JOB_RECIPIENT_BYTES);
}

/* ---- the table -------------------------------------------------------------------------- */

static void table_grow(struct relays *t)
{
    uint32_t size = t->table_size ? t->table_size * 2 : 256;
    t->table = xreallocarray(t->table, size, sizeof *t->table);
    t->free_slots = xreallocarray(t->free_slots, size, sizeof *t->free_slots);
    for (uint32_t i = size; i > t->table_size; i--) {
        t->table[i - 1] = NULL;
        t->free_slots[t->free_count++] = i - 1;
    }
    t->table_size = size;
}

void relays_add(struct relays *t, struct job *j)
{
    if (t->free_count == 0)
        table_grow(t);
    uint32_t slot = t->free_slots[--t->free_count];
    j->number = (uint64_t)++t->generation << 32 | slot;
    t->table[slot] = j;
}

struct job *relays_find(const struct relays *t, uint64_t number)
{
    uint32_t slot = (uint32_t)number;
    struct job *j = slot < t->table_size ? t->table[slot] : NULL;
    return j && j->number == number ? j : NULL;
}

void relays_release(struct qmgr *q, struct job *j)
{
    if (!j->relay)
        return;
    uint32_t slot = (uint32_t)j->number;
    q->relays.table[slot] = NULL;
    q->relays.free_slots[q->relays.free_count++] = slot;
    j->relay->in_flight--;
    connections_back(j);
    j->relay = NULL;
}

/* ---- choosing ----------------------------------------------------------------------------- */

static bool has_room(const struct relay *r)
{
    return r->in_flight < r->limit;
}

unsigned relays_ready(const struct qmgr *q)
{
    unsigned n = 0;
    for (unsigned i = 0; i < q->relays.count; i++)
        n += has_room(q->relays.list[i]);
    return n;
}

struct relay *relays_pick(struct qmgr *q, const struct lane *lane)
{
    struct relays *t = &q->relays;
    struct relay *least = NULL;
    for (unsigned i = 0; i < t->count; i++)
        if (has_room(t->list[i]) && (!least || t->list[i]->in_flight < least->in_flight))
            least = t->list[i];
    if (!least)
        return NULL;
    /* where sessions to the destination are open: only so it is known how many there are.
     * Where many are allowed that one may not get much busier than the others. */
    enum { FEW = 64 };
    struct relay *idle = connections_where(q, lane);
    if (idle)
        return idle;
    struct relay *home = t->list[map_hash(slice_str(lane->group->key)) % t->count];
    bool few = shaper_window(&lane->shaper) <= FEW;
    return has_room(home) && (few || home->in_flight <= 4 + 2 * least->in_flight) ? home : least;
}

const struct shaper_report relays_nothing = {.signal = SHAPER_NEUTRAL};

/* ---- the channel ------------------------------------------------------------------------ */

static int on_frame(struct peer *p, const struct ipc_frame *f, struct err *e)
{
    struct relay *r = container_of(p, struct relay, peer);
    struct ipc_relay_ready ready;
    switch (f->number) {
    case IPC_NUMBER_ipc_result:
        return relays_result(r, f->body, e);
    case IPC_NUMBER_ipc_dot:
        return relays_dot(r, f->body, e);
    case IPC_NUMBER_ipc_relay_ready:
        if (ipc_relay_ready_decode(f->body, &ready) < 0)
            return err_set(e, "malformed RELAY_READY");
        r->limit = ready.jobs < RELAY_JOBS_MAX ? ready.jobs : RELAY_JOBS_MAX;
        return 0;
    case IPC_NUMBER_ipc_connection:
        return connections_change(r, f->body, e);
    case IPC_NUMBER_ipc_tls_session:
        return sites_tls_session(p->q, f->body, e);
    default:
        return err_set(e, "%s is not for qmgr", ipc_name(f->number));
    }
}

/* When a message that may be what kills relay processes is tried again. */
static int64_t patience(const struct qmgr *q, unsigned lost)
{
    int64_t wait = LOST_RELAY_DELAY, max = q->s->config->maximal_backoff_time * CLOCK_SECOND;
    for (unsigned i = LOST_AT_ONCE_MAX + 1; i < lost && wait < max; i++)
        wait *= 2;
    return wait;
}

/* Its process is gone: what it had goes to another. F12: at once if the end of
 * data was not sent, which is told before (ipc_dot); F13: after a while if it may
 * have been. What waits counts as an attempt, so that it expires one day. */
static void lost_job(struct qmgr *q, struct job *j)
{
    struct message *m = j->m;
    struct attempt t = {.site = j->site, .sent = j->sent_at};
    bool maybe_sent = j->state == JOB_SENT && j->dot;
    if (maybe_sent) {
        log_warning("%s: possible duplicate: a relay process died while it may have sent the "
                    "message; tried again in %llds",
                    m->id.text, (long long)(LOST_RELAY_DELAY / CLOCK_SECOND));
    }
    if (m->env->lost < UINT8_MAX)
        m->env->lost++;
    dispatch_over(q, j, &relays_nothing, NULL);
    if (!maybe_sent && m->env->lost <= LOST_AT_ONCE_MAX) {
        for (uint32_t k = 0; k < j->count; k++)
            recipient_waits(m, j->rcpts[k], queue_seconds(q, q->now));
        m->env->queued -= j->count;
    } else {
        int64_t wait = maybe_sent ? LOST_RELAY_DELAY : patience(q, m->env->lost);
        struct answer *a =
            answer_new(0, SLICE("4.3.0"), SLICE("mail system trouble: the delivery process died"),
                       SLICE(""), SLICE(""));
        a->local = true;
        outcome_deferred(q, m, j->rcpts, j->count, a, &t, q->now + wait, false);
        answer_unref(a);
    }
    job_free(q, j);
    if (m->env->discarded)
        message_discard(q, m);
    message_settle(q, m);
}

static void on_gone(struct peer *p)
{
    struct relay *r = container_of(p, struct relay, peer);
    struct qmgr *q = p->q;
    if (r->in_flight)
        log_warning("%u deliveries were under way in relay %u", r->in_flight, r->slot);
    for (unsigned i = 0; i < q->relays.count; i++)
        if (q->relays.list[i] == r)
            q->relays.list[i] = q->relays.list[--q->relays.count];
    connections_lost(r);
    while (!list_empty(&r->jobs))
        lost_job(q, container_of(r->jobs.next, struct job, link));
    connections_gone(r);
    free(r);
}

void relays_peer(struct qmgr *q, unsigned slot, unsigned pid, int fd)
{
    static const struct peer_ops ops = {on_frame, on_gone};
    char name[64];
    if (q->relays.count == RELAYS_MAX) {
        log_error("more than %d relay processes: one stays without work", RELAYS_MAX);
        close(fd);
        return;
    }
    snprintf(name, sizeof name, "relay %u (process %u)", slot, pid);
    struct relay *r = xcalloc(1, sizeof *r);
    r->slot = slot;
    list_init(&r->jobs);
    connections_init(r);
    peer_open(&r->peer, q, fd, name, &ops);
    q->relays.list[q->relays.count++] = r;
}

#include "qmgr/connections.h"

#include <stdlib.h>

#include "core/mem.h"
#include "qmgr/relays.h"
#include "qmgr/whole.h"

enum {
    OPEN_MOST = 60000, /* of a lane: what its counters hold */
    TRIM_MOST = 16     /* at once */
};

static struct slice at_key(const void *value)
{
    const struct lane_at *at = value;
    return slice_make(&at->number, sizeof at->number);
}

void connections_init(struct relay *r)
{
    map_init(&r->lanes, at_key);
}

static struct lane_at *find(const struct relay *r, uint64_t number)
{
    return map_get(&r->lanes, slice_make(&number, sizeof number));
}

static struct lane_at *get(struct relay *r, struct lane *l)
{
    struct lane_at *at = find(r, l->number);
    if (at)
        return at;
    at = xcalloc(1, sizeof *at);
    at->lane = l;
    at->relay = r;
    at->number = l->number;
    list_init(&at->of_whole);
    map_put(&r->lanes, at);
    return at;
}

static void drop_unused(struct lane_at *at)
{
    if (at->open || at->in_flight || at->sparing)
        return;
    map_remove(&at->relay->lanes, at_key(at));
    list_remove(&at->of_whole);
    free(at);
}

/* ---- counting --------------------------------------------------------------------------- */

static void opened(struct lane_at *at)
{
    struct whole *w = at->lane->group->whole;
    at->open++;
    at->lane->open++;
    if (!w)
        return;
    w->open++;
    if (at->open == 1)
        list_push(&w->places, &at->of_whole);
}

static void closed(struct lane_at *at)
{
    struct whole *w = at->lane->group->whole;
    at->open--;
    at->lane->open--;
    if (at->open == 0)
        list_remove(&at->of_whole);
    if (w)
        w->open--;
}

static void leaves(struct lane_at *at)
{
    struct whole *w = at->lane->group->whole;
    at->leaving++;
    at->lane->leaving++;
    if (w)
        w->leaving++;
}

static void left(struct lane_at *at)
{
    struct whole *w = at->lane->group->whole;
    at->leaving--;
    at->lane->leaving--;
    if (w)
        w->leaving--;
}

/* An answer to SPARE. */
static void spared(struct lane_at *at)
{
    struct whole *w = at->lane->group->whole;
    at->sparing--;
    at->lane->leaving--;
    if (w)
        w->leaving--;
}

void connections_join(struct whole *w, const struct group *g)
{
    list_each(&g->lanes, n)
    {
        const struct lane *l = container_of(n, struct lane, of_group);
        w->open += l->open;
        w->claims += l->claims;
        w->leaving += l->leaving;
    }
}

void connections_lost(struct relay *r)
{
    struct lane_at *at;
    for (size_t cursor = 0; (at = map_next(&r->lanes, &cursor));) {
        while (at->sparing)
            spared(at);
        while (at->leaving)
            left(at);
        while (at->open)
            closed(at);
    }
}

void connections_gone(struct relay *r)
{
    struct lane_at *at;
    for (size_t cursor = 0; (at = map_next(&r->lanes, &cursor));) {
        struct lane *l = at->lane;
        if (l->group->whole)
            whole_look_again(r->peer.q, l->group->whole);
        (void)dispatch_wake(r->peer.q, l);
    }
    map_clear(&r->lanes, free);
    map_free(&r->lanes);
}

/* ---- room --------------------------------------------------------------------------------- */

static uint32_t unused(uint32_t open, uint32_t leaving, uint32_t in_flight)
{
    uint32_t taken = leaving + in_flight;
    return open > taken ? open - taken : 0;
}

bool connections_idle(const struct lane *l)
{
    return !l->no_reuse && unused(l->open, l->leaving, l->in_flight) > 0;
}

static bool own_place(const struct lane *l)
{
    uint32_t taken = (uint32_t)l->open + l->claims;
    return taken < shaper_window(&l->shaper) && taken < OPEN_MOST;
}

static bool place_of_all(const struct lane *l)
{
    const struct whole *w = l->group->whole;
    return !w || w->open + w->claims < shaper_window(&w->shaper);
}

bool connections_place(const struct lane *l)
{
    return own_place(l) && place_of_all(l);
}

bool connections_room(const struct lane *l)
{
    return own_place(l) || connections_idle(l);
}

bool connections_room_of_all(const struct lane *l)
{
    return place_of_all(l) || connections_idle(l);
}

bool connections_idle_at(const struct relay *r, const struct lane *l)
{
    const struct lane_at *at = l->open && connections_idle(l) ? find(r, l->number) : NULL;
    return at && unused(at->open, at->leaving + at->sparing, at->in_flight) > 0;
}

struct relay *connections_where(const struct qmgr *q, const struct lane *l)
{
    if (!connections_idle(l))
        return NULL;
    for (unsigned i = 0; i < q->relays.count; i++) {
        struct relay *r = q->relays.list[i];
        if (r->in_flight < r->limit && connections_idle_at(r, l))
            return r;
    }
    return NULL;
}

/* ---- making room -------------------------------------------------------------------------- */

static bool spare_one(struct lane_at *at)
{
    struct whole *w = at->lane->group->whole;
    const struct lane *l = at->lane; /* whose delivery that starts now is at no process yet */
    if (unused(at->open, at->leaving + at->sparing, at->in_flight) == 0 ||
        unused(l->open, l->leaving, l->in_flight) == 0)
        return false;
    at->sparing++;
    at->lane->leaving++;
    if (w)
        w->leaving++;
    ipc_spare_encode(channel_out(at->relay->peer.channel), &(struct ipc_spare){.lane = at->number});
    return true;
}

static bool spare_own(const struct lane *l, const struct qmgr *q)
{
    for (unsigned i = 0; i < q->relays.count; i++) {
        struct lane_at *at = find(q->relays.list[i], l->number);
        if (at && spare_one(at))
            return true;
    }
    return false;
}

bool connections_want(struct qmgr *q, struct lane *l, bool patient)
{
    struct whole *w = l->group->whole;
    if (!own_place(l)) {
        return l->leaving > 0 || spare_own(l, q);
    }
    if (!w || w->leaving)
        return true; /* one at a time: that one's place will do */
    list_each(&w->places, n)
    {
        struct lane_at *at = container_of(n, struct lane_at, of_whole);
        if ((patient && at->lane->queued) || !spare_one(at))
            continue;
        list_remove(&at->of_whole); /* another one's turn next time */
        list_push(&w->places, &at->of_whole);
        return true;
    }
    return false;
}

void connections_trim(const struct qmgr *q, const struct lane *l)
{
    uint32_t limit = (uint32_t)l->shaper.window; /* not that of a probe, which passes */
    if (limit > l->shaper.limits->concurrency)
        limit = l->shaper.limits->concurrency;
    for (int i = 0; i < TRIM_MOST && l->open > l->leaving + (limit > 1 ? limit : 1); i++)
        if (!spare_own(l, q))
            return;
}

/* ---- jobs --------------------------------------------------------------------------------- */

void connections_claim(struct lane *l)
{
    l->claims++;
    if (l->group->whole)
        l->group->whole->claims++;
}

void connections_unclaim(struct lane *l)
{
    l->claims--;
    if (l->group->whole)
        l->group->whole->claims--;
}

void connections_sent(struct relay *r, struct job *j)
{
    j->at = get(r, j->queue->lane);
    j->at->in_flight++;
}

void connections_back(struct job *j)
{
    struct lane_at *at = j->at;
    if (!at)
        return;
    j->at = NULL;
    at->in_flight--;
    drop_unused(at);
}

int connections_result(struct job *j, const struct ipc_result *in, struct err *e)
{
    struct lane_at *at = j->at;
    bool not_tried = in->scope == SCOPE_NO_CONNECTION;
    if (in->opened && (!j->may_connect || not_tried || at->lane->open >= OPEN_MOST))
        return err_set(e, "RESULT: an open connection, of a job that may not have opened one");
    if (in->leaving && (not_tried || at->open + in->opened <= at->leaving))
        return err_set(e, "RESULT: a connection leaves that is not open");
    if (in->opened)
        opened(at);
    if (in->leaving)
        leaves(at);
    /* they may be of other kinds (TLS, HELO): then places are waited for */
    at->lane->no_reuse = not_tried;
    return 0;
}

static int take_change(struct lane_at *at, enum connection_change change)
{
    bool answer = change == CONNECTION_SPARED || change == CONNECTION_NOT_SPARED;
    if (answer && !at->sparing)
        return -1;
    if (answer)
        spared(at);
    switch (change) {
    case CONNECTION_LEAVES:
    case CONNECTION_SPARED:
        if (at->open <= at->leaving)
            return -1;
        leaves(at);
        return 0;
    case CONNECTION_LEFT:
        if (!at->leaving)
            return -1;
        left(at);
        closed(at);
        return 0;
    case CONNECTION_LOST:
        if (at->open <= at->leaving)
            return -1;
        closed(at);
        return 0;
    default:
        return answer ? 0 : -1;
    }
}

int connections_change(struct relay *r, struct slice body, struct err *e)
{
    struct ipc_connection in;
    if (ipc_connection_decode(body, &in) < 0)
        return err_set(e, "malformed CONNECTION");
    struct lane_at *at = find(r, in.lane);
    struct lane *l = at ? at->lane : NULL;
    if (!at || take_change(at, (enum connection_change)in.change) < 0)
        return err_set(e, "CONNECTION: change %u of a connection that is not there", in.change);
    drop_unused(at);
    if (l->group->whole)
        whole_look_again(r->peer.q, l->group->whole);
    (void)dispatch_wake(r->peer.q, l);
    return 0;
}

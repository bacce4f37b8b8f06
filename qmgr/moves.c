/* Jobs in line whose destination is another one now. */
#include "qmgr/moves.h"

#include "qmgr/dispatch_inside.h"
#include "qmgr/halts.h"
#include "qmgr/relays.h"
#include "qmgr/seats.h"
#include "qmgr/sites.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"

enum {
    LOOKED_AHEAD = 32,     /* jobs of a queue, while the routes of the first are looked up */
    LOOKED_AT_ONCE = 2000, /* jobs in a turn */
    MOVE_COSTS = 9,        /* of these, that are not looked at for one that is moved */
    PAUSE_SECONDS = 60,    /* between two looks at a group's lines */
    REMAINS_LOOKED = 1000, /* jobs that are looked at for people */
    LATE_SECONDS = 60      /* a job may start so long after its route was looked up for it */
};
enum family { FAMILY_4 = 1, FAMILY_6 = 2 };

/* ---- where it belongs --------------------------------------------------------------------- */

enum stand { BELONGS, ASKS, LEAVES };

struct look {
    struct site *site; /* to which the recipients' routes lead */
    struct tls_rules *tls;
    struct route *asks; /* the first that is looked up */
};

/* One recipient's route. */
static enum stand look_at_route(struct qmgr *q, struct route *r, const struct group *g,
                                struct look *out)
{
    if (r->state != ROUTE_READY) {
        route_ask(q, r);
        if (!out->asks)
            out->asks = r;
        return ASKS;
    }
    if (!r->site || r->site->group != g)
        return LEAVES;
    if (out->site && (out->site != r->site || !tls_rules_same(out->tls, r->tls)))
        return LEAVES;
    out->site = r->site;
    out->tls = r->tls;
    return BELONGS;
}

/* As of when the queue's routes count: it began to wait for them then, has them, and has not had
 * its turn since; 0: only now. Else mail would never go where the turn takes longer to come than
 * the route holds, nor a job of several domains where one's holds no longer than another is looked
 * up. */
static int64_t good_since(const struct qmgr *q, const struct queue *k)
{
    bool waited = k->routed && clock_tenths(q->now) - k->routed < LATE_SECONDS * 10;
    return waited ? k->asked * (CLOCK_SECOND / 10) : 0;
}

static struct route *route_of(struct qmgr *q, struct slice address, int64_t since)
{
    struct route *r = since ? sites_route_known(q, address) : NULL;
    if (r && r->state == ROUTE_READY && !r->by_address && r->expires > since)
        return r;
    return sites_route(q, address);
}

/* All recipients; those that follow each other are mostly of one domain. */
static enum stand look_at_routes(struct qmgr *q, const struct job *j, const struct group *g,
                                 int64_t since, struct look *out)
{
    struct slice before = SLICE("");
    enum stand all = BELONGS;
    for (uint32_t i = 0; i < j->count; i++) {
        struct slice address = recipient_address(j->m, j->rcpts[i]), domain = domain_part(address);
        if (before.len && slice_eq(domain, before))
            continue;
        struct route *r = route_of(q, address, since);
        bool by_address = r->key_len > domain.len;
        enum stand one = look_at_route(q, r, g, out);
        if (one == LEAVES)
            return LEAVES;
        all = one == ASKS ? ASKS : all;
        before = by_address ? SLICE("") : domain;
    }
    return all;
}

static bool reaches(const struct source *s, const struct site *site)
{
    return !s || (s->has_v4 && (site->families & FAMILY_4)) ||
           (s->has_v6 && (site->families & FAMILY_6));
}

/* Whether the job may go from the lane, or with NULL from some lane of its site's group; then it
 * has what its routes say now. */
static enum stand look_at_job(struct qmgr *q, struct job *j, const struct lane *l, int64_t since,
                              struct route **asks)
{
    struct look look = {0};
    enum stand stand = look_at_routes(q, j, l ? l->group : j->site->group, since, &look);
    if (!*asks)
        *asks = look.asks;
    if (stand != BELONGS)
        return stand;
    if (l && !reaches(l->from, look.site))
        return LEAVES;
    if (j->site != look.site) {
        look.site->refs++;
        site_unref(q, j->site);
        j->site = look.site;
    }
    if (j->tls != look.tls) {
        tls_rules_unref(j->tls);
        j->tls = tls_rules_ref(look.tls);
    }
    return BELONGS;
}

/* Its recipients go where their routes lead once the message is activated; the job is gone. */
static void leave(struct qmgr *q, struct job *j)
{
    for (uint32_t i = 0; i < j->count; i++)
        recipient_waits(j->m, j->rcpts[i], 0);
    j->m->env->queued -= j->count;
    job_free(q, j);
}

/* ---- about to start -------------------------------------------------------------------------- */

/* It starts now, before those of its queue whose routes are looked up. */
static void go_first(struct queue *k, struct job *j)
{
    if (queue_first(k) == j)
        return;
    struct list *turn = queue_line(k);
    list_remove(&j->link);
    list_push_front(turn, &j->link);
}

/* The first job near the front that does not wait for its route: *found, NULL: there is none, and
 * *asks is what the first waits for. */
static enum stand look_ahead(struct qmgr *q, struct queue *k, struct job **found,
                             struct route **asks)
{
    struct list *lists[] = {&k->again, &k->jobs};
    int64_t since = good_since(q, k);
    int looked = 0;
    *found = NULL;
    for (int i = 0; i < 2; i++)
        list_each(lists[i], n)
        {
            struct job *j = container_of(n, struct job, link);
            enum stand stand = look_at_job(q, j, k->lane, since, asks);
            if (stand != ASKS) {
                *found = j;
                return stand;
            }
            if (++looked >= LOOKED_AHEAD)
                return ASKS;
        }
    return ASKS;
}

bool moves_hold(struct qmgr *q, struct queue *k)
{
    struct route *asks = NULL;
    struct message *m;
    struct job *j;
    switch (look_ahead(q, k, &j, &asks)) {
    case BELONGS:
        go_first(k, j);
        return false;
    case LEAVES:
        k->routed = 0; /* what was good then sends it away: no more of it */
        m = j->m;
        leave(q, j);
        message_activate(q, m);
        return true;
    default:
        break;
    }
    if (!good_since(q, k))
        k->asked = clock_tenths(q->now);
    queue_idle(q, k);
    k->place = PLACE_ROUTE;
    list_push(&asks->queues, &k->link);
    if (!lane_wake(q, k->lane)) /* the room was given to this queue */
        whole_lose_turn(q, k->lane);
    return true;
}

void moves_go_on(struct qmgr *q, struct queue *k)
{
    k->place = PLACE_IDLE;
    k->routed = clock_tenths(q->now);
    if (!seats_free(q, k)) {
        seats_wait(q, k, true);
        return;
    }
    queue_waits(q, k, true);
    lane_wake(q, k->lane);
}

/* ---- whole lines ------------------------------------------------------------------------------
 */

void moves_look(struct qmgr *q, struct group *g, bool at_once)
{
    int64_t again = g->looked + PAUSE_SECONDS * CLOCK_SECOND;
    int64_t when = at_once || !g->looked || again < q->now ? q->now : again;
    if (!heap_has(&g->look) || when < g->look.key)
        heap_set(&q->dispatch.looks, &g->look, when);
}

int64_t moves_next_due(const struct qmgr *q)
{
    const struct heap_node *n = heap_min(&q->dispatch.looks);
    if (q->draining)
        return INT64_MAX;
    return !list_empty(&q->dispatch.looking) ? q->now : n ? n->key : INT64_MAX;
}

/* Whether the route of some recipient leads to another group, or nowhere. Nothing is looked up for
 * that. What was said last counts, also when it is out of date or is looked up by now: a line would
 * stay for ever where DNS answers hold for less time than it takes to go through it. */
static bool leads_elsewhere(const struct qmgr *q, const struct job *j, const struct group *g)
{
    struct slice before = SLICE("");
    for (uint32_t i = 0; i < j->count; i++) {
        struct slice address = recipient_address(j->m, j->rcpts[i]), domain = domain_part(address);
        if (before.len && slice_eq(domain, before))
            continue;
        const struct route *r = sites_route_known(q, address);
        bool holds = r && r->state == ROUTE_READY && r->expires > q->now;
        if (r && !r->by_address && (r->site ? r->site->group != g : holds))
            return true;
        before = r && r->key_len > domain.len ? SLICE("") : domain;
    }
    return false;
}

/* Out of line, and in line again at a lane of the group to which its site belongs now. True: its
 * recipients wait for their message to be activated; also if a route is out of date: where it was
 * it would only come to the end of the line. */
static bool move(struct qmgr *q, struct job *j)
{
    struct route *asks = NULL;
    struct message *m = j->m;
    dispatch_take(q, j);
    if (look_at_job(q, j, NULL, 0, &asks) != BELONGS) {
        leave(q, j);
        return true;
    }
    struct site *site = j->site;
    j->site = NULL; /* its reference is ours now */
    sources_submit(q, site, j);
    site_unref(q, site);
    message_settle(q, m);
    return false;
}

/* One group's lines at a time: its jobs stay in their queues, and can start, meanwhile. */
static void begin_look(struct qmgr *q, struct group *g)
{
    heap_remove(&q->dispatch.looks, &g->look);
    g->looked = q->now;
    list_splice(&q->dispatch.looking, &g->line);
}

void moves_turn(struct qmgr *q)
{
    struct dispatch *d = &q->dispatch;
    const struct heap_node *first;
    struct message *left = NULL; /* activated once for all of its jobs that follow each other */
    struct list *n;
    while (!q->draining && list_empty(&d->looking) && (first = heap_min(&d->looks)) &&
           first->key <= q->now)
        begin_look(q, container_of(first, struct group, look));
    for (int i = 0; !q->draining && i < LOOKED_AT_ONCE && (n = list_pop(&d->looking)); i++) {
        struct job *j = container_of(n, struct job, of_line);
        struct group *g = j->queue->lane->group;
        if (!leads_elsewhere(q, j, g)) {
            list_push(&g->line, &j->of_line);
            continue;
        }
        struct message *m = j->m;
        if (left && left != m) {
            message_activate(q, left);
            left = NULL;
        }
        i += MOVE_COSTS;
        if (move(q, j))
            left = m;
    }
    if (left)
        message_activate(q, left);
}

/* ---- for people ---------------------------------------------------------------------------------
 */

static bool is_to(const struct qmgr *q, const struct job *j, struct slice name)
{
    return slice_caseeq(domain_part(recipient_address(j->m, j->rcpts[0])), name) ||
           (j->site && group_is_called(q, j->site->group, name));
}

static bool any_in(const struct qmgr *q, const struct list *jobs, struct slice name, unsigned *left)
{
    list_each(jobs, n)
    {
        if (*left == 0)
            return false;
        --*left;
        if (is_to(q, container_of(n, struct job, link), name))
            return true;
    }
    return false;
}

bool moves_remain(const struct qmgr *q, const struct lane *l, struct slice name)
{
    unsigned left = REMAINS_LOOKED;
    if (l->queued == 0 && l->in_flight == 0)
        return false;
    list_each(&l->queues, n)
    {
        const struct queue *k = container_of(n, struct queue, of_lane);
        if (any_in(q, &k->again, name, &left) || any_in(q, &k->jobs, name, &left))
            return true;
    }
    for (unsigned i = 0; l->in_flight && i < q->relays.count; i++)
        list_each(&q->relays.list[i]->jobs, n)
        {
            const struct job *j = container_of(n, struct job, link);
            if (j->queue->lane == l && is_to(q, j, name))
                return true;
        }
    return false;
}

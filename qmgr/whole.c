#include "qmgr/whole.h"

#include <stdlib.h>

#include "core/mem.h"
#include "qmgr/connections.h"
#include "qmgr/memory.h"
#include "rules/rules.h"

enum {
    LOOKED_AT = 64, /* lanes in line, for one that may go */
    CHOSEN_OF = 32, /* so many of them, for the one whose account had least */
    SERVED_BITS = 8
};

static struct slice key_of(const void *value)
{
    return slice_str(((const struct whole *)value)->key);
}

void wholes_init(struct qmgr *q)
{
    map_init(&q->shaping.wholes, key_of);
}

/* So long who has connections uses them before they go to others that wait: some messages' time,
 * for a new one costs as much as a message. */
static const int64_t PATIENCE = 2 * CLOCK_SECOND;

/* ---- which one ----------------------------------------------------------------------- */

static bool find_limits(const struct qmgr *q, const struct group *g, struct shaper_limits *out)
{
    const struct config *c = q->s->config;
    double divisor = (double)c->shaping_time_divisor;
    struct rules_place place = {g->provider, g->provider_index, NULL, NULL};
    struct rules_limits limits = {0};
    if (q->shaping.rules)
        rules_limits(q->shaping.rules, &place, SLICE(""), &limits);
    if (g->own && !g->provider && !g->site && !g->domain) /* as in groups.c */
        limits = (struct rules_limits){0};
    uint32_t most = limits.total_connections ? limits.total_connections : WHOLE_FREE;
    memset(out, 0, sizeof *out);
    *out = (struct shaper_limits){
        .concurrency = most,
        .initial = most,
        .cohorts = 1,
        .suspend = c->destination_suspend_time * CLOCK_SECOND,
        .suspend_max = c->maximal_backoff_time * CLOCK_SECOND,
        .unreachable_max = c->minimal_backoff_time * CLOCK_SECOND,
        .rate = limits.total_message_rate * divisor,
        .connection_rate = limits.total_connection_rate * divisor,
    };
    shaper_times_init(&out->times, (unsigned)c->shaping_time_divisor);
    return most < WHOLE_FREE || out->rate > 0 || out->connection_rate > 0;
}

static uint32_t under_way(const struct group *g)
{
    uint32_t all = 0;
    list_each(&g->lanes, n) all += container_of(n, struct lane, of_group)->in_flight;
    return all;
}

static void join(struct qmgr *q, struct group *g, const struct shaper_limits *limits)
{
    char *key = g->provider ? xasprintf("provider %s", g->provider) : xstrdup(g->key);
    struct whole *w = map_get(&q->shaping.wholes, slice_str(key));
    if (w) {
        free(key);
    } else {
        w = xcalloc(1, sizeof *w);
        w->key = key;
        w->name = xstrdup(g->provider ? g->provider : g->name);
        w->stable = xstrdup(g->provider ? key : g->stable);
        w->used = q->now;
        w->limits = *limits;
        list_init(&w->waiting);
        list_init(&w->places);
        shaper_init(&w->shaper, &w->limits);
        map_put(&q->shaping.wholes, w);
        memory_recall_whole(q, w);
    }
    w->refs++;
    w->shaper.in_flight += under_way(g);
    connections_join(w, g);
    g->whole = w;
}

void whole_join(struct qmgr *q, struct group *g)
{
    struct shaper_limits limits;
    bool limited = find_limits(q, g, &limits);
    if (limited || g->provider || memory_knows_whole(q, g))
        join(q, g, &limits);
}

void whole_leave(struct qmgr *q, struct group *g)
{
    struct whole *w = g->whole;
    g->whole = NULL;
    if (!w || --w->refs > 0)
        return;
    memory_keep_whole(q, w);
    map_remove(&q->shaping.wholes, key_of(w));
    heap_remove(&q->dispatch.whole_wakes, &w->wake);
    answer_unref(w->last);
    free(w->served);
    free(w->key);
    free(w->name);
    free(w->stable);
    free(w);
}

/* What was learned holds within other bounds, too. */
static void reload(struct qmgr *q, const struct group *g)
{
    struct whole *w = g->whole;
    struct shaper *s = &w->shaper;
    bool free_before = w->limits.concurrency >= WHOLE_FREE;
    (void)find_limits(q, g, &w->limits);
    double bound = w->limits.rate, before = s->rate;
    if (s->failed_rate <= 0 || (bound > 0 && s->rate > bound))
        s->rate = bound > 0 ? bound : 1e6;
    if (s->rate > before && s->next_start > q->now)
        s->next_start = q->now; /* a step of the rate before */
    if (free_before || !s->window_failed)
        s->window = w->limits.concurrency;
}

void wholes_reload(struct qmgr *q)
{
    size_t cursor = 0;
    struct group *g;
    while ((g = map_next(&q->shaping.groups, &cursor)))
        if (g->whole)
            reload(q, g);
        else
            whole_join(q, g);
}

/* ---- deliveries ----------------------------------------------------------------------

   A lane that has room itself, and whose whole has none, stands in the whole's line. A place
   that comes free is the lane's in line whose account was served least, of equals the first
   one's: so an account with many sources or destinations there has no larger share than one
   with a single one. Who is not in line goes behind it. A turn that was given holds until a
   delivery of the lane starts, or the lane has none to start; then it is the next one's. */

/* Two accounts in one slot share their turn. */
static uint64_t *slot_of(struct whole *w, const struct account *a)
{
    static const uint64_t GOLDEN = 0x9e3779b97f4a7c15;
    return &w->served[(uint64_t)(uintptr_t)a * GOLDEN >> (64 - SERVED_BITS)];
}

/* What the account had; who had less than those that have been served since is not owed it. */
static uint64_t served(struct whole *w, const struct account *a)
{
    uint64_t had = w->served ? *slot_of(w, a) : 0;
    return had > w->served_now ? had : w->served_now;
}

/* The same of the account that is next at the lane. */
static uint64_t served_of_first(struct whole *w, const struct lane *l)
{
    if (list_empty(&l->waiting))
        return w->served_now; /* it will find that it has nothing to start */
    return served(w, container_of(l->waiting.next, struct queue, link)->account);
}

static void serve(struct whole *w, const struct account *a, uint32_t cost)
{
    if (!w->served)
        return;
    w->served_now = served(w, a);
    *slot_of(w, a) = w->served_now + cost;
}

/* The line is looked at again in this turn of the loop, or the next one. */
static void look_again(struct qmgr *q, struct whole *w)
{
    if (!list_empty(&w->waiting))
        heap_set(&q->dispatch.whole_wakes, &w->wake, q->now);
}

void whole_look_again(struct qmgr *q, struct whole *w)
{
    look_again(q, w);
}

void whole_lose_turn(struct qmgr *q, const struct lane *l)
{
    struct whole *w = l->group->whole;
    if (!w || w->turn != l)
        return;
    w->turn = NULL;
    look_again(q, w);
}

/* The lane waits: it had its turn already, and stays the first, or comes last. */
static void stand_in_line(struct whole *w, struct lane *l)
{
    if (!list_empty(&l->of_whole))
        return;
    if (!w->served && !list_empty(&w->waiting))
        w->served = xcalloc((size_t)1 << SERVED_BITS, sizeof *w->served);
    if (w->turn == l)
        list_push_front(&w->waiting, &l->of_whole);
    else
        list_push(&w->waiting, &l->of_whole);
    w->turn = w->turn == l ? NULL : w->turn;
}

/* Room of the lane itself. A new connection needs a place under the limit, and where they are
 * limited in time a token; an unused one needs neither. */
static enum shaper_room own_room(struct qmgr *q, struct lane *l, bool wants, int64_t *when)
{
    l->shaper.connecting.none_open = !connections_idle(l);
    enum shaper_room room = shaper_room(&l->shaper, q->now, when);
    if (room != SHAPER_GO || connections_room(l))
        return room;
    if (wants)
        (void)connections_want(q, l, false);
    return SHAPER_FULL;
}

/* The same of all sources together, for this lane. */
static enum shaper_room room_of_all(const struct qmgr *q, struct whole *w, const struct lane *l,
                                    int64_t *when)
{
    w->shaper.connecting.none_open = !connections_idle(l);
    enum shaper_room room = shaper_room(&w->shaper, q->now, when);
    return room == SHAPER_GO && !connections_room_of_all(l) ? SHAPER_FULL : room;
}

enum shaper_room whole_room(struct qmgr *q, struct lane *l, bool wants, int64_t *when)
{
    struct whole *w = l->group->whole;
    int64_t later = 0;
    enum shaper_room room = own_room(q, l, wants, when);
    if (!w)
        return room;
    if (room != SHAPER_GO) { /* its own limits wake it; it keeps its place until its turn comes */
        if (wants)
            whole_lose_turn(q, l);
        return room;
    }
    room = room_of_all(q, w, l, &later);
    bool first = w->turn ? w->turn == l : list_empty(&w->waiting);
    if (room == SHAPER_GO && first)
        return SHAPER_GO;
    if (!wants)
        return SHAPER_FULL;
    stand_in_line(w, l);
    if (room == SHAPER_GO || !connections_room_of_all(l))
        look_again(q, w); /* in the latter case a place is asked for, if it is the first */
    else if (room != SHAPER_FULL && (!heap_has(&w->wake) || later < w->wake.key))
        heap_set(&q->dispatch.whole_wakes, &w->wake, later); /* another one's time may be sooner */
    return SHAPER_FULL;
}

/* The first in line cannot go. If it is for want of a place for a connection: a connection goes
 * that nobody uses, and if they are all in use then after a while. */
static void want_place(struct qmgr *q, struct whole *w, struct lane *l, enum shaper_room room,
                       int64_t *when)
{
    if (room != SHAPER_FULL || connections_room_of_all(l)) {
        w->wanted = 0;
        return;
    }
    if (!w->wanted)
        w->wanted = q->now;
    int64_t until = w->wanted + PATIENCE;
    if (!connections_want(q, l, q->now < until) && q->now < until && (!*when || until < *when))
        *when = until;
}

/* Who may go, by turns of the accounts: who would need a new connection where there is no place for
 * one stays where it is, while others use those that they have. NULL: nobody; *when: until
 * then, 0: until something happens. */
static struct lane *who_may_go(struct qmgr *q, struct whole *w, int64_t *when)
{
    struct lane *chosen = NULL;
    uint64_t least = 0;
    int looked = 0;
    *when = 0;
    list_each(&w->waiting, n)
    {
        struct lane *l = container_of(n, struct lane, of_whole);
        int64_t later = 0;
        enum shaper_room room = room_of_all(q, w, l, &later);
        if (room == SHAPER_GO) {
            uint64_t had = served_of_first(w, l);
            w->wanted = looked == 0 ? 0 : w->wanted;
            if (!chosen || had < least) {
                chosen = l;
                least = had;
            }
        } else if (room != SHAPER_FULL && (!*when || later < *when)) {
            *when = later;
        }
        if (looked == 0)
            want_place(q, w, l, room, when);
        looked++;
        if (chosen && (least == w->served_now || looked >= CHOSEN_OF))
            break;
        if (looked == LOOKED_AT)
            break;
    }
    return chosen;
}

static void give_turn(struct qmgr *q, struct whole *w)
{
    int64_t when;
    while (!w->turn && !list_empty(&w->waiting)) {
        struct lane *first = who_may_go(q, w, &when);
        if (!first) {
            if (when)
                heap_set(&q->dispatch.whole_wakes, &w->wake, when);
            return;
        }
        list_remove(&first->of_whole);
        w->turn = first;
        if (!dispatch_wake(q, first) && w->turn == first)
            w->turn = NULL; /* else it is the next one's when that delivery has started */
    }
}

void whole_wake(struct qmgr *q, const struct lane *l)
{
    if (l->group->whole)
        give_turn(q, l->group->whole);
}

void wholes_turn(struct qmgr *q)
{
    struct heap_node *n;
    while ((n = heap_min(&q->dispatch.whole_wakes)) && n->key <= q->now) {
        heap_remove(&q->dispatch.whole_wakes, n);
        give_turn(q, container_of(n, struct whole, wake));
    }
}

bool whole_started(struct qmgr *q, struct queue *k, uint32_t recipients, uint32_t cost,
                   bool may_connect)
{
    struct lane *l = k->lane;
    struct whole *w = l->group->whole;
    if (!w)
        return may_connect;
    serve(w, k->account, cost);
    w->turn = w->turn == l ? NULL : w->turn;
    shaper_started(&w->shaper, recipients, q->now);
    if (!may_connect || shaper_may_connect(&w->shaper, q->now))
        return may_connect;
    shaper_may_not_connect(&l->shaper, q->now);
    return false;
}

static bool is_cut(enum shaper_signal signal)
{
    return signal == SHAPER_TOO_FAST || signal == SHAPER_TOO_MANY || signal == SHAPER_TOO_MUCH ||
           signal == SHAPER_TOO_OFTEN;
}

/* The provider told all our addresses to stay away: the lanes of the others, too. */
static void all_go_away(struct qmgr *q, const struct lane *but, const struct shaper_report *r)
{
    list_each_safe(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (l == but || l->group->whole != but->group->whole)
            continue;
        uint8_t events = l->shaper.events_next;
        bool suspended = shaper_told_to_go(&l->shaper, r, q->now);
        if (suspended && but->last) {
            answer_unref(l->last);
            l->last = answer_ref(but->last);
        }
        events_shaping(q, l, events);
        if (suspended)
            dispatch_suspend(q, l);
    }
}

struct shaper_report whole_finished(struct qmgr *q, struct lane *l, const struct shaper_report *r)
{
    struct shaper_report own = *r, all = *r;
    if (!l->group->whole && r->of_all) { /* the first rule that speaks of it */
        struct shaper_limits limits;
        (void)find_limits(q, l->group, &limits);
        join(q, l->group, &limits);
        l->group->whole->shaper.in_flight++; /* this one */
    }
    struct whole *w = l->group->whole;
    if (!w)
        return own;
    uint8_t events = w->shaper.events_next;
    if (!r->of_all || r->signal == SHAPER_TOO_LONG)
        all.signal = r->signal == SHAPER_OK ? SHAPER_OK : SHAPER_NEUTRAL;
    else if (is_cut(r->signal))
        own.signal = SHAPER_NEUTRAL;
    all.use_count = all.taken_count = all.closed_after = 0; /* of one connection */
    all.latency = all.greeting = 0;
    all.trial = SHAPER_NO_TRIAL;
    if (all.signal == SHAPER_TOO_MANY && w->shaper.window >= WHOLE_FREE)
        w->shaper.window = w->shaper.in_flight > 1 ? w->shaper.in_flight : 1; /* nothing held it */
    (void)shaper_finished(&w->shaper, &all, q->now);
    w->used = q->now;
    if (r->of_all && all.signal >= SHAPER_TOO_FAST && l->last) {
        answer_unref(w->last);
        w->last = answer_ref(l->last);
    }
    events_shaping_all(q, &w->shaper, w->name, l->last, events);
    if (r->of_all && r->signal == SHAPER_GO_AWAY)
        all_go_away(q, l, r);
    return own;
}

void whole_returned(struct qmgr *q, struct queue *k, uint32_t recipients, uint32_t cost,
                    int64_t started)
{
    struct whole *w = k->lane->group->whole;
    if (!w)
        return;
    if (w->served && *slot_of(w, k->account) >= cost)
        *slot_of(w, k->account) -= cost;
    shaper_returned(&w->shaper, recipients, started, q->now);
}

bool whole_holds(const struct lane *l, int64_t now, int64_t *when)
{
    *when = 0;
    if (!l->group->whole)
        return false;
    struct shaper s = l->group->whole->shaper; /* a copy: to look is not to want */
    enum shaper_room room = shaper_room(&s, now, when);
    if (room == SHAPER_FULL)
        *when = 0;
    return room != SHAPER_GO;
}

/* ---- by hand ----------------------------------------------------------------- */

void whole_resume(struct qmgr *q, struct lane *l)
{
    if (!l->group->whole)
        return;
    shaper_unsuspend(&l->group->whole->shaper);
    look_again(q, l->group->whole);
}

void wholes_resume(struct qmgr *q)
{
    struct whole *w;
    for (size_t cursor = 0; (w = map_next(&q->shaping.wholes, &cursor));) {
        shaper_unsuspend(&w->shaper);
        look_again(q, w);
    }
}

void whole_reset(struct qmgr *q, struct lane *l)
{
    struct whole *w = l->group->whole;
    if (!w)
        return;
    uint32_t in_flight = w->shaper.in_flight;
    shaper_init(&w->shaper, &w->limits);
    w->shaper.in_flight = in_flight;
    look_again(q, w);
}

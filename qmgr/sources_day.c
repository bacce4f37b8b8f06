/*
 * What a source may still send today. A day goes by the clock, from midnight to midnight UTC,
 * for warm-ups (sources.conf) and daily caps (either file) alike. One kind of count serves both:
 * a record of the source at a provider; where a cap is that of one site, domain or destination
 * without a provider, one for that place.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "core/json.h"
#include "core/mem.h"
#include "qmgr/sources.h"

enum { DAY_SECONDS = 86400, SWEPT_AT_ONCE = 1000 };

/* ---- days ------------------------------------------------------------------------------ */

int64_t sources_day_length(const struct qmgr *q)
{
    return DAY_SECONDS * CLOCK_SECOND / q->s->config->shaping_time_divisor;
}

int64_t sources_today(const struct qmgr *q)
{
    return clock_wall() / sources_day_length(q);
}

int64_t sources_day_ends(const struct qmgr *q)
{
    int64_t day = sources_day_length(q);
    return q->now + day - clock_wall() % day;
}

struct source_counts *record_today(const struct qmgr *q, struct source_record *r)
{
    int64_t today = sources_today(q);
    if (today < r->day) { /* the clock was set back: what was counted counts for today */
        struct source_counts kept = r->days[r->day % SOURCE_DAYS];
        memset(r->days, 0, sizeof r->days);
        r->days[today % SOURCE_DAYS] = kept;
        r->day = today;
    }
    for (int i = 0; r->day < today && i < SOURCE_DAYS; i++)
        r->days[++r->day % SOURCE_DAYS] = (struct source_counts){0};
    r->day = today;
    return &r->days[today % SOURCE_DAYS];
}

struct source_counts record_sum(const struct qmgr *q, struct source_record *r)
{
    struct source_counts sum = {0};
    record_today(q, r);
    for (int i = 0; i < SOURCE_DAYS; i++) {
        sum.accepted += r->days[i].accepted;
        sum.deferred += r->days[i].deferred;
        sum.rejected += r->days[i].rejected;
        sum.blocked += r->days[i].blocked;
    }
    return sum;
}

/* ---- how much it may ------------------------------------------------------------------------ */

uint64_t day_left(const struct day_use *u)
{
    uint64_t used = (uint64_t)u->accepted + u->waiting;
    return u->most == UINT64_MAX ? UINT64_MAX : used < u->most ? u->most - used : 0;
}

static struct day_use use_of(const struct qmgr *q, struct source_record *r, uint64_t most)
{
    return (struct day_use){
        .most = most, .accepted = record_today(q, r)->accepted, .waiting = r->waiting};
}

void record_day(const struct qmgr *q, struct source_record *r, struct day_use *out)
{
    uint64_t most = r->ramp ? source_allowance(r->ramp, source_age(q, r->source)) : UINT64_MAX;
    *out = use_of(q, r, most);
    out->of_source = true;
}

void lane_day(const struct qmgr *q, const struct lane *l, struct day_use *out)
{
    *out = (struct day_use){.most = UINT64_MAX};
    if (l->record)
        record_day(q, l->record, out);
    if (!l->capped)
        return;
    struct day_use cap = use_of(q, l->capped, l->shaper.limits->daily_cap);
    if (day_left(&cap) <= day_left(out))
        *out = cap;
}

uint64_t lane_room(const struct qmgr *q, const struct lane *l)
{
    struct day_use use;
    if (!l->record && !l->capped)
        return UINT64_MAX;
    lane_day(q, l, &use);
    return day_left(&use);
}

bool lane_is_overdrawn(const struct qmgr *q, const struct lane *l)
{
    struct day_use use;
    lane_day(q, l, &use);
    return use.most != UINT64_MAX && (uint64_t)use.accepted + use.waiting > use.most;
}

bool record_is_cold(const struct qmgr *q, const struct source_record *r)
{
    return r && r->ramp && source_allowance(r->ramp, source_age(q, r->source)) != UINT64_MAX;
}

void day_describe(const struct day_use *u, struct buf *out)
{
    (void)buf_printf(out, "%" PRIu32 " sent", u->accepted);
    if (u->waiting)
        (void)buf_printf(out, " and %" PRIu32 " in line or under way", u->waiting);
    (void)buf_printf(out, " of %" PRIu64 " a day (%s)", u->most,
                     u->of_source ? "sources.conf" : "daily_cap in providers.conf");
}

void lane_show_day(const struct qmgr *q, const struct lane *l, struct buf *b)
{
    struct day_use use;
    lane_day(q, l, &use);
    if (use.most == UINT64_MAX)
        return;
    json_int(b, "used_today", use.accepted);
    json_int(b, "waiting_today", use.waiting);
    json_int(b, "allowed_today", (int64_t)use.most);
    json_str(b, "allowed_by", use.of_source ? SLICE("sources.conf") : SLICE("providers.conf"));
    json_seconds(b, "day_ends_in", sources_day_ends(q) - q->now);
}

/* ---- what a cap counts ------------------------------------------------------------------------
 */

static struct slice place_key(const void *value)
{
    return slice_str(((const struct source_record *)value)->provider);
}

void source_places_init(struct source *s)
{
    map_init(&s->places, place_key);
    list_init(&s->place_list);
}

struct source_record *source_place(struct source *s, struct slice place)
{
    struct source_record *r = map_get(&s->places, place);
    if (r)
        return r;
    r = xcalloc(1, sizeof *r);
    r->source = s;
    r->provider = slice_dup(place);
    list_push(&s->place_list, &r->of_source);
    map_put(&s->places, r);
    return r;
}

/* A provider counts as one, whatever its hosts and domains; one of these has a count of its own
 * if its own section says how much. */
static struct source_record *counted(const struct qmgr *q, const struct lane *l)
{
    struct source *s = l->from ? l->from : q->from->plain;
    const struct group *g = l->group;
    if (!g->provider || l->shaper.limits->own_cap)
        return source_place(s, slice_str(g->key));
    struct source_record *r = source_record(s, slice_str(g->provider));
    bool is_it = slice_eq(slice_str(r->provider), slice_str(g->provider));
    return is_it ? r : source_place(s, slice_str(g->provider)); /* it is one of too many */
}

static void uncount(struct lane *l)
{
    if (!l->capped)
        return;
    l->capped->lanes--;
    if (l->capped != l->record)
        l->capped->waiting -= l->recipients;
    l->capped = NULL;
}

void lane_count_cap(struct qmgr *q, struct lane *l)
{
    struct source_record *r = l->shaper.limits->daily_cap ? counted(q, l) : NULL;
    if (r == l->capped)
        return;
    uncount(l);
    if (!r)
        return;
    l->capped = r;
    r->lanes++;
    if (r != l->record)
        r->waiting += l->recipients;
}

void lane_uncount_cap(struct lane *l)
{
    uncount(l);
}

/* Nothing was sent there today, and no lane goes there: yesterday's count is of no use. */
static void forget_places(const struct qmgr *q, struct source *s)
{
    struct source_record *idle[SWEPT_AT_ONCE], *r;
    size_t cursor = 0, n = 0;
    while (n < SWEPT_AT_ONCE && (r = map_next(&s->places, &cursor)))
        if (r->lanes == 0 && record_today(q, r)->accepted == 0)
            idle[n++] = r;
    while (n-- > 0) {
        sources_saving_without_place(q->from, idle[n]);
        map_remove(&s->places, place_key(idle[n]));
        list_remove(&idle[n]->of_source);
        source_record_free(idle[n]);
    }
}

void sources_sweep(struct qmgr *q)
{
    forget_places(q, q->from->plain);
    list_each(&q->from->all, n) forget_places(q, container_of(n, struct source, all));
}

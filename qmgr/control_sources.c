/* source.*: the addresses that mail is sent from, as the operator sees and steers them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/control_client.h"
#include "qmgr/sources.h"

enum {
    BUSY_DAY = 1000, /* recipients: with less an address is not known to large providers */
    MONTH_DAYS = 30
};

/* ---- figures ------------------------------------------------------------------------------ */

static void add(struct source_counts *sum, const struct source_counts *more)
{
    sum->accepted += more->accepted;
    sum->deferred += more->deferred;
    sum->rejected += more->rejected;
    sum->blocked += more->blocked;
}

static void put_counts(struct buf *b, const char *name, const struct source_counts *c)
{
    json_member(b, name);
    json_int(b, "accepted", c->accepted);
    json_int(b, "deferred", c->deferred);
    json_int(b, "rejected", c->rejected);
    json_int(b, "blocked", c->blocked);
    json_end(b);
}

/* Of ten thousand recipients whose end was said: shares that people can compare. */
static void put_reputation(struct buf *b, const struct source_counts *c)
{
    double all = (double)c->accepted + c->deferred + c->rejected + c->blocked;
    const struct {
        const char *name;
        uint32_t count;
    } parts[] = {{"accepted", c->accepted},
                 {"deferred", c->deferred},
                 {"rejected", c->rejected},
                 {"blocked", c->blocked}};
    json_member(b, "shares");
    for (size_t i = 0; i < 4 && all > 0; i++) {
        char text[16];
        int n = snprintf(text, sizeof text, "%.4f", parts[i].count / all);
        json_raw(b, parts[i].name, slice_make(text, (size_t)n));
    }
    json_end(b);
}

static void put_state(const struct qmgr *q, const struct source *s, struct buf *b)
{
    int64_t until, wall = clock_wall();
    const char *why = source_trouble(q, s, &until);
    const struct pool_conf *spared = source_spared(q, s);
    json_bool(b, "usable", !why || spared);
    if (spared) {
        char text[SOURCES_HOST_MAX + SOURCES_NAME_MAX + 100];
        int n = snprintf(text, sizeof text, "%s; used all the same: the pool %s has no other", why,
                         spared->name);
        json_str(b, "state", slice_first(slice_make(text, (size_t)n), sizeof text - 1));
    } else {
        json_str(b, "state", why ? slice_str(why) : SLICE("in use"));
    }
    if (s->suspended_until > q->now && s->suspended_until < INT64_MAX)
        json_seconds(b, "suspended_for", s->suspended_until - q->now);
    if (*s->listed_zones) {
        json_str(b, "listed", slice_str(s->listed_zones));
        json_str(b, "listed_text", slice_str(s->listed_text));
        json_seconds(b, "listed_for", wall > s->listed_since ? wall - s->listed_since : 0);
    }
}

static void put_warmup(const struct qmgr *q, struct source_record *r, struct buf *b)
{
    int64_t age = source_age(q, r->source);
    struct day_use use;
    record_day(q, r, &use);
    if (use.most == UINT64_MAX)
        return;
    json_int(b, "allowed_today", (int64_t)use.most);
    json_int(b, "left_today", (int64_t)day_left(&use));
    json_bool(b, "warm", source_is_warm(r->ramp, age));
    if (r->ramp->days) {
        json_int(b, "warmup_day", age + 1);
        json_int(b, "warmup_days", r->ramp->days);
    }
}

static uint32_t blocked_lanes(const struct qmgr *q, const struct source *s)
{
    uint32_t n = 0;
    list_each(&q->dispatch.lanes, node)
    {
        const struct lane *l = container_of(node, struct lane, all);
        n += l->from == s && l->blocked && l->shaper.suspended_until > q->now;
    }
    return n;
}

static void put_source(struct control_client *c, struct source *s)
{
    struct qmgr *q = c->control->queue;
    struct source_counts today = {0}, week = {0};
    char text[80];
    uint64_t waiting = 0;
    bool warm = true;
    for (size_t i = 0; i < s->record_count; i++) {
        struct source_counts sum = record_sum(q, s->records[i]);
        add(&today, record_today(q, s->records[i]));
        add(&week, &sum);
        waiting += s->records[i]->waiting;
        warm =
            warm && (!s->records[i]->ramp || source_is_warm(s->records[i]->ramp, source_age(q, s)));
    }
    struct buf *b = control_line_begin(c);
    json_str(b, "source", slice_str(s->name));
    json_str(b, "addresses", slice_str(source_addresses(s, text)));
    json_str(b, "helo", slice_str(*s->helo ? s->helo : q->s->config->smtp_helo_name));
    json_int(b, "weight", s->conf ? s->conf->weight : 0);
    put_state(q, s, b);
    json_bool(b, "warm", warm && source_is_warm(&s->conf->all, source_age(q, s)));
    json_int(b, "age_days", source_age(q, s));
    json_int(b, "waiting", (int64_t)waiting);
    json_int(b, "blocked_at", blocked_lanes(q, s));
    put_counts(b, "today", &today);
    put_counts(b, "days7", &week);
    put_reputation(b, &week);
    control_line_end(c);
}

void control_source_list(struct control_client *c)
{
    struct qmgr *q = c->control->queue;
    queue_tick(q);
    list_each(&q->from->all, n)
    {
        struct source *s = container_of(n, struct source, all);
        if (s->conf && !control_full(c))
            put_source(c, s);
    }
    control_done(c, NULL);
}

/* ---- one source ------------------------------------------------------------------------------ */

static struct source *wanted(struct control_client *c)
{
    struct slice name = control_text(c, "source");
    struct source *s = source_find(c->control->queue, name);
    if (!s)
        control_fail(c, "There is no source of that name: %s. 'postern source list' shows them.",
                     log_esc(name));
    return s;
}

static void put_provider(struct control_client *c, struct source_record *r)
{
    struct qmgr *q = c->control->queue;
    struct source_counts sum = record_sum(q, r);
    struct buf *b = control_line_begin(c);
    json_str(b, "provider", *r->provider ? slice_str(r->provider) : SLICE("(others)"));
    json_int(b, "waiting", r->waiting);
    put_counts(b, "today", record_today(q, r));
    put_counts(b, "days7", &sum);
    put_reputation(b, &sum);
    if (r->ramp)
        put_warmup(q, r, b);
    control_line_end(c);
}

static int by_volume(const void *a, const void *b)
{
    double x = ((const struct source_share *)a)->recipients,
           y = ((const struct source_share *)b)->recipients;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void put_senders(struct control_client *c, const struct source *s)
{
    struct source_share shares[SOURCE_SHARES];
    double all = 0;
    memcpy(shares, s->shares, sizeof shares);
    qsort(shares, SOURCE_SHARES, sizeof *shares, by_volume);
    for (int i = 0; i < SOURCE_SHARES; i++)
        all += shares[i].recipients;
    for (int i = 0; i < SOURCE_SHARES; i++) {
        if (!shares[i].name || shares[i].recipients < 1)
            continue;
        struct buf *b = control_line_begin(c);
        json_str(b, "sender", slice_str(shares[i].name));
        json_int(b, "recipients", (int64_t)shares[i].recipients);
        json_int(b, "refused", (int64_t)shares[i].refused);
        json_int(b, "percent", (int64_t)lround(100 * shares[i].recipients / all));
        control_line_end(c);
    }
}

void control_source_show(struct control_client *c)
{
    struct source *s = wanted(c);
    if (!s)
        return;
    queue_tick(c->control->queue);
    put_source(c, s);
    for (size_t i = 0; i < s->record_count; i++)
        put_provider(c, s->records[i]);
    put_senders(c, s);
    control_done(c, NULL);
}

/* ---- by hand -------------------------------------------------------------------------- */

void control_source_act(struct control_client *c)
{
    struct qmgr *q = c->control->queue;
    struct source *s = wanted(c);
    struct slice action = control_text(c, "action"), reason = control_text(c, "reason");
    double seconds = json_number_value(control_asked(c, "seconds"));
    if (!s)
        return;
    queue_tick(q);
    if (slice_eq(action, SLICE("suspend"))) {
        bool ends = isfinite(seconds) && seconds > 0 && seconds < SOURCE_SUSPENDED_DAYS * 86400.0;
        s->suspended_until = ends ? q->now + (int64_t)(seconds * 1e6) : INT64_MAX;
        free(s->reason);
        s->reason = slice_dup(slice_first(reason, SOURCE_REASON_MAX));
        sources_leave(q, s);
    } else if (slice_eq(action, SLICE("resume"))) {
        s->suspended_until = s->unusable_until = 0;
        free(s->reason);
        s->reason = xstrdup("");
        sources_forgive(q, s);
        sources_wake(q);
    } else {
        control_fail(c, "The action is suspend or resume.");
        return;
    }
    log_info("source %s: %s by %s: %s", s->name, log_esc(action), c->by, log_esc(reason));
    q->from->file.dirty = true;
    sources_save_soon(q);
    put_source(c, s);
    control_done(c, NULL);
}

/* ---- pools ---------------------------------------------------------------------------- */

/* The busiest of the days that are kept. */
static uint64_t peak_of(const struct qmgr *q, const struct pool_conf *p)
{
    uint64_t peak = 0;
    for (int d = 0; d < SOURCE_DAYS; d++) {
        uint64_t day = 0;
        for (size_t i = 0; i < p->count; i++) {
            struct source *s = q->from->by_position[p->members[i]];
            for (size_t k = 0; k < s->record_count; k++) {
                (void)record_today(q, s->records[k]);
                day += s->records[k]->days[d].accepted;
            }
        }
        peak = day > peak ? day : peak;
    }
    return peak;
}

static void advise(struct buf *b, const struct pool_conf *p, uint64_t peak, uint64_t volume,
                   size_t usable, bool cold)
{
    char text[300];
    uint64_t a_day = volume / MONTH_DAYS;
    if (usable == 0)
        snprintf(text, sizeof text, "none of its sources may send: its mail waits%s",
                 p->overflow >= 0 ? ", or goes to the overflow pool" : "");
    else if (a_day && peak > a_day * usable)
        snprintf(text, sizeof text,
                 "%llu on its busiest day is more than %zu sources of %llu a day: %llu are needed",
                 (unsigned long long)peak, usable, (unsigned long long)a_day,
                 (unsigned long long)((peak + a_day - 1) / a_day));
    else if (!cold && p->count > 1 && peak > 0 && peak < BUSY_DAY * (uint64_t)p->count)
        snprintf(text, sizeof text,
                 "%llu on its busiest day is little for %zu sources: providers know an address "
                 "that sends %d a day or more; %llu would do",
                 (unsigned long long)peak, p->count, BUSY_DAY,
                 (unsigned long long)(peak / BUSY_DAY ? peak / BUSY_DAY : 1));
    else if (cold)
        snprintf(text, sizeof text, "it is being warmed up%s",
                 p->overflow >= 0 ? "; the rest goes to the overflow pool"
                                  : "; what is more than allowed waits: give it an overflow pool");
    else
        snprintf(text, sizeof text, "%s", peak ? "its size fits its volume" : "no mail lately");
    json_str(b, "advice", slice_str(text));
}

/* Of each source, by its position, how many pools have it. The caller frees it. */
static uint32_t *count_pools(const struct sources_conf *conf)
{
    uint32_t *pools_of = xcalloc(conf->count, sizeof *pools_of);
    for (size_t k = 0; k < conf->pool_count; k++)
        for (size_t i = 0; i < conf->pools[k].count; i++)
            pools_of[conf->pools[k].members[i]]++;
    return pools_of;
}

static void put_pool(struct control_client *c, const struct pool_conf *p, const uint32_t *pools_of)
{
    struct qmgr *q = c->control->queue;
    uint64_t volume = 0, today = 0, peak = peak_of(q, p);
    size_t usable = 0, spared = 0, shared = 0;
    bool cold = false;
    int64_t until;
    for (size_t i = 0; i < p->count; i++) {
        struct source *s = q->from->by_position[p->members[i]];
        usable += source_trouble(q, s, &until) == NULL;
        spared += source_spared(q, s) != NULL;
        shared += pools_of[p->members[i]] > 1;
        cold = cold || !source_is_warm(&s->conf->all, source_age(q, s));
        volume = s->conf->all.volume > volume ? s->conf->all.volume : volume;
        for (size_t k = 0; k < s->record_count; k++)
            today += record_today(q, s->records[k])->accepted;
    }
    struct buf *b = control_line_begin(c);
    json_str(b, "pool", slice_str(p->name));
    json_int(b, "sources", (int64_t)p->count);
    json_int(b, "shared_sources", (int64_t)shared); /* they count in each of their pools */
    usable = usable ? usable : spared;
    json_int(b, "usable", (int64_t)usable);
    json_int(b, "accepted_today", (int64_t)today);
    json_int(b, "busiest_day", (int64_t)peak);
    json_str(b, "overflow",
             p->overflow >= 0 ? slice_str(q->from->conf->pools[p->overflow].name) : SLICE(""));
    advise(b, p, peak, volume, usable, cold);
    control_line_end(c);
}

void control_source_pools(struct control_client *c)
{
    struct qmgr *q = c->control->queue;
    const struct sources_conf *conf = q->from->conf;
    queue_tick(q);
    uint32_t *pools_of = conf && conf->count ? count_pools(conf) : NULL;
    for (size_t i = 0; pools_of && i < conf->pool_count && !control_full(c); i++)
        put_pool(c, &conf->pools[i], pools_of);
    free(pools_of);
    control_done(c, NULL);
}

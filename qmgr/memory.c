#include "qmgr/memory.h"

#include <arpa/inet.h>
#include <math.h>

#include "core/log.h"
#include "core/mem.h"
#include "qmgr/halts.h"
#include "qmgr/memory_inside.h"
#include "qmgr/shaping_show.h"
#include "qmgr/whole.h"
#include "rules/rules.h"

/* What was learned long ago counts for less: what lies above the starting point halves in
 * each of these; then it is forgotten. */
static const int64_t HALVES = INT64_C(86400) * CLOCK_SECOND;
static const int64_t FORGOTTEN = 30 * INT64_C(86400) * CLOCK_SECOND;
/* A clock that was wrong by less is no reason to doubt. */
static const int64_t FUTURE_MOST = INT64_C(86400) * CLOCK_SECOND;
/* No rule and no probe keeps away for longer; an entry that says so is wrong. */
static const int64_t SUSPENDED_MOST = 30 * INT64_C(86400) * CLOCK_SECOND;
/* What is known here must be so much newer than what is imported to be kept: times are written
 * with few digits. */
static const int64_t NEWER = CLOCK_SECOND;

/* Neither has a NUL byte, so no two pairs give the same. */
static char *pair(const char *first, const char *source)
{
    return xasprintf("%s\n%s", first, source);
}

static struct slice id_of(const void *value)
{
    return slice_str(((const struct remembered *)value)->id);
}

static struct slice alias_of(const void *value)
{
    return slice_str(((const struct remembered *)value)->alias);
}

void memory_init(struct qmgr *q)
{
    struct memory *m = xcalloc(1, sizeof *m);
    map_init(&m->by_id, id_of);
    map_init(&m->by_alias, alias_of);
    list_init(&m->all);
    m->writing.name = MEMORY_FILE;
    q->shaping.memory = m;
}

static void drop(struct remembered *r)
{
    learned_free(&r->v);
    free(r->id);
    free(r->alias);
    free(r);
}

static void take_out(struct memory *m, struct remembered *r)
{
    map_remove(&m->by_id, id_of(r));
    if (map_get(&m->by_alias, alias_of(r)) == r)
        map_remove(&m->by_alias, alias_of(r));
    if (m->saving.entry == &r->all)
        m->saving.entry = r->all.prev;
    list_remove(&r->all);
}

/* Takes the strings of *v over. What is newer than it stays. */
static void put_in(struct memory *m, const struct learned *v)
{
    struct remembered *r = xcalloc(1, sizeof *r), *before;
    *r = (struct remembered){
        .v = *v, .id = pair(v->key, v->source), .alias = pair(v->name, v->source)};
    before = map_get(&m->by_id, id_of(r));
    bool older = before && before->v.when - v->when > NEWER;
    m->older += older;
    if (older || (!before && m->by_id.count >= MEMORY_ENTRIES_MAX)) {
        drop(r);
        return;
    }
    if (before) {
        take_out(m, before);
        drop(before);
    }
    map_put(&m->by_id, r);
    map_put(&m->by_alias, r);
    list_push(&m->all, &r->all);
}

/* ---- from and to a lane, or limits over all sources ------------------------------- */

/* False: nothing that is worth keeping. The strings are the caller's. */
static bool learned_of(const struct shaper *shaper, int64_t used, struct learned *v)
{
    struct shaper_memory s;
    int64_t now = clock_mono(), wall = clock_wall();
    shaper_remember(shaper, &s);
    bool suspended = shaper->suspended_until > now;
    *v = (struct learned){.when = wall - (now - used),
                          .rate = s.rate,
                          .rate_failed = s.failed_rate,
                          .connection_rate = s.connection_rate,
                          .connection_rate_failed = s.connection_rate_failed,
                          .blind = s.blind,
                          .window = s.window,
                          .window_failed = s.window_failed,
                          .messages = s.messages,
                          .period = s.period,
                          .shut_for = s.shut_for};
    if (suspended)
        v->suspended_until = wall + (shaper->suspended_until - now);
    return s.failed_rate > 0 || s.connection_rate > 0 || s.window_failed || s.messages || suspended;
}

/* Texts of an entry that is made. */
struct words {
    char source[LANE_SOURCE_MAX], rule[LEARNED_RULE_MAX + 1], said[LEARNED_SAID_MAX + 1];
};

static char *put_word(char *to, size_t max, struct slice text)
{
    size_t n = text.len < max ? text.len : max;
    if (n)
        memcpy(to, text.ptr, n);
    to[n] = '\0';
    return n ? to : NULL;
}

/* Who suspended it, and with what words. */
static void put_cause(const struct qmgr *q, const struct lane *l, struct learned *v,
                      struct words *words)
{
    struct buf text = BUF_INIT(8 * ANSWER_TEXT_MAX);
    const struct rule *rule = shaping_rule_of_suspension(q, &l->shaper);
    v->blocked = l->blocked;
    v->unreachable = l->shaper.unreachable;
    if (rule)
        v->rule = put_word(words->rule, LEARNED_RULE_MAX, slice_str(rule->name));
    if (l->last)
        answer_describe(l->last, &text);
    v->said = put_word(words->said, LEARNED_SAID_MAX, buf_slice(&text));
    buf_free(&text);
}

/* The same of a lane; strings are borrowed. */
static bool learned_of_lane(const struct qmgr *q, const struct lane *l, struct learned *v,
                            struct words *words)
{
    bool any = learned_of(&l->shaper, l->used * (CLOCK_SECOND / 10), v);
    if (lane_source(l, words->source).len == 0)
        words->source[0] = '\0';
    v->key = l->group->stable;
    v->name = l->group->name;
    v->source = words->source;
    v->grey_refused = l->greylist.refused;
    v->grey_passed = l->greylist.passed;
    v->grey_first = l->greylist.first;
    if (v->suspended_until)
        put_cause(q, l, v, words);
    return any || v->grey_refused || v->grey_passed;
}

/* In place of a source address: no address looks so. */
static char all_sources[] = "all";

static bool learned_of_whole(const struct whole *w, struct learned *v)
{
    bool any = learned_of(&w->shaper, w->used, v);
    v->key = w->stable;
    v->name = w->name;
    v->source = all_sources;
    v->window = v->window_failed ? v->window : 0; /* else it is what is configured, or none */
    return any;
}

/* How much of what lies above the starting point is left after that time. */
static double left_after(int64_t age)
{
    return age > 0 ? exp2(-(double)age / (double)HALVES) : 1;
}

static double aged(double value, double start, double left)
{
    return start > 0 && value > start ? start + (value - start) * left : value;
}

static void give_limits(struct shaper *to, const struct learned *v)
{
    double left = left_after(clock_wall() - v->when);
    struct shaper_memory s = {
        .rate = aged(v->rate, to->limits->start_rate, left),
        .failed_rate = v->rate_failed,
        .connection_rate = v->connection_rate,
        .connection_rate_failed = v->connection_rate_failed,
        .blind = v->blind,
        .window = (uint32_t)aged(v->window, to->limits->initial, left),
        .window_failed = v->window_failed,
        .messages = v->messages,
        .period = v->period,
        .shut_for = v->shut_for,
    };
    shaper_recall(to, &s);
}

/* What is left of a suspension: a clock that was set back since (F31) does not make it
 * longer, and none is for ever. */
static int64_t left_of_suspension(const struct learned *v)
{
    int64_t wall = clock_wall(), most = v->when + SUSPENDED_MOST;
    int64_t until = v->suspended_until < most ? v->suspended_until : most;
    return until - (wall > v->when ? wall : v->when);
}

static uint16_t rule_number(const struct qmgr *q, const char *name)
{
    const struct rules *rules = q->shaping.rules;
    unsigned count = name && rules ? rules_count(rules) : 0;
    for (unsigned i = 0; i < count; i++)
        if (strcmp(rules_at(rules, i)->name, name) == 0)
            return (uint16_t)(i + 1);
    return 0; /* it is in the file no more */
}

/* Of a suspension that is in force again: who suspended it, and with what words. */
static void give_cause(struct qmgr *q, struct lane *l, const struct learned *v)
{
    l->blocked = v->blocked && l->from;
    l->shaper.unreachable = v->unreachable;
    shaper_note_kept(&l->shaper, rule_number(q, v->rule), q->now);
    if (!v->said)
        return;
    answer_unref(l->last);
    l->last = answer_new(0, SLICE(""), slice_str(v->said), SLICE(""), SLICE(""));
    l->last->local = true;
}

static void give(struct qmgr *q, struct lane *l, const struct learned *v)
{
    give_limits(&l->shaper, v);
    l->greylist = (struct greylist){
        .refused = v->grey_refused, .passed = v->grey_passed, .first = v->grey_first};
    if (l->greylist.first <= 0)
        l->greylist = (struct greylist){0};
    int64_t suspended = left_of_suspension(v);
    if (suspended <= 0)
        return;
    shaper_keep_away(&l->shaper, q->now + suspended, q->now);
    give_cause(q, l, v);
    dispatch_suspend(q, l);
}

/* A limit that was not learned is the configured one, or none. */
static void give_whole(struct qmgr *q, struct whole *w, const struct learned *v)
{
    struct learned known = *v;
    if (!(known.rate_failed > 0))
        known.rate = 0;
    give_limits(&w->shaper, &known);
    int64_t suspended = left_of_suspension(v);
    if (suspended > 0)
        shaper_keep_away(&w->shaper, q->now + suspended, q->now);
}

static bool too_old(const struct learned *v)
{
    int64_t age = clock_wall() - v->when;
    return (age > FORGOTTEN || age < -FUTURE_MOST) && left_of_suspension(v) <= 0;
}

/* What is known under that key, or else that name; or NULL. */
static struct remembered *find(const struct memory *m, const char *key, const char *name,
                               const char *source)
{
    char *id = pair(key, source), *alias = pair(name, source);
    struct remembered *r = map_get(&m->by_id, slice_str(id));
    if (!r)
        r = map_get(&m->by_alias, slice_str(alias));
    free(id);
    free(alias);
    return r;
}

/* Whether what is known there (`any` of it) is newer than *v; counted. */
static bool is_older(struct memory *m, const struct learned *v, bool any,
                     const struct learned *known)
{
    bool older = any && known->when - v->when > NEWER;
    m->older += older;
    return older;
}

void memory_recall(struct qmgr *q, struct lane *l)
{
    struct memory *m = q->shaping.memory;
    char source[LANE_SOURCE_MAX] = "";
    struct learned known;
    if (m->by_id.count == 0)
        return;
    (void)lane_source(l, source);
    struct remembered *r = find(m, l->group->stable, l->group->name, source);
    if (!r)
        return;
    bool any = learned_of(&l->shaper, l->used * (CLOCK_SECOND / 10), &known);
    take_out(m, r);
    if (!is_older(m, &r->v, any, &known) && !too_old(&r->v))
        give(q, l, &r->v);
    drop(r);
}

bool memory_knows_whole(const struct qmgr *q, const struct group *g)
{
    const struct memory *m = q->shaping.memory;
    return m->by_id.count && find(m, g->stable, g->name, all_sources);
}

void memory_recall_whole(struct qmgr *q, struct whole *w)
{
    struct memory *m = q->shaping.memory;
    struct remembered *r = m->by_id.count ? find(m, w->stable, w->name, all_sources) : NULL;
    struct learned known;
    if (!r)
        return;
    bool any = learned_of_whole(w, &known);
    take_out(m, r);
    if (!is_older(m, &r->v, any, &known) && !too_old(&r->v))
        give_whole(q, w, &r->v);
    drop(r);
}

static struct learned copy_of(const struct learned *v)
{
    struct learned c = *v;
    c.key = xstrdup(v->key);
    c.name = xstrdup(v->name);
    c.source = xstrdup(v->source);
    c.reason = v->reason ? xstrdup(v->reason) : NULL;
    c.rule = v->rule ? xstrdup(v->rule) : NULL;
    c.said = v->said ? xstrdup(v->said) : NULL;
    return c;
}

static void keep(struct qmgr *q, const struct learned *v)
{
    const struct learned copy = copy_of(v);
    put_in(q->shaping.memory, &copy);
}

void memory_keep(struct qmgr *q, const struct lane *l)
{
    struct memory *m = q->shaping.memory;
    struct words words;
    struct learned v;
    if (m->saving.lane == &l->all)
        m->saving.lane = l->all.prev;
    if (learned_of_lane(q, l, &v, &words))
        keep(q, &v);
}

void memory_keep_whole(struct qmgr *q, const struct whole *w)
{
    struct learned v;
    if (learned_of_whole(w, &v))
        keep(q, &v);
}

/* ---- in and out ---------------------------------------------------------------------- */

bool memory_describe(const struct qmgr *q, const struct lane *l, struct buf *out)
{
    struct words words;
    struct learned v;
    if (!learned_of_lane(q, l, &v, &words))
        return false;
    learned_encode(&v, out);
    return true;
}

bool memory_describe_whole(const struct whole *w, struct buf *out)
{
    struct learned v;
    if (!learned_of_whole(w, &v))
        return false;
    learned_encode(&v, out);
    return true;
}

bool memory_next(const struct qmgr *q, size_t *cursor, struct buf *out)
{
    const struct remembered *r = map_next(&q->shaping.memory->by_id, cursor);
    if (r)
        learned_encode(&r->v, out);
    return r != NULL;
}

/* A suspension by hand was a matter of lanes once: as such it is written nowhere any more. Takes
 * the strings over. */
static void take(struct qmgr *q, struct learned *v)
{
    int64_t left = v->by_hand ? left_of_suspension(v) : 0;
    if (left > 0 && !halts_set(q, slice_str(v->name), slice_str(v->source), left,
                               slice_str(v->reason ? v->reason : "")))
        log_error("shaping %s: it is not suspended: there are too many suspensions by hand",
                  log_esc(slice_str(v->name)));
    if (v->by_hand) {
        v->suspended_until = 0;
        xfree(&v->reason);
    }
    v->by_hand = false;
    put_in(q->shaping.memory, v);
}

int memory_accept(struct qmgr *q, struct slice object, struct err *e)
{
    struct learned v;
    if (learned_parse(object, &v, e) < 0)
        return -1;
    take(q, &v);
    return 0;
}

size_t memory_apply(struct qmgr *q)
{
    struct memory *m = q->shaping.memory;
    struct whole *w;
    struct group *g;
    for (size_t cursor = 0; (w = map_next(&q->shaping.wholes, &cursor));)
        memory_recall_whole(q, w);
    for (size_t cursor = 0; (g = map_next(&q->shaping.groups, &cursor));)
        if (!g->whole)
            whole_join(q, g);
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        memory_recall(q, l);
        dispatch_wake(q, l);
    }
    size_t older = m->older;
    m->older = 0;
    return older;
}

void memory_sweep(struct memory *m)
{
    list_each_safe(&m->all, n)
    {
        struct remembered *r = container_of(n, struct remembered, all);
        if (!too_old(&r->v))
            continue;
        take_out(m, r);
        drop(r);
    }
}

void memory_load_entry(struct qmgr *q, struct learned *v)
{
    if (too_old(v))
        learned_free(v);
    else
        take(q, v);
}

#include "rules/tally.h"

#include <stdlib.h>

#include "core/buf.h"
#include "core/clock.h"
#include "core/list.h"
#include "core/map.h"
#include "core/mem.h"

/* Attempts of before a pause so long are not recent ones, where a rule has no `within`. */
static const int64_t RECENT = 3600 * CLOCK_SECOND;

enum { ATTEMPTS = 0 }; /* in place of a rule's number */

struct tally {
    struct list link; /* in tallies.used: longest ago first */
    struct {
        uint64_t place;
        uint64_t number; /* rules_index + 1, or ATTEMPTS */
    } key;
    int64_t since, last;      /* the period began; counted last */
    uint32_t times, before;   /* in the period, and in the one before it */
    uint32_t hits, tried;     /* of recent attempts, those that were answered so */
    uint32_t attempts, heard; /* all at the place; the same when it was looked at last */
    uint32_t run;             /* those at the place without a pause of RECENT between them */
};

struct tallies {
    struct map known;
    struct list used;
};

static struct slice key_of(const void *value)
{
    const struct tally *t = value;
    return slice_make(&t->key, sizeof t->key);
}

struct tallies *tallies_new(void)
{
    struct tallies *t = xcalloc(1, sizeof *t);
    map_init(&t->known, key_of);
    list_init(&t->used);
    return t;
}

void tallies_clear(struct tallies *t)
{
    list_init(&t->used);
    map_clear(&t->known, free);
}

void tallies_free(struct tallies *t)
{
    if (!t)
        return;
    tallies_clear(t);
    map_free(&t->known);
    free(t);
}

static struct tally *look(struct tallies *all, uint64_t place, uint64_t number)
{
    struct tally probe = {.key = {place, number}}, *t = map_get(&all->known, key_of(&probe));
    if (t) {
        list_remove(&t->link);
        list_push(&all->used, &t->link);
        return t;
    }
    if (all->known.count >= TALLIES_MAX) {
        t = container_of(list_pop(&all->used), struct tally, link);
        map_remove(&all->known, key_of(t));
    } else {
        t = xmalloc(sizeof *t);
    }
    *t = probe;
    list_push(&all->used, &t->link);
    map_put(&all->known, t);
    return t;
}

void tallies_attempt(struct tallies *t, uint64_t place, int64_t now)
{
    struct tally *all = look(t, place, ATTEMPTS);
    if (now - all->last > RECENT)
        all->run = 0;
    all->last = now;
    all->attempts++;
    all->run += all->run < UINT32_MAX;
}

/* The n-th time in a period: what was counted in the one before it counts for as much of it
 * as lies within a period from now. */
static bool often(struct tally *t, unsigned after, int64_t period, int64_t now)
{
    if (t->times == 0 || now - t->since >= 2 * period) {
        t->before = t->times = 0;
        t->since = now;
    } else if (now - t->since >= period) {
        t->before = t->times;
        t->times = 0;
        t->since += period;
    }
    if (t->times < UINT32_MAX)
        t->times++;
    double left = 1 - (double)(now - t->since) / (double)(period > 0 ? period : 1);
    return t->times + t->before * (left > 0 ? left : 0) >= after;
}

/* Of `samples` to twice as many recent attempts: where none of them was answered so yet, of
 * those that went before. */
static bool large_part(struct tally *t, const struct tally *all, const struct rule *rule,
                       int64_t recent, int64_t now)
{
    uint32_t since = all->attempts - t->heard;
    bool anew = t->tried == 0 || now - t->last > recent || since > all->attempts;
    uint32_t most = rule->samples < UINT32_MAX / 2 ? 2 * rule->samples - 1 : rule->samples;
    if (anew) {
        t->hits = 0;
        t->tried = all->run < most ? all->run : most;
        since = all->run > 0 ? 0 : 1;
    }
    t->heard = all->attempts;
    t->hits++;
    t->tried += since;
    if (t->tried >= rule->samples && t->tried / 2 >= rule->samples) {
        double share = (double)t->hits / t->tried;
        t->tried = rule->samples;
        t->hits = (uint32_t)(share * rule->samples + 0.5);
    }
    return t->tried >= rule->samples && t->hits >= rule->fraction * t->tried;
}

bool tallies_reached(struct tallies *t, const struct rule *rule, unsigned index, uint64_t place,
                     unsigned divisor, int64_t now)
{
    bool part = true;
    int64_t period = rule->period / (divisor ? divisor : 1);
    if (rule->after <= 1 && rule->fraction <= 0)
        return true;
    const struct tally *all = rule->fraction > 0 ? look(t, place, ATTEMPTS) : NULL;
    struct tally *own = look(t, place, index + 1UL);
    if (all)
        part = large_part(own, all, rule, period > 0 ? period : RECENT, now);
    own->last = now;
    return (rule->after <= 1 || often(own, rule->after, period, now)) && part;
}

/* ---- by scope ------------------------------------------------------------------------- */

enum { KEY_MAX = 8 * 1024 };

/* What is counted together: what the scope names. */
static uint64_t place_of(const struct tally_subject *s, enum rules_scope scope)
{
    struct slice who = SLICE(""), where = s->destination;
    if (scope == RULES_OF_SOURCE)
        who = s->source;
    else if (scope == RULES_OF_ACCOUNT)
        who = s->account;
    else if (scope == RULES_OF_DKIM)
        who = s->domain.len ? s->domain : s->account;
    else if (s->provider)
        where = slice_str(s->provider);
    struct buf key = BUF_INIT(KEY_MAX);
    buf_printf(&key, "%d\n%.*s\n", (int)scope, SLICE_ARG(where));
    (void)buf_adds(&key, who);
    uint64_t place = map_hash(buf_slice(&key));
    buf_free(&key);
    return place;
}

unsigned tallies_scopes(const struct rules *r)
{
    unsigned scopes = 0;
    for (unsigned i = 0; i < rules_count(r); i++)
        if (rules_at(r, i)->fraction > 0)
            scopes |= 1u << rules_at(r, i)->scope;
    return scopes;
}

void tallies_tried(struct tallies *t, unsigned scopes, const struct tally_subject *s, int64_t now)
{
    for (enum rules_scope scope = RULES_OF_RECIPIENT; scope <= RULES_OF_PROVIDER; scope++)
        if (scopes & 1u << scope)
            tallies_attempt(t, place_of(s, scope), now);
}

bool tallies_believed(const struct rule *rule, unsigned attempts)
{
    return rule->scope != RULES_OF_RECIPIENT || attempts >= rule->after;
}

bool tallies_acts(struct tallies *t, const struct rule *rule, unsigned index,
                  const struct tally_subject *s, unsigned divisor, int64_t now)
{
    if (!tallies_counts(rule))
        return true;
    if (rule->scope == RULES_OF_RECIPIENT && rule->outcome == RULES_FAIL && rule->after > 1)
        return tallies_believed(rule, s->attempts); /* it is those that are counted */
    return tallies_reached(t, rule, index, place_of(s, rule->scope), divisor, now);
}

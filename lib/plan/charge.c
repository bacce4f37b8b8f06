#include "plan/charge.h"

#include <stdlib.h>
#include <string.h>

enum { GRANT_IDS_A_SECOND = 1000000 };

static uint64_t add(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool is_valid(const struct grant *g, uint8_t unit, int64_t now)
{
    return g->unit == unit && g->from <= now && now < g->until;
}

static int by_end(const void *a, const void *b)
{
    const struct grant *x = a, *y = b;
    if (x->until != y->until)
        return x->until < y->until ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

void plan_sort_grants(struct grant *grants, size_t count)
{
    if (count)
        qsort(grants, count, sizeof *grants, by_end);
}

struct volume plan_cost(const struct plan *p, uint64_t size, uint64_t recipients)
{
    struct volume v = {.messages = recipients};
    uint64_t each = size > p->byte_minimum ? size : p->byte_minimum;
    if (__builtin_mul_overflow(each, recipients, &v.bytes))
        v.bytes = UINT64_MAX;
    return v;
}

uint64_t plan_granted_left(const struct grant *grants, size_t count, uint8_t unit, int64_t now)
{
    uint64_t left = 0;
    for (size_t i = 0; i < count; i++)
        if (is_valid(&grants[i], unit, now))
            left = add(left, less(grants[i].amount, grants[i].used));
    return left;
}

/* ---- room ------------------------------------------------------------------- */

/* What one unit may still have; UINT64_MAX without a limit. Pending volume will
 * take from the grants when it is charged, so it is subtracted here. */
static uint64_t unit_room(uint64_t limit, uint64_t charged, uint64_t granted, uint64_t pending,
                          uint64_t grants_left)
{
    if (limit == 0)
        return UINT64_MAX;
    uint64_t all = add(add(limit, granted), grants_left);
    return less(less(all, charged), pending);
}

static struct volume room(const struct plan *p, const struct plan_usage *u,
                          const struct grant *grants, size_t count, struct volume pending,
                          int64_t now)
{
    return (struct volume){
        .messages =
            unit_room(p->messages, u->charged.messages, u->granted.messages, pending.messages,
                      plan_granted_left(grants, count, GRANT_MESSAGES, now)),
        .bytes = unit_room(p->bytes, u->charged.bytes, u->granted.bytes, pending.bytes,
                           plan_granted_left(grants, count, GRANT_BYTES, now)),
    };
}

enum plan_verdict plan_check(const struct plan *p, const struct plan_usage *u,
                             const struct grant *grants, size_t count, struct volume pending,
                             struct volume cost, int64_t now)
{
    struct volume r = room(p, u, grants, count, pending, now);
    if (cost.messages <= r.messages && cost.bytes <= r.bytes)
        return PLAN_ROOM;
    return p->at_limit == AT_LIMIT_BLOCK ? PLAN_FULL : PLAN_OVERAGE;
}

uint64_t plan_fit(const struct plan *p, const struct plan_usage *u, const struct grant *grants,
                  size_t count, struct volume pending, struct volume each, uint64_t max,
                  int64_t now)
{
    struct volume r = room(p, u, grants, count, pending, now);
    if (p->at_limit != AT_LIMIT_BLOCK)
        return max;
    uint64_t fit = each.messages ? r.messages / each.messages : max;
    uint64_t by_bytes = each.bytes ? r.bytes / each.bytes : max;
    return smaller(max, smaller(fit, by_bytes));
}

/* ---- charges and refunds ------------------------------------------------------ */

bool plan_bill_by(const struct plan *p, struct plan_usage *u)
{
    struct plan_terms t = {.messages = p->messages,
                           .bytes = p->bytes,
                           .overage_block = p->overage_block,
                           .overage_bytes = p->overage_bytes};
    memcpy(t.plan, p->name, sizeof t.plan);
    bool same = strcmp(u->terms.plan, t.plan) == 0 && u->terms.messages == t.messages &&
                u->terms.bytes == t.bytes && u->terms.overage_block == t.overage_block &&
                u->terms.overage_bytes == t.overage_bytes;
    u->terms = t;
    return !same;
}

struct plan_terms plan_terms_of(const struct plan_usage *u, const struct plan *p)
{
    struct plan_usage scratch = {.terms = u->terms};
    if (!*scratch.terms.plan)
        (void)plan_bill_by(p, &scratch);
    return scratch.terms;
}

static void note_taken(struct plan_usage *u, const struct grant *g, uint64_t n)
{
    for (unsigned i = 0; i < u->taken_count; i++)
        if (u->taken[i].grant == g->id && u->taken[i].unit == g->unit) {
            u->taken[i].amount = add(u->taken[i].amount, n);
            return;
        }
    if (u->taken_count < PLAN_TAKEN_MAX)
        u->taken[u->taken_count++] = (struct plan_taken){g->id, n, g->unit};
}

static uint64_t take(struct plan_usage *u, struct grant *grants, size_t count, uint8_t unit,
                     uint64_t wanted, int64_t now)
{
    uint64_t taken = 0;
    for (size_t i = 0; i < count && taken < wanted; i++) {
        struct grant *g = &grants[i];
        if (!is_valid(g, unit, now))
            continue;
        uint64_t n = smaller(wanted - taken, less(g->amount, g->used));
        if (n)
            note_taken(u, g, n);
        g->used += n;
        taken += n;
    }
    return taken;
}

/* A grant that has ended, or was deleted, gets nothing back, and no other in its place. */
static void give_to(struct grant *grants, size_t count, const struct plan_taken *t, uint64_t n)
{
    for (size_t i = 0; i < count; i++)
        if (grants[i].id == t->grant && grants[i].unit == t->unit)
            grants[i].used = less(grants[i].used, n);
}

/* Whether the period can have used it. */
static bool was_there(const struct grant *g, struct period period)
{
    return g->from < period.end && g->until > period.start &&
           (int64_t)(g->id / GRANT_IDS_A_SECOND) < period.end;
}

static void give(struct plan_usage *u, struct grant *grants, size_t count, uint8_t unit,
                 uint64_t back)
{
    for (unsigned i = u->taken_count; i-- > 0 && back;) {
        struct plan_taken *t = &u->taken[i];
        uint64_t n = t->unit == unit ? smaller(back, t->amount) : 0;
        give_to(grants, count, t, n);
        t->amount -= n;
        back -= n;
    }
    while (u->taken_count && u->taken[u->taken_count - 1].amount == 0)
        u->taken_count--;
    for (size_t i = count; i-- > 0 && back;) { /* what has no name */
        struct grant *g = &grants[i];
        if (g->unit != unit || !was_there(g, u->period))
            continue;
        uint64_t n = smaller(back, g->used);
        g->used -= n;
        back -= n;
    }
}

/* Grants cover what is beyond the limit, as far as they reach. */
static void cover(struct plan_usage *u, uint64_t limit, uint64_t charged, uint64_t *granted,
                  uint8_t unit, struct grant *grants, size_t count, int64_t now)
{
    uint64_t over = limit ? less(charged, limit) : 0;
    if (over > *granted) {
        *granted += take(u, grants, count, unit, over - *granted, now);
    } else if (over < *granted) { /* the plan has become larger */
        give(u, grants, count, unit, *granted - over);
        *granted = over;
    }
}

/* Of what grants gave, as much as is not needed any more: nothing else moves. */
static void uncover(struct plan_usage *u, uint64_t limit, uint64_t charged, uint64_t *granted,
                    uint8_t unit, struct grant *grants, size_t count, uint64_t cost)
{
    uint64_t over = limit ? less(charged, limit) : 0;
    uint64_t back = smaller(less(*granted, over), cost);
    give(u, grants, count, unit, back);
    *granted -= back;
}

void plan_charge(const struct plan *p, struct plan_usage *u, struct grant *grants, size_t count,
                 struct volume cost, int64_t now)
{
    u->charged.messages = add(u->charged.messages, cost.messages);
    u->charged.bytes = add(u->charged.bytes, cost.bytes);
    (void)plan_bill_by(p, u);
    cover(u, p->messages, u->charged.messages, &u->granted.messages, GRANT_MESSAGES, grants, count,
          now);
    cover(u, p->bytes, u->charged.bytes, &u->granted.bytes, GRANT_BYTES, grants, count, now);
}

void plan_delivered(struct plan_usage *u, struct volume cost)
{
    u->delivered.messages = add(u->delivered.messages, cost.messages);
    u->delivered.bytes = add(u->delivered.bytes, cost.bytes);
}

void plan_refund(const struct plan *p, struct plan_usage *u, struct grant *grants, size_t count,
                 struct volume cost)
{
    struct plan_terms t = plan_terms_of(u, p);
    u->refunded.messages = add(u->refunded.messages, cost.messages);
    u->refunded.bytes = add(u->refunded.bytes, cost.bytes);
    u->charged.messages = less(u->charged.messages, cost.messages);
    u->charged.bytes = less(u->charged.bytes, cost.bytes);
    uncover(u, t.messages, u->charged.messages, &u->granted.messages, GRANT_MESSAGES, grants, count,
            cost.messages);
    uncover(u, t.bytes, u->charged.bytes, &u->granted.bytes, GRANT_BYTES, grants, count,
            cost.bytes);
}

/* ---- figures ------------------------------------------------------------------ */

struct volume plan_overage(const struct plan_terms *t, const struct plan_usage *u)
{
    struct volume v = {0, 0};
    if (t->messages)
        v.messages = less(less(u->charged.messages, t->messages), u->granted.messages);
    if (t->bytes)
        v.bytes = less(less(u->charged.bytes, t->bytes), u->granted.bytes);
    return v;
}

uint64_t plan_overage_blocks(const struct plan_terms *t, const struct plan_usage *u)
{
    struct volume over = plan_overage(t, u);
    uint64_t n = t->overage_bytes ? over.bytes : over.messages;
    if (t->overage_block == 0)
        return 0;
    return n / t->overage_block + (n % t->overage_block != 0);
}

static unsigned percent_of(uint64_t used, uint64_t all)
{
    if (all == 0)
        return 0;
    long double p = (long double)used * 100 / (long double)all;
    return p > 100000 ? 100000 : (unsigned)p;
}

unsigned plan_percent(const struct plan *p, const struct plan_usage *u, const struct grant *grants,
                      size_t count, int64_t now)
{
    uint64_t messages = plan_granted_left(grants, count, GRANT_MESSAGES, now);
    uint64_t bytes = plan_granted_left(grants, count, GRANT_BYTES, now);
    unsigned m = p->messages ? percent_of(u->charged.messages,
                                          add(add(p->messages, u->granted.messages), messages))
                             : 0;
    unsigned b =
        p->bytes ? percent_of(u->charged.bytes, add(add(p->bytes, u->granted.bytes), bytes)) : 0;
    return m > b ? m : b;
}

static uint64_t mixed(uint64_t sum, uint64_t more)
{
    return (sum ^ more) * UINT64_C(0x100000001b3) + (sum >> 32);
}

uint64_t plan_capacity(const struct plan *p, const struct grant *grants, size_t count, int64_t now)
{
    uint64_t sum = mixed(mixed(p->report_percent, p->messages), p->bytes);
    for (int i = 0; i < PLAN_PERCENTS_MAX && p->alert_percents[i]; i++)
        sum = mixed(sum, p->alert_percents[i]);
    for (size_t i = 0; i < count; i++)
        if (grants[i].from <= now && now < grants[i].until)
            sum = mixed(mixed(sum, grants[i].id), grants[i].amount);
    return sum ? sum : 1;
}

void plan_told_anew(const struct plan *p, struct plan_usage *u, const struct grant *grants,
                    size_t count, int64_t now)
{
    uint64_t capacity = plan_capacity(p, grants, count, now);
    if (u->told_of == capacity)
        return;
    unsigned percent = plan_percent(p, u, grants, count, now);
    unsigned step = p->report_percent, whole = percent < 100 ? percent : 100;
    (void)plan_bill_by(p, u);
    struct volume over = plan_overage(&u->terms, u);
    for (int i = 0; i < PLAN_PERCENTS_MAX; i++)
        if (!p->alert_percents[i] || percent < p->alert_percents[i])
            u->alerts &= ~(1u << i);
    if (step && u->reported > whole / step * step)
        u->reported = (uint8_t)(whole / step * step);
    u->over_told = u->over_told && (over.messages || over.bytes);
    u->told_of = capacity;
}

uint64_t plan_credit(const struct plan *p, const struct grant *g)
{
    if (!g->bought || p->credit_unit == 0 || g->amount < p->credit_minimum)
        return 0;
    uint64_t left = less(g->amount, g->used);
    return left - left % p->credit_unit;
}

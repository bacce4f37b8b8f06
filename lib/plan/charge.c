#include "plan/charge.h"

#include <stdlib.h>

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

static uint64_t take(struct grant *grants, size_t count, uint8_t unit, uint64_t wanted, int64_t now)
{
    uint64_t taken = 0;
    for (size_t i = 0; i < count && taken < wanted; i++) {
        struct grant *g = &grants[i];
        if (!is_valid(g, unit, now))
            continue;
        uint64_t n = smaller(wanted - taken, less(g->amount, g->used));
        g->used += n;
        taken += n;
    }
    return taken;
}

/* Also to grants that have ended: what was refunded was taken before. */
static uint64_t give(struct grant *grants, size_t count, uint8_t unit, uint64_t back)
{
    uint64_t given = 0;
    for (size_t i = count; i-- > 0 && given < back;) {
        struct grant *g = &grants[i];
        if (g->unit != unit)
            continue;
        uint64_t n = smaller(back - given, g->used);
        g->used -= n;
        given += n;
    }
    return given;
}

/* Grants cover what is beyond the limit, as far as they reach. */
static void cover(uint64_t limit, uint64_t charged, uint64_t *granted, uint8_t unit,
                  struct grant *grants, size_t count, int64_t now)
{
    uint64_t over = limit ? less(charged, limit) : 0;
    if (over > *granted)
        *granted += take(grants, count, unit, over - *granted, now);
    else if (over < *granted)
        *granted -= give(grants, count, unit, *granted - over);
}

static void cover_both(const struct plan *p, struct plan_usage *u, struct grant *grants,
                       size_t count, int64_t now)
{
    cover(p->messages, u->charged.messages, &u->granted.messages, GRANT_MESSAGES, grants, count,
          now);
    cover(p->bytes, u->charged.bytes, &u->granted.bytes, GRANT_BYTES, grants, count, now);
}

void plan_charge(const struct plan *p, struct plan_usage *u, struct grant *grants, size_t count,
                 struct volume cost, int64_t now)
{
    u->charged.messages = add(u->charged.messages, cost.messages);
    u->charged.bytes = add(u->charged.bytes, cost.bytes);
    cover_both(p, u, grants, count, now);
}

void plan_delivered(struct plan_usage *u, struct volume cost)
{
    u->delivered.messages = add(u->delivered.messages, cost.messages);
    u->delivered.bytes = add(u->delivered.bytes, cost.bytes);
}

void plan_refund(const struct plan *p, struct plan_usage *u, struct grant *grants, size_t count,
                 struct volume cost, int64_t now)
{
    u->refunded.messages = add(u->refunded.messages, cost.messages);
    u->refunded.bytes = add(u->refunded.bytes, cost.bytes);
    u->charged.messages = less(u->charged.messages, cost.messages);
    u->charged.bytes = less(u->charged.bytes, cost.bytes);
    cover_both(p, u, grants, count, now);
}

/* ---- figures ------------------------------------------------------------------ */

struct volume plan_overage(const struct plan *p, const struct plan_usage *u)
{
    struct volume v = {0, 0};
    if (p->messages)
        v.messages = less(less(u->charged.messages, p->messages), u->granted.messages);
    if (p->bytes)
        v.bytes = less(less(u->charged.bytes, p->bytes), u->granted.bytes);
    return v;
}

uint64_t plan_overage_blocks(const struct plan *p, const struct plan_usage *u)
{
    struct volume over = plan_overage(p, u);
    uint64_t n = p->messages ? over.messages : over.bytes;
    if (p->overage_block == 0)
        return 0;
    return n / p->overage_block + (n % p->overage_block != 0);
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
    struct volume over = plan_overage(p, u);
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

/* What is counted for accounts and users: from the database when it is needed, in memory while
 * it is used, back with the next batch. */
#include "quota/quota.h"

#include "core/log.h"
#include "core/mem.h"

static struct slice party_key(const void *value)
{
    return slice_str(((const struct party *)value)->owner);
}

void parties_init(struct quota *q)
{
    map_init(&q->parties, party_key);
    list_init(&q->party_lru);
    list_init(&q->dirty_parties);
}

static void usage_key(struct key *k, const char *owner, int64_t start)
{
    key_begin(k, slice_str(owner));
    key_number(k, (uint64_t)start);
}

bool party_last_usage(struct quota *q, const char *owner, int64_t most, struct plan_usage *out)
{
    struct key k;
    struct err e;
    struct buf found = BUF_INIT(sizeof k.data);
    usage_key(&k, owner, most);
    int rc = kv_last(q->kv, T_USAGE, key_slice(&k), &found, &q->value, &e);
    if (rc < 0) /* a start recovers or rebuilds it */
        panic("%s", e.text);
    bool theirs = rc == 1 && found.len == k.len &&
                  slice_starts(buf_slice(&found), slice_make(k.data, k.len - 8));
    buf_free(&found);
    if (!theirs)
        return false;
    if (usage_decode(buf_slice(&q->value), out) == 0)
        return true;
    log_error("usage of %s: the record is not readable, counted anew", owner);
    return false;
}

static bool has_end(struct period p)
{
    return p.end != INT64_MAX;
}

/* Whether the period that was begun is the running one, though the plan would have it begin at
 * another time. */
static bool goes_on(struct period begun, struct period planned, int64_t now)
{
    return begun.start == planned.start ||
           (has_end(begun) && has_end(planned) && 0 <= begun.start && begun.start <= now &&
            now < begun.end);
}

/* Periods of an owner never overlap: what was used is in one of them. */
static void read_usage(struct quota *q, struct party *p, struct period planned, int64_t now)
{
    struct plan_usage last;
    bool any = party_last_usage(q, p->owner, has_end(planned) ? now : planned.start, &last);
    if (any && goes_on(last.period, planned, now)) {
        p->usage = last;
        return;
    }
    if (any && planned.start < last.period.end && last.period.end <= now)
        planned.start = last.period.end;
    p->usage = (struct plan_usage){.period = planned};
}

static struct party *party_read(struct quota *q, struct slice owner)
{
    struct party *p = xcalloc(1, sizeof *p);
    snprintf(p->owner, sizeof p->owner, "%.*s", SLICE_ARG(owner));
    list_init(&p->link);
    list_init(&p->dirty);
    p->usage.period.start = -1; /* none: party_find reads it */
    if (quota_get(q, T_TALLY, owner) && tally_decode(buf_slice(&q->value), &p->tally) < 0)
        log_error("rates of %s: the record is not readable, counted anew", p->owner);
    map_put(&q->parties, p);
    return p;
}

static void write_usage(struct quota *q, struct party *p, struct buf *batch)
{
    struct key k;
    usage_key(&k, p->owner, p->usage.period.start);
    usage_encode(&p->usage, &q->value);
    if (kv_put(batch, T_USAGE, key_slice(&k), buf_slice(&q->value)) < 0)
        panic("a batch that is full");
    p->usage_dirty = false;
}

static bool is_used(const struct plan_usage *u)
{
    return u->charged.messages || u->delivered.messages || u->refunded.messages;
}

/* Where the plan is not known any longer, what is still to be counted belongs to the period
 * that was counted last, by the terms that it had: that is the one that is billed when the plan
 * is back. False: nothing was counted yet. */
static bool find_last_period(struct quota *q, struct party *p, int64_t now)
{
    struct plan_usage last;
    if (p->usage.period.start >= 0)
        return true;
    if (!party_last_usage(q, p->owner, now, &last))
        return false;
    p->usage = last;
    return true;
}

/* The account's. What changes is written: the period would end as it was planned otherwise. */
static void find_period(struct quota *q, const struct account *a, struct party *p, int64_t now)
{
    if (a->plan_missing && a->plan == &plan_unlimited && find_last_period(q, p, now))
        return;
    struct period planned = plan_period_at(a->plan, a->began, now), was = p->usage.period;
    if (was.start != planned.start && !(is_used(&p->usage) && goes_on(was, planned, now))) {
        if (p->usage_dirty) /* of the period that is over */
            book_apply(q);
        read_usage(q, p, planned, now);
    }
    bool changed = plan_bill_by(a->plan, &p->usage) || p->usage.period.end != planned.end;
    p->usage.period.end = planned.end;
    if (changed && is_used(&p->usage)) {
        party_touched(q, p);
        q->book.unsynced = true;
    }
}

static void find_user_period(struct quota *q, struct party *p, struct period period)
{
    struct plan_usage last;
    if (p->usage.period.start != period.start) {
        if (p->usage_dirty)
            book_apply(q);
        if (party_last_usage(q, p->owner, period.start, &last) && last.period.start == period.start)
            p->usage = last;
        else
            p->usage = (struct plan_usage){.period = period};
    }
    p->usage.period = period;
}

struct party *party_find(struct quota *q, struct account *a, struct slice user)
{
    char owner[OWNER_MAX + 1];
    int n =
        snprintf(owner, sizeof owner, user.len ? "%s/%.*s" : "%s%.*s", a->name, SLICE_ARG(user));
    struct slice name = slice_make(owner, (size_t)n);
    struct party *p = map_get(&q->parties, name);
    if (!p)
        p = party_read(q, name);
    list_remove(&p->link);
    list_push(&q->party_lru, &p->link);
    int64_t now = quota_now();
    if (!p->again && p->usage.period.start >= 0 && p->usage.period.start <= now &&
        now < p->usage.period.end)
        return p;
    p->again = false;
    if (user.len)
        find_user_period(q, p, party_find(q, a, SLICE(""))->usage.period);
    else
        find_period(q, a, p, now);
    return p;
}

void party_again(struct quota *q, struct slice owner)
{
    struct party *p = map_get(&q->parties, owner);
    if (!p)
        return;
    p->usage.period.start = -1; /* party_find reads it */
    if (!quota_get(q, T_TALLY, owner) || tally_decode(buf_slice(&q->value), &p->tally) < 0)
        p->tally = (struct tally){.hour = 0};
}

void parties_again(struct quota *q, const char *account)
{
    list_each(&q->party_lru, n)
    {
        const struct party *p = container_of(n, struct party, link);
        struct slice user = slice_str(p->owner), name = slice_cut(&user, '/');
        if (slice_eq(name, slice_str(account)))
            party_again(q, slice_str(p->owner));
    }
}

void party_touched(struct quota *q, struct party *p)
{
    p->usage_dirty = p->tally_dirty = true;
    if (list_empty(&p->dirty))
        list_push(&q->dirty_parties, &p->dirty);
}

void parties_gather(struct quota *q, struct buf *batch)
{
    struct list *n;
    while ((n = list_pop(&q->dirty_parties))) {
        struct party *p = container_of(n, struct party, dirty);
        if (p->usage_dirty)
            write_usage(q, p, batch);
        if (p->tally_dirty) {
            tally_encode(&p->tally, &q->value);
            if (kv_put(batch, T_TALLY, slice_str(p->owner), buf_slice(&q->value)) < 0)
                panic("a batch that is full");
        }
        p->tally_dirty = false;
    }
}

void parties_trim(struct quota *q)
{
    list_each_safe(&q->party_lru, n)
    {
        struct party *p = container_of(n, struct party, link);
        if (q->parties.count <= ACCOUNTS_CACHED)
            break;
        if (!list_empty(&p->dirty) || p->reservations)
            continue;
        map_remove(&q->parties, slice_str(p->owner));
        list_remove(&p->link);
        free(p);
    }
}

void periods_again(struct quota *q)
{
    list_each(&q->party_lru, n) container_of(n, struct party, link)->again = true;
}

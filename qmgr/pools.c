/*
 * Which source pool an account's mail goes from, and how much of it at a time and a day to any
 * one destination. quota knows; what it said is kept.
 * A message of an account that was not asked about waits for the answer, a minute at
 * most: deliveries must not hang on the accounts' database, and the default pool is
 * better than no mail. The old answer holds until the new one is there; when quota tells that
 * there may be others, accounts with mail in line are asked about at once, though not more
 * often than each second, and the others when they have mail.
 */
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/qmgr.h"
#include "qmgr/seats.h"

enum { POOLS_KNOWN = 20000 /* accounts in memory */ };

#define POOL_WAIT (60 * CLOCK_SECOND)
#define ASK_AGAIN CLOCK_SECOND

struct account_pool {
    struct list link;    /* least recently used first */
    struct list waiting; /* struct envelope.waiting */
    char account[ACCOUNT_MAX + 1], pool[POOL_NAME_MAX + 1];
    uint16_t account_len;
    uint32_t asked, answered; /* in which generation; 0: not yet */
    uint32_t connections;     /* at a time, at one destination; 0: no limit */
    uint64_t recipients;      /* a day, the same */
    int64_t give_up;          /* monotonic: the default pool from then on */
};

static struct slice pool_key(const void *value)
{
    const struct account_pool *p = value;
    return slice_make(p->account, p->account_len); /* any bytes: COMMIT's word */
}

void pools_init(struct qmgr *q)
{
    map_init(&q->pools.accounts, pool_key);
    list_init(&q->pools.recent);
    q->pools.generation = 1;
}

static void forget(struct qmgr *q, struct account_pool *p)
{
    map_remove(&q->pools.accounts, pool_key(p));
    list_remove(&p->link);
    free(p);
}

static void trim(struct qmgr *q, const struct account_pool *keep)
{
    list_each_safe(&q->pools.recent, n)
    {
        struct account_pool *p = container_of(n, struct account_pool, link);
        if (q->pools.accounts.count <= POOLS_KNOWN)
            break;
        if (p != keep && list_empty(&p->waiting))
            forget(q, p);
    }
}

static struct account_pool *pool_get(struct qmgr *q, struct slice account)
{
    struct account_pool *p = map_get(&q->pools.accounts, account);
    if (p) {
        list_remove(&p->link);
        list_push(&q->pools.recent, &p->link);
        return p;
    }
    p = xcalloc(1, sizeof *p);
    memcpy(p->account, account.ptr, account.len); /* at most ACCOUNT_MAX, as owners are */
    p->account_len = (uint16_t)account.len;
    p->give_up = q->now + POOL_WAIT;
    list_init(&p->waiting);
    list_push(&q->pools.recent, &p->link);
    map_put(&q->pools.accounts, p);
    trim(q, p);
    return p;
}

static void ask(struct qmgr *q, struct account_pool *p)
{
    if (!q->charges.peer.channel || p->asked == q->pools.generation)
        return;
    p->asked = q->pools.generation;
    ipc_account_ask_encode(channel_out(q->charges.peer.channel),
                           &(struct ipc_account_ask){.account = pool_key(p)});
}

/* NULL: it has none, and goes from the default pool. */
static struct account_pool *pool_of(struct qmgr *q, const struct message *m)
{
    struct slice account = message_account(m);
    bool own = q->s->config->accounts_enable && account.len && !(m->flags & MESSAGE_NOTICE);
    return own ? pool_get(q, account) : NULL;
}

struct slice pools_name(struct qmgr *q, const struct message *m)
{
    const struct account_pool *p = pool_of(q, m);
    return p ? slice_str(p->pool) : SLICE("");
}

bool pools_wait(struct qmgr *q, struct message *m)
{
    struct account_pool *p = pool_of(q, m);
    list_remove(&m->env->waiting);
    if (!p)
        return false;
    if (p->answered != q->pools.generation)
        ask(q, p);
    if (p->answered)
        return false;
    if (q->now >= p->give_up) {
        if (!q->pools.warned || q->now - q->pools.warned > POOL_WAIT)
            log_warning("quota does not tell from which source pool mail of account %s goes: it "
                        "goes from the default one; is quota running? See 'postern status'",
                        log_esc(pool_key(p)));
        q->pools.warned = q->now;
        return false;
    }
    m->env->message = m;
    list_push(&p->waiting, &m->env->waiting);
    return true;
}

int64_t pools_due(struct qmgr *q, const struct message *m)
{
    const struct account_pool *p = list_empty(&m->env->waiting) ? NULL : pool_of(q, m);
    return p && !p->answered ? p->give_up : 0;
}

/* Whatever was said may hold no more; it is asked about again when it is needed. */
static void all_stale(struct qmgr *q)
{
    if (++q->pools.generation == 0)
        q->pools.generation = 1;
    q->pools.stale = true;
}

void pools_limits(const struct qmgr *q, struct slice account, uint32_t *connections, double *rate)
{
    const struct account_pool *p = map_get(&q->pools.accounts, account);
    *connections = p ? p->connections : 0;
    *rate = p ? seats_rate(p->recipients) : 0;
}

void pools_turn(struct qmgr *q)
{
    struct pools *pools = &q->pools;
    struct slice name;
    if (!pools->stale || pools_next_due(q) > q->now)
        return;
    pools->stale = false;
    pools->asked = q->now;
    for (size_t cursor = 0; (name = account_next(q, &cursor)).ptr;) {
        struct account_pool *p = map_get(&pools->accounts, name);
        if (p && p->answered != pools->generation)
            ask(q, p);
    }
}

int64_t pools_next_due(const struct qmgr *q)
{
    return q->pools.stale ? q->pools.asked + ASK_AGAIN : INT64_MAX;
}

void pools_connected(struct qmgr *q)
{
    all_stale(q); /* accounts may have changed meanwhile, and questions were lost */
    list_each(&q->pools.recent, n)
    {
        struct account_pool *p = container_of(n, struct account_pool, link);
        if (!list_empty(&p->waiting))
            ask(q, p);
    }
}

static bool is_name(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= ' ' || s.ptr[i] > '~')
            return false;
    return s.len <= POOL_NAME_MAX;
}

int pools_answer(struct qmgr *q, struct slice body, struct err *e)
{
    struct ipc_account_pool in;
    struct list *n;
    if (ipc_account_pool_decode(body, &in) < 0 || !is_name(in.pool))
        return err_set(e, "malformed ACCOUNT_POOL");
    if (in.account.len == 0) {
        all_stale(q);
        return 0;
    }
    struct account_pool *p = map_get(&q->pools.accounts, in.account);
    if (!p) /* forgotten since it was asked about */
        return 0;
    if (in.pool.len)
        memcpy(p->pool, in.pool.ptr, in.pool.len);
    p->pool[in.pool.len] = '\0';
    p->connections = in.connections;
    p->recipients = in.recipients_a_day;
    p->answered = q->pools.generation;
    seats_account(q, pool_key(p), p->connections, p->recipients);
    while ((n = list_pop(&p->waiting))) {
        struct message *m = container_of(n, struct envelope, waiting)->message;
        if ((m->flags & (MESSAGE_HELD | MESSAGE_DELETED)) == 0)
            message_plan(q, m, q->now);
    }
    return 0;
}

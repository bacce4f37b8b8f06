/*
 * The book of charges in memory, and how it is written: what a batch of qmgr changes
 * goes into the database in one transaction, and only when that is durable does qmgr
 * hear CHARGED.
 */
#include "quota/book.h"

#include "core/fault.h"
#include "core/log.h"
#include "core/mem.h"

enum {
    ENTRIES_CACHED = 20000,
    RECIPIENTS_CACHED = 16000000, /* of them, a byte each */
    ENTRY_BYTES = 6144,           /* of a batch: a charge without its recipients, and the usage and
                                   * rates of its account, those above it and its user */
    RECIPIENT_BYTES = 5, /* and each recipient: a run of states (records.c) may be of one */
    DIRTY_BYTES = KV_BATCH_MAX / 4, /* that gather before they are written early, */
    EXTRA_BYTES = KV_BATCH_MAX / 8, /* and of letters and failures: a batch has both */
    SYNC_INTERVAL = 50000           /* microseconds */
};

/* Usage of a period that is over, while something of it changes. */
struct past {
    struct list link;
    char owner[OWNER_MAX + 1];
    struct plan_usage usage;
};

static struct list pasts;    /* written by the next book_apply */
static struct buf extra;     /* the same: letters and failures, as a batch */
static struct list finished; /* entries that were written and are over, by dirty_link */

struct slice book_entry_key(const void *value)
{
    return slice_str(((const struct entry *)value)->id);
}

/* ---- entries in memory ---------------------------------------------------------------- */

void book_entry_free(struct quota *q, struct entry *x)
{
    map_remove(&q->book.open, book_entry_key(x));
    q->book.recipients -= x->weighed;
    list_remove(&x->link);
    list_remove(&x->dirty_link);
    free(x->c.states);
    free(x);
}

struct entry *book_entry_new(struct quota *q, struct slice id)
{
    struct entry *x = xcalloc(1, sizeof *x);
    snprintf(x->id, sizeof x->id, "%.*s", SLICE_ARG(id));
    list_init(&x->dirty_link);
    list_push(&q->book.recent, &x->link);
    map_put(&q->book.open, x);
    return x;
}

/* How many recipients it has is known now. */
static void weigh(struct quota *q, struct entry *x)
{
    q->book.recipients += x->c.recipients - x->weighed;
    x->weighed = x->c.recipients;
}

struct entry *book_entry_find(struct quota *q, struct slice id)
{
    struct entry *x = map_get(&q->book.open, id);
    if (x) {
        list_remove(&x->link);
        list_push(&q->book.recent, &x->link);
        return x;
    }
    if (!quota_get(q, T_CHARGE, id))
        return NULL;
    x = book_entry_new(q, id);
    if (charge_decode(buf_slice(&q->value), &x->c) == 0) {
        weigh(q, x);
        return x;
    }
    log_error("charge of %s: the record is not readable, nothing more is counted for it",
              log_esc(id));
    book_entry_free(q, x);
    return NULL;
}

void book_entry_touched(struct quota *q, struct entry *x)
{
    weigh(q, x);
    if (!x->dirty)
        q->book.dirty_bytes += ENTRY_BYTES + (size_t)RECIPIENT_BYTES * x->c.recipients;
    x->dirty = true;
    list_remove(&x->dirty_link); /* it may stand among the finished: it is not, any more */
    list_push(&q->book.dirty, &x->dirty_link);
}

/* As a rule nothing more is heard of a message that is over: the database has it. */
static void trim(struct quota *q)
{
    struct list *done;
    while ((done = list_pop(&finished)))
        book_entry_free(q, container_of(done, struct entry, dirty_link));
    list_each_safe(&q->book.recent, n)
    {
        struct entry *x = container_of(n, struct entry, link);
        if (q->book.open.count <= ENTRIES_CACHED && q->book.recipients <= RECIPIENTS_CACHED)
            break;
        if (!x->dirty)
            book_entry_free(q, x);
    }
}

/* ---- writing ---------------------------------------------------------------------------- */

struct buf *book_extra(struct quota *q)
{
    q->book.unsynced = true;
    return &extra;
}

static void gather_past(struct buf *batch, struct quota *q)
{
    struct list *n;
    while ((n = list_pop(&pasts))) {
        struct past *p = container_of(n, struct past, link);
        struct key k;
        key_begin(&k, slice_str(p->owner));
        key_number(&k, (uint64_t)p->usage.period.start);
        usage_encode(&p->usage, &q->value);
        if (kv_put(batch, T_USAGE, key_slice(&k), buf_slice(&q->value)) < 0)
            panic("a batch that is full");
        free(p);
    }
}

void book_apply(struct quota *q)
{
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    struct list *n;
    while ((n = list_pop(&q->book.dirty))) {
        struct entry *x = container_of(n, struct entry, dirty_link);
        charge_encode(&x->c, &q->value);
        if (kv_put(&batch, T_CHARGE, book_entry_key(x), buf_slice(&q->value)) < 0)
            panic("a batch that is full");
        x->dirty = false;
        if (x->c.open == 0) /* freed by trim: a caller may be looking at it */
            list_push(&finished, &x->dirty_link);
    }
    q->book.dirty_bytes = 0;
    accounts_gather(q, &batch);
    gather_past(&batch, q);
    if (buf_adds(&batch, buf_slice(&extra)) < 0)
        panic("a batch that is full");
    buf_clear(&extra);
    if (batch.len)
        sync_apply(q, buf_slice(&batch), NULL, NULL);
    buf_free(&batch);
}

void book_make_room(struct quota *q)
{
    bool much = q->book.recipients > RECIPIENTS_CACHED;
    if (much || q->book.dirty_bytes > DIRTY_BYTES || extra.len > EXTRA_BYTES)
        book_apply(q);
    if (much)
        trim(q);
}

struct plan_usage *book_usage(struct quota *q, struct party *p, int64_t start)
{
    if (p->usage.period.start == start) {
        party_touched(q, p);
        return &p->usage;
    }
    list_each(&pasts, n)
    {
        struct past *x = container_of(n, struct past, link);
        if (x->usage.period.start == start && strcmp(x->owner, p->owner) == 0)
            return &x->usage;
    }
    struct past *x = xcalloc(1, sizeof *x);
    struct key k;
    memcpy(x->owner, p->owner, sizeof x->owner);
    key_begin(&k, slice_str(p->owner));
    key_number(&k, (uint64_t)start);
    if (!quota_get(q, T_USAGE, key_slice(&k)) || usage_decode(buf_slice(&q->value), &x->usage) < 0)
        x->usage = (struct plan_usage){.period = {start, start}};
    list_push(&pasts, &x->link);
    return &x->usage;
}

/* The batch that was durable, of this channel's. */
struct synced {
    struct quota *q;
    uint64_t generation;
    uint32_t batch;
    bool asked; /* qmgr waits for it; otherwise quota had changes of its own */
};

static void on_synced(void *arg)
{
    struct synced *s = arg;
    struct quota *q = s->q;
    q->book.syncing--;
    fault_point("quota.charged");
    if (s->asked && q->book.channel && s->generation == q->book.generation)
        ipc_charged_encode(channel_out(q->book.channel), &(struct ipc_charged){.batch = s->batch});
    free(s);
}

static void on_interval(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    book_turn(arg);
}

/* Whether the next sync had better wait: mail does not wait for it, but its disk is
 * the spool's as a rule, and a charge whose end is counted meanwhile is written once. */
static bool too_early(struct quota *q)
{
    int64_t wait = q->book.last_sync + SYNC_INTERVAL - clock_mono();
    if (wait <= 0 || wait > SYNC_INTERVAL || q->s->draining)
        return false;
    const struct timeval t = {0, wait};
    if (!q->book.interval)
        q->book.interval = event_new(q->s->base, -1, 0, on_interval, q);
    if (!q->book.interval || event_add(q->book.interval, &t) < 0)
        return false;
    return true;
}

/* One sync at a time: what comes meanwhile shares the next. */
void book_turn(struct quota *q)
{
    if (!q->book.unsynced || q->book.syncing || too_early(q))
        return;
    q->book.last_sync = clock_mono();
    struct synced *s = xmalloc(sizeof *s);
    *s = (struct synced){q, q->book.generation, q->book.batch, q->book.asked};
    q->book.unsynced = q->book.asked = false;
    q->book.syncing++;
    fault_point("quota.apply");
    book_apply(q);
    sync_apply(q, SLICE(""), on_synced, s);
    trim(q);
}

bool book_is_idle(const struct quota *q)
{
    return !q->book.unsynced && !q->book.syncing;
}

static void init(struct quota *q)
{
    map_init(&q->book.open, book_entry_key);
    list_init(&q->book.recent);
    list_init(&q->book.dirty);
    q->book.began = clock_mono();
    book_held_init(q);
    list_init(&pasts);
    list_init(&finished);
    buf_init(&extra, KV_BATCH_MAX / 2);
}

void book_tick(struct quota *q)
{
    if (!q->book.open.key)
        init(q);
    book_ready(q);
    book_turn(q); /* counted by itself, such as a spike */
    book_sweep(q);
    book_release(q);
}

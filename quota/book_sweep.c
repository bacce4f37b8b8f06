/* What the book does by itself: it asks about charges that stay open, and forgets those
 * that are over. */
#include "core/mem.h"
#include "quota/book.h"

enum {
    SWEEP_SLICE = 10000, /* records looked at in one turn */
    QUERY_IDS = 1000,
    QUERY_AGE = 10,     /* seconds after which an open charge is asked about */
    SWEEP_SECONDS = 300 /* from one search for old charges to the next */
};

struct sweep {
    struct quota *q;
    struct buf batch; /* removals */
    struct buf ids;   /* of a question to qmgr */
    unsigned seen, asked;
    int64_t now;
    bool end, waits; /* for qmgr's first answer: something is over that could be forgotten */
};

static void sweep_one(struct sweep *s, struct slice key, const struct charge *c)
{
    struct entry *x = map_get(&s->q->book.open, key);
    if (x)
        c = &x->c; /* newer than the record */
    if (c->closed_at && s->now - c->closed_at >= CLOSED_SECONDS) {
        /* what a power cut took back is charged again before qmgr's first answer, however long
         * the power was away */
        if (!s->q->book.scanned)
            s->waits = true;
        if (!s->q->book.scanned || (x && x->dirty))
            return;
        if (x)
            book_entry_free(s->q, x);
        (void)kv_remove(&s->batch, T_CHARGE, key);
    } else if (!c->closed_at && s->now - c->charged_at >= QUERY_AGE && s->asked < QUERY_IDS) {
        ipc_charge_id_add(&s->ids, &(struct ipc_charge_id){.id = key});
        s->asked++;
    }
}

static bool on_charge(struct slice key, struct slice value, void *arg)
{
    struct sweep *s = arg;
    struct charge c;
    struct id id;
    if (s->seen++ == SWEEP_SLICE || s->asked == QUERY_IDS) {
        s->q->book.sweep.len = 0; /* goes on here */
        key_add(&s->q->book.sweep, key);
        s->end = false;
        return false;
    }
    /* IDs sort by time: what follows is younger */
    if (id_parse(key, &id) == 0 && s->now - id_time(&id) < QUERY_AGE)
        return false;
    if (charge_decode(value, &c) == 0) {
        sweep_one(s, key, &c);
        free(c.states);
    }
    return true;
}

void book_sweep(struct quota *q)
{
    struct err e;
    struct sweep s = {.q = q,
                      .batch = BUF_INIT(KV_BATCH_MAX),
                      .ids = BUF_INIT(IPC_FRAME_MAX / 2),
                      .now = quota_now(),
                      .end = true};
    if (clock_mono() < q->book.next_sweep || q->book.query)
        return;
    struct key from = q->book.sweep;
    if (kv_walk(q->kv, T_CHARGE, key_slice(&from), on_charge, &s, &e) < 0)
        panic("%s", e.text);
    if (s.batch.len)
        sync_apply(q, buf_slice(&s.batch), NULL, NULL);
    if ((s.asked || s.waits) && q->book.channel) {
        static uint64_t tag;
        q->book.query = ++tag;
        ipc_charges_query_encode(channel_out(q->book.channel),
                                 &(struct ipc_charges_query){.tag = tag, .ids = buf_slice(&s.ids)});
    }
    if (s.end) {
        q->book.sweep.len = 0;
        /* after the first look for a qmgr one more: some charges were too young for it */
        int64_t wait = q->book.looked ? SWEEP_SECONDS : QUERY_AGE + 1;
        q->book.next_sweep = clock_mono() + wait * CLOCK_SECOND;
        q->book.looked = true;
    }
    buf_free(&s.batch);
    buf_free(&s.ids);
}

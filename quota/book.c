/*
 * The book of charges. qmgr tells of messages and of what became of their
 * recipients, and repeats itself after any crash; each is counted once. What a
 * batch changes goes into the database in one transaction, and only when that is
 * durable does qmgr hear CHARGED.
 */
#include <unistd.h>

#include "core/fault.h"
#include "core/log.h"
#include "core/mem.h"
#include "quota/quota.h"
#include "quota/rates.h"

enum {
    ENTRIES_CACHED = 100000,
    SWEEP_SLICE = 10000, /* records looked at in one turn */
    QUERY_IDS = 1000,
    QUERY_AGE = 10,      /* seconds after which an open charge is asked about */
    SWEEP_SECONDS = 300, /* from one search for old charges to the next */
    RELEASE_SLICE = 500,
    REPLY_KEPT = 300 /* bytes of a failure's reply, for reports */
};

struct entry {
    struct list link, dirty_link;
    char id[ID_MAX + 1];
    bool dirty;
    struct charge c;
};

/* Usage of a period that is over, while something of it changes. */
struct past {
    struct list link;
    char owner[OWNER_MAX + 1];
    struct plan_usage usage;
};

static struct list pasts; /* written by the next book_apply */
static struct buf extra;  /* the same: letters and failures, as a batch */

static struct slice entry_key(const void *value)
{
    return slice_str(((const struct entry *)value)->id);
}

/* ---- entries in memory ---------------------------------------------------------------- */

static void entry_free(struct quota *q, struct entry *x)
{
    map_remove(&q->book.open, entry_key(x));
    list_remove(&x->link);
    list_remove(&x->dirty_link);
    free(x->c.states);
    free(x);
}

static struct entry *entry_new(struct quota *q, struct slice id)
{
    struct entry *x = xcalloc(1, sizeof *x);
    snprintf(x->id, sizeof x->id, "%.*s", SLICE_ARG(id));
    list_init(&x->dirty_link);
    list_push(&q->book.recent, &x->link);
    map_put(&q->book.open, x);
    return x;
}

static struct entry *entry_find(struct quota *q, struct slice id)
{
    struct entry *x = map_get(&q->book.open, id);
    if (x) {
        list_remove(&x->link);
        list_push(&q->book.recent, &x->link);
        return x;
    }
    if (!quota_get(q, T_CHARGE, id))
        return NULL;
    x = entry_new(q, id);
    if (charge_decode(buf_slice(&q->value), &x->c) == 0)
        return x;
    log_error("charge of %s: the record is not readable, nothing more is counted for it",
              log_esc(id));
    entry_free(q, x);
    return NULL;
}

static void entry_touched(struct quota *q, struct entry *x)
{
    x->dirty = true;
    if (list_empty(&x->dirty_link))
        list_push(&q->book.dirty, &x->dirty_link);
}

static void trim(struct quota *q)
{
    list_each_safe(&q->book.recent, n)
    {
        struct entry *x = container_of(n, struct entry, link);
        if (q->book.open.count <= ENTRIES_CACHED)
            break;
        if (!x->dirty)
            entry_free(q, x);
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
        if (kv_put(&batch, T_CHARGE, entry_key(x), buf_slice(&q->value)) < 0)
            panic("a batch that is full");
        x->dirty = false;
    }
    accounts_gather(q, &batch);
    gather_past(&batch, q);
    if (buf_adds(&batch, buf_slice(&extra)) < 0)
        panic("a batch that is full");
    buf_clear(&extra);
    if (batch.len)
        sync_apply(q, buf_slice(&batch), NULL, NULL);
    buf_free(&batch);
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

/* One sync at a time: what comes meanwhile shares the next. */
void book_turn(struct quota *q)
{
    if (!q->book.unsynced || q->book.syncing)
        return;
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

/* ---- counting ------------------------------------------------------------------------------ */

/* Where a level is counted: the running period's usage, or that of one before. */
static struct plan_usage *usage_of(struct quota *q, struct party *p, int64_t start)
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

/* The account, those above it, and the user: all found before anything is counted,
 * because finding may write. */
struct counted {
    struct account *accounts[CHARGE_LEVELS_MAX];
    struct party *parties[CHARGE_LEVELS_MAX], *user;
    unsigned levels;
};

static void find_counted(struct quota *q, const struct charge *c, struct counted *out)
{
    *out = (struct counted){.levels = c->level_count};
    for (unsigned i = 0; i < c->level_count; i++) {
        struct account *a = account_find(q, slice_str(c->levels[i].account));
        out->accounts[i] = a;
        out->parties[i] = a ? party_find(q, a, SLICE("")) : NULL;
    }
    if (c->level_count && out->accounts[0] && *c->user)
        out->user = party_find(q, out->accounts[0], slice_str(c->user));
}

static void new_charge(struct quota *q, const struct ipc_charge *in, struct entry *x)
{
    struct slice user = in->owner, name = slice_cut(&user, '/');
    char account[ACCOUNT_NAME_MAX + 1];
    struct account *chain[CHARGE_LEVELS_MAX], *a = NULL;
    struct charge *c = &x->c;
    if (name_account(name, account) == 0)
        a = account_find(q, slice_str(account));
    unsigned n = account_chain(q, a, chain);
    struct party *parties[CHARGE_LEVELS_MAX];
    for (unsigned i = 0; i < n; i++)
        parties[i] = party_find(q, chain[i], SLICE(""));
    *c = (struct charge){.size = in->size,
                         .charged_at = quota_now(),
                         .recipients = in->recipients,
                         .open = in->recipients,
                         .level_count = n};
    if (name_login(user, c->user) < 0)
        c->user[0] = '\0';
    c->states = xcalloc(in->recipients, 1);
    for (unsigned i = 0; i < n; i++) {
        memcpy(c->levels[i].account, chain[i]->name, sizeof c->levels[i].account);
        c->levels[i].period = parties[i]->usage.period.start;
        c->levels[i].each = plan_cost(chain[i]->plan, in->size, 1).bytes;
    }
    if (n == 0)
        log_warning("%s: is of account %s, which does not exist; it is charged to nobody", x->id,
                    log_esc(name));
}

static struct volume volume_of(const struct charge *c, unsigned level, uint64_t count)
{
    struct volume v = {.messages = count};
    if (__builtin_mul_overflow(c->levels[level].each, count, &v.bytes))
        v.bytes = UINT64_MAX;
    return v;
}

static void count_charge(struct quota *q, struct entry *x)
{
    struct counted k;
    const struct charge *c = &x->c;
    int64_t now = quota_now();
    find_counted(q, c, &k);
    for (unsigned i = 0; i < k.levels; i++) {
        struct account *a = k.accounts[i];
        if (!a)
            continue;
        rates_roll(&k.parties[i]->tally, a->plan, a->plan->account_rates, now);
        rates_add(&k.parties[i]->tally, c->recipients, now);
        plan_charge(a->plan, usage_of(q, k.parties[i], c->levels[i].period), a->grants,
                    a->grant_count, volume_of(c, i, c->recipients), now);
        if (a->grant_count)
            account_touched(q, a);
    }
    if (k.user) {
        rates_roll(&k.user->tally, k.accounts[0]->plan, k.accounts[0]->plan->user_rates, now);
        rates_add(&k.user->tally, c->recipients, now);
        plan_charge(&plan_unlimited, usage_of(q, k.user, c->levels[0].period), NULL, 0,
                    volume_of(c, 0, c->recipients), now);
    }
    entry_touched(q, x);
    q->book.charged += c->recipients;
    for (unsigned i = 0; i < k.levels; i++)
        if (k.accounts[i])
            letters_after_charge(q, k.accounts[i], k.parties[i]);
}

static void count_end(struct quota *q, struct entry *x, uint64_t count, enum charge_state state)
{
    struct counted k;
    const struct charge *c = &x->c;
    find_counted(q, c, &k);
    for (unsigned i = 0; i < k.levels; i++) {
        struct account *a = k.accounts[i];
        if (!a)
            continue;
        struct plan_usage *u = usage_of(q, k.parties[i], c->levels[i].period);
        if (state == CHARGE_DELIVERED)
            plan_delivered(u, volume_of(c, i, count));
        else
            plan_refund(a->plan, u, a->grants, a->grant_count, volume_of(c, i, count), quota_now());
        if (a->grant_count && state == CHARGE_REFUNDED)
            account_touched(q, a);
    }
    if (k.user) {
        struct plan_usage *u = usage_of(q, k.user, c->levels[0].period);
        if (state == CHARGE_DELIVERED)
            plan_delivered(u, volume_of(c, 0, count));
        else
            plan_refund(&plan_unlimited, u, NULL, 0, volume_of(c, 0, count), quota_now());
    }
    entry_touched(q, x);
}

/* ---- what qmgr says ----------------------------------------------------------------------------
 */

static int take_charge(struct quota *q, const struct ipc_charge *in, struct err *e)
{
    if (!id_valid(in->id) || in->recipients == 0 || in->recipients > CHARGE_RECIPIENTS_MAX ||
        in->owner.len > OWNER_MAX)
        return err_set(e, "a malformed charge");
    bool expected = gate_charged(q, in->id);
    struct entry *x = map_get(&q->book.open, in->id);
    if (!x && !expected)
        x = entry_find(q, in->id);
    if (x) {
        q->book.repeated++;
        return 0;
    }
    x = entry_new(q, in->id);
    new_charge(q, in, x);
    count_charge(q, x);
    return 0;
}

/* For the account's report: whom it could not be delivered to, and why. */
static void note_failure(const struct entry *x, const struct ipc_settlement *in, uint32_t index)
{
    struct key k;
    const struct charge *c = &x->c;
    if (c->level_count == 0 || in->address.len == 0)
        return;
    key_begin(&k, slice_str(c->levels[0].account));
    key_number(&k, (uint64_t)quota_now());
    key_add(&k, entry_key(x));
    key_number(&k, index);
    struct buf address = BUF_INIT(2000), reply = BUF_INIT(2000);
    buf_add_escaped(&address, in->address, ADDRESS_TEXT_MAX);
    buf_add_escaped(&reply, in->reply, REPLY_KEPT);
    json_t *j =
        json_pack("{s:s,s:s,s:s%,s:s%}", "id", x->id, "user", c->user, "recipient", address.data,
                  address.len, "reply", reply.data ? reply.data : "", reply.len);
    if (j)
        quota_put_json(&extra, T_FAILURE, key_slice(&k), j);
    json_decref(j);
    buf_free(&address);
    buf_free(&reply);
}

/* One recipient changes its state; true if it counts. */
static bool settle_one(struct entry *x, uint32_t index, enum charge_state state)
{
    if (x->c.states[index] != CHARGE_RESERVED)
        return false; /* was said before */
    x->c.states[index] = (uint8_t)state;
    x->c.open--;
    return true;
}

static int take_settlement(struct quota *q, const struct ipc_settlement *in, struct err *e)
{
    uint64_t count = 0;
    if (!id_valid(in->id) || in->recipients.len % 4 ||
        (in->state != CHARGE_DELIVERED && in->state != CHARGE_REFUNDED))
        return err_set(e, "a malformed settlement");
    struct entry *x = entry_find(q, in->id);
    if (!x) {
        q->book.strangers++;
        return 0;
    }
    for (size_t at = 0; at < in->recipients.len; at += 4) {
        uint32_t index = 0;
        for (int i = 3; i >= 0; i--)
            index = index << 8 | (unsigned char)in->recipients.ptr[at + (size_t)i];
        if (index >= x->c.recipients) /* B92 */
            return err_set(e, "a settlement of recipient %u of %u", index, x->c.recipients);
        bool counts = settle_one(x, index, in->state);
        if (counts && in->state == CHARGE_REFUNDED)
            note_failure(x, in, index);
        count += counts;
    }
    for (uint32_t i = 0; in->recipients.len == 0 && i < x->c.recipients; i++)
        count += settle_one(x, i, in->state);
    if (count == 0)
        return 0;
    if (x->c.open == 0)
        x->c.closed_at = quota_now();
    *(in->state == CHARGE_DELIVERED ? &q->book.delivered : &q->book.refunded) += count;
    count_end(q, x, count, in->state);
    return 0;
}

static int on_charges(struct quota *q, struct slice body, struct err *e)
{
    struct ipc_charges in;
    struct ipc_charge charge;
    struct ipc_settlement settlement;
    if (ipc_charges_decode(body, &in) < 0)
        return err_set(e, "malformed CHARGES");
    struct ipc_cursor c = ipc_list_cursor(in.charges), s = ipc_list_cursor(in.settlements);
    while (ipc_charge_next(&c, &charge))
        if (take_charge(q, &charge, e) < 0)
            return -1;
    while (ipc_settlement_next(&s, &settlement))
        if (take_settlement(q, &settlement, e) < 0)
            return -1;
    if (c.failed || s.failed)
        return err_set(e, "malformed CHARGES");
    q->book.batch = in.batch;
    q->book.unsynced = q->book.asked = true;
    return 0;
}

/* The rest of messages that are gone was delivered: a refund is told before qmgr
 * lets go of a message. */
static int on_gone(struct quota *q, struct slice body, struct err *e)
{
    struct ipc_charges_gone in;
    struct ipc_charge_id id;
    if (ipc_charges_gone_decode(body, &in) < 0)
        return err_set(e, "malformed CHARGES_GONE");
    if (q->book.query == 0 || in.tag != q->book.query)
        return err_set(e, "CHARGES_GONE that was not asked for");
    q->book.query = 0;
    struct ipc_cursor cursor = ipc_list_cursor(in.ids);
    while (ipc_charge_id_next(&cursor, &id)) {
        struct ipc_settlement all = {.id = id.id, .state = CHARGE_DELIVERED};
        if (take_settlement(q, &all, e) < 0)
            return -1;
    }
    return cursor.failed ? err_set(e, "malformed CHARGES_GONE") : 0;
}

static int on_noticed(struct quota *q, struct slice body, struct err *e)
{
    struct ipc_account_noticed in;
    if (ipc_account_noticed_decode(body, &in) < 0)
        return err_set(e, "malformed ACCOUNT_NOTICED");
    letters_taken(q, in.tag, in.error.len == 0);
    return 0;
}

static int on_frame(struct channel *channel, const struct ipc_frame *f, int fd, void *arg,
                    struct err *e)
{
    struct quota *q = arg;
    (void)channel, (void)fd; /* no message of qmgr's has one */
    int rc;
    switch (f->number) {
    case IPC_NUMBER_ipc_charges:
        rc = on_charges(q, f->body, e);
        break;
    case IPC_NUMBER_ipc_charges_gone:
        rc = on_gone(q, f->body, e);
        break;
    case IPC_NUMBER_ipc_account_noticed:
        rc = on_noticed(q, f->body, e);
        break;
    default:
        rc = err_set(e, "%s is not for quota", ipc_name(f->number));
    }
    return rc;
}

static void on_closed(struct channel *channel, const char *why, void *arg)
{
    struct quota *q = arg;
    if (q->book.channel != channel)
        return;
    if (!q->s->draining)
        log_warning("the channel to qmgr is gone: %s", why);
    q->book.channel = NULL;
    q->book.query = 0;
}

void book_peer(struct quota *q, int fd)
{
    static const struct channel_ops ops = {on_frame, on_closed};
    struct channel *old = q->book.channel;
    q->book.channel = NULL;
    if (old)
        channel_free(old);
    q->book.generation++;
    q->book.asked = false; /* a batch of the channel before: it is sent again */
    q->book.query = 0;
    q->book.next_sweep = clock_mono() + 2 * CLOCK_SECOND;
    q->book.sweep.len = 0;
    q->book.channel = channel_new(q->s->base, fd, "qmgr", &ops, q);
    ipc_charges_ready_encode(channel_out(q->book.channel),
                             &(struct ipc_charges_ready){.credit = BATCH_CREDIT});
    letters_connected(q);
}

/* ---- old charges
 * --------------------------------------------------------------------------------- */

struct sweep {
    struct quota *q;
    struct buf batch; /* removals */
    struct buf ids;   /* of a question to qmgr */
    unsigned seen, asked;
    int64_t now;
    bool end;
};

static void sweep_one(struct sweep *s, struct slice key, const struct charge *c)
{
    struct entry *x = map_get(&s->q->book.open, key);
    if (x)
        c = &x->c; /* newer than the record */
    if (c->closed_at && s->now - c->closed_at >= CLOSED_SECONDS) {
        if (x && x->dirty)
            return;
        if (x)
            entry_free(s->q, x);
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

static void sweep(struct quota *q)
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
    if (s.asked && q->book.channel) {
        static uint64_t tag;
        q->book.query = ++tag;
        ipc_charges_query_encode(channel_out(q->book.channel),
                                 &(struct ipc_charges_query){.tag = tag, .ids = buf_slice(&s.ids)});
    }
    if (s.end) {
        q->book.sweep.len = 0;
        q->book.next_sweep = clock_mono() + SWEEP_SECONDS * CLOCK_SECOND;
    }
    buf_free(&s.batch);
    buf_free(&s.ids);
}

/* ---- messages held for a rate
 * ---------------------------------------------------------------------- */

struct releasing {
    struct quota *q;
    struct buf batch;
    unsigned count;
    int64_t now;
};

static bool on_held(struct slice key, struct slice value, void *arg)
{
    struct releasing *r = arg;
    (void)value;
    if (key.len <= 8 || r->count++ == RELEASE_SLICE ||
        (int64_t)key_last_number(slice_first(key, 8)) > r->now)
        return false;
    ipc_charges_release_encode(channel_out(r->q->book.channel),
                               &(struct ipc_charges_release){.id = slice_from(key, 8)});
    (void)kv_remove(&r->batch, T_HELD, key);
    return true;
}

static void release_held(struct quota *q)
{
    struct err e;
    struct releasing r = {.q = q, .batch = BUF_INIT(KV_BATCH_MAX), .now = quota_now()};
    if (!q->book.channel)
        return;
    if (kv_walk(q->kv, T_HELD, SLICE(""), on_held, &r, &e) < 0)
        panic("%s", e.text);
    if (r.batch.len)
        sync_apply(q, buf_slice(&r.batch), NULL, NULL);
    buf_free(&r.batch);
}

void book_tick(struct quota *q)
{
    if (!q->book.open.key) {
        map_init(&q->book.open, entry_key);
        list_init(&q->book.recent);
        list_init(&q->book.dirty);
        list_init(&pasts);
        buf_init(&extra, KV_BATCH_MAX / 2);
    }
    book_turn(q); /* counted by itself, such as a spike */
    sweep(q);
    release_held(q);
}

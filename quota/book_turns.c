/*
 * Mail that is held for its account's rate, when that rate is another one: the account gets
 * another plan, or plans_file says something else. All that waits for a turn to come is taken back
 * first: it is counted for no window any more, and parked. Then it gets its turns again by the
 * rates of now, as all that is parked does (book_held.c): account by account, and that of each in
 * the order in which it came.
 *
 * That this is to be done is in the database as long, so a crash at any time ends nothing: it
 * begins anew then.
 */
#include <openssl/sha.h>

#include "core/mem.h"
#include "quota/book.h"
#include "quota/rates.h"

enum {
    TAKE_SLICE = 500,   /* messages in one turn of the loop */
    START_SECONDS = 10, /* plans_file, if there is one, has come by then */
    NAMES_MAX = 1000    /* accounts that are told apart; of more it is all */
};

static const char MARK[] = "turns";  /* T_META: it is to be done */
static const char RATES[] = "rates"; /* T_META: a hash of what all plans say of them */

/* ---- what is to be done ------------------------------------------------------------------- */

static void mark(struct buf *batch)
{
    if (kv_put(batch, T_META, slice_str(MARK), SLICE("1")) < 0)
        panic("a batch that is full");
}

static void add(json_t **names, bool *all, const char *account)
{
    if (!account)
        *all = true;
    else if (!*names)
        *names = json_object();
    if (account)
        json_object_set_new(*names, account, json_true());
    if (json_object_size(*names) > NAMES_MAX)
        *all = true;
}

static void wanted(struct turns *t, const char *account)
{
    if (t->taking || t->filing)
        add(&t->next, &t->next_all, account);
    else
        add(&t->accounts, &t->all, account);
}

void book_rates_changed(struct quota *q, struct buf *batch, const char *account)
{
    mark(batch);
    wanted(&q->turns, account);
    q->turns.changed = clock_mono();
}

void book_check_turn(struct quota *q, const struct entry *x, const struct reservation *r)
{
    if (r->at > q->turns.changed || x->c.level_count == 0)
        return;
    mark(book_extra(q));
    wanted(&q->turns, x->c.levels[0].account);
}

/* All that turns are reckoned from. */
static void rates_hash(const struct plans *plans, unsigned char out[static SHA256_DIGEST_LENGTH])
{
    struct buf text = BUF_INIT(PLANS_FILE_MAX);
    for (size_t i = 0; i < plans->count; i++) {
        const struct plan *p = &plans->list[i];
        const struct plan_rate *rates[] = {p->user_rates, p->account_rates};
        (void)buf_printf(&text, "%s %s %u", p->name, p->zone_name, p->rate_action);
        for (unsigned k = 0; k < 2; k++)
            for (unsigned n = 0; n < PLAN_RATES_MAX && rates[k][n].count; n++)
                (void)buf_printf(&text, " %u %llu/%u", k, (unsigned long long)rates[k][n].count,
                                 rates[k][n].unit);
        buf_addc(&text, '\n');
    }
    SHA256((const unsigned char *)(text.data ? text.data : ""), text.len, out);
    buf_free(&text);
}

/* Also if it was changed while this process did not run. */
void book_plans_read(struct quota *q)
{
    unsigned char hash[SHA256_DIGEST_LENGTH] = {0};
    const struct slice fresh = slice_make(hash, sizeof hash);
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    q->turns.plans_read = true;
    rates_hash(&q->plans, hash);
    if (quota_get(q, T_META, slice_str(RATES)) && slice_eq(buf_slice(&q->value), fresh))
        return;
    if (kv_put(&batch, T_META, slice_str(RATES), fresh) < 0)
        panic("a batch that is full");
    book_rates_changed(q, &batch, NULL);
    sync_apply(q, buf_slice(&batch), NULL, NULL);
    buf_free(&batch);
}

void book_turns_restored(struct quota *q)
{
    q->turns.all = quota_get(q, T_META, slice_str(MARK));
}

bool book_is_timing(const struct quota *q)
{
    return !q->turns.filing && (q->turns.taking || q->turns.all || q->turns.accounts);
}

/* ---- taking back ----------------------------------------------------------------------- */

/* One whose plan is missing goes on by what was known: it is timed again when that is there. */
static bool concerns(const struct quota *q, const struct entry *x, const struct counted *k)
{
    bool changed = q->turns.all;
    for (unsigned i = 0; i < k->levels; i++) {
        if (k->accounts[i] && k->accounts[i]->plan_missing)
            return false;
        changed = changed || json_object_get(q->turns.accounts, x->c.levels[i].account);
    }
    return changed && k->levels > 0;
}

static void take_back(struct quota *q, struct slice key)
{
    struct slice id = slice_from(key, 8);
    struct entry *x = book_entry_find(q, id);
    struct counted k;
    int64_t now = quota_now();
    /* that whose turn has come is on its way */
    if (!x || x->c.open == 0 || (int64_t)key_last_number(slice_first(key, 8)) <= now)
        return;
    book_find_counted(q, &x->c, &k);
    if (!concerns(q, x, &k))
        return;
    const struct rates_held held = {x->c.open, x->c.charged_at,
                                    (int64_t)key_last_number(slice_first(key, 8))};
    for (unsigned i = 0; i < k.levels; i++) {
        if (!k.accounts[i])
            continue;
        const struct plan *p = k.accounts[i]->plan;
        rates_take_back(&k.parties[i]->tally, p, p->account_rates, &held, now);
        party_touched(q, k.parties[i]);
        if (i == 0 && k.user) {
            rates_take_back(&k.user->tally, p, p->user_rates, &held, now);
            party_touched(q, k.user);
        }
    }
    if (kv_remove(book_extra(q), T_HELD, key) < 0)
        panic("a batch that is full");
    book_park(book_extra(q), x->c.levels[0].account, 0, id);
}

/* All is taken back: it is parked, and gone through from the first on. */
static void taken(struct quota *q)
{
    struct turns *t = &q->turns;
    json_decref(t->accounts);
    t->accounts = NULL;
    t->all = t->taking = false;
    t->filing = true;
    t->at.len = 0;
}

bool book_take_back(struct quota *q)
{
    struct turns *t = &q->turns;
    bool late = clock_mono() - q->book.began > START_SECONDS * CLOCK_SECOND;
    if (!book_is_timing(q) || (!t->plans_read && !late))
        return false;
    if (!t->taking) {
        t->taking = true;
        t->at.len = 0;
        key_number(&t->at, (uint64_t)quota_now());
    }
    struct gathered g = {.max = TAKE_SLICE};
    struct key from = t->at;
    book_gather(q, T_HELD, key_slice(&from), &g);
    struct slice keys = buf_slice(&g.keys), key;
    while (book_next_key(&keys, &key)) {
        t->at.len = 0;
        key_add(&t->at, key);
        book_make_room(q);
        take_back(q, key);
    }
    key_add(&t->at, SLICE("\0")); /* behind it */
    if (g.count < g.max)
        taken(q);
    buf_free(&g.keys);
    q->book.unsynced = true;
    book_apply(q); /* with the tallies, in one transaction */
    return true;
}

void book_filed(struct quota *q)
{
    struct turns *t = &q->turns;
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    t->filing = false;
    t->all = t->next_all;
    t->accounts = t->next;
    t->next_all = false;
    t->next = NULL;
    if (!t->all && !t->accounts) {
        if (kv_remove(&batch, T_META, slice_str(MARK)) < 0)
            panic("a batch that is full");
        sync_apply(q, buf_slice(&batch), NULL, NULL);
    }
    buf_free(&batch);
}

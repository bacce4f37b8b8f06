/*
 * Counting: qmgr tells of messages and of what became of their recipients, and
 * repeats itself after any crash; each is counted once.
 */
#include "core/log.h"
#include "core/mem.h"
#include "quota/book.h"
#include "quota/rates.h"

enum { REPLY_KEPT = 300 /* bytes of a failure's reply, for reports */ };

void book_find_counted(struct quota *q, const struct charge *c, struct counted *out)
{
    *out = (struct counted){.levels = c->level_count};
    for (unsigned i = 0; i < c->level_count; i++) {
        struct account *a = account_find(q, slice_str(c->levels[i].account));
        if (a && a->since > c->charged_at)
            a = NULL;
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
    /* accounts that were made while the clock was ahead count as well */
    for (unsigned i = 0; i < n; i++)
        c->charged_at = chain[i]->since > c->charged_at ? chain[i]->since : c->charged_at;
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

/* Where nothing is known of the account's plan any more, the period stays billed as it was. */
static const struct plan *billing_plan(const struct account *a, const struct plan_usage *u,
                                       struct plan *as_it_was)
{
    if (!a->plan_missing || a->plan != &plan_unlimited || !*u->terms.plan)
        return a->plan;
    *as_it_was = plan_unlimited;
    memcpy(as_it_was->name, u->terms.plan, sizeof as_it_was->name);
    as_it_was->messages = u->terms.messages;
    as_it_was->bytes = u->terms.bytes;
    as_it_was->overage_block = u->terms.overage_block;
    as_it_was->overage_bytes = u->terms.overage_bytes;
    return as_it_was;
}

static void count_charge(struct quota *q, struct entry *x)
{
    struct counted k;
    struct plan as_it_was;
    const struct charge *c = &x->c;
    int64_t now = quota_now();
    book_find_counted(q, c, &k);
    for (unsigned i = 0; i < k.levels; i++) {
        struct account *a = k.accounts[i];
        if (!a)
            continue;
        rates_roll(&k.parties[i]->tally, a->plan, a->plan->account_rates, now);
        rates_add(&k.parties[i]->tally, c->recipients, now);
        struct plan_usage *u = book_usage(q, k.parties[i], c->levels[i].period);
        const struct plan *plan = billing_plan(a, u, &as_it_was);
        plan_told_anew(plan, u, a->grants, a->grant_count, now);
        plan_charge(plan, u, a->grants, a->grant_count, volume_of(c, i, c->recipients), now);
        if (a->grant_count)
            account_touched(q, a);
    }
    if (k.user) {
        rates_roll(&k.user->tally, k.accounts[0]->plan, k.accounts[0]->plan->user_rates, now);
        rates_add(&k.user->tally, c->recipients, now);
        plan_charge(&plan_unlimited, book_usage(q, k.user, c->levels[0].period), NULL, 0,
                    volume_of(c, 0, c->recipients), now);
    }
    book_entry_touched(q, x);
    q->book.charged += c->recipients;
    for (unsigned i = 0; i < k.levels; i++)
        if (k.accounts[i])
            letters_after_charge(q, k.accounts[i], k.parties[i]);
}

static void count_end(struct quota *q, struct entry *x, const struct counted *k, uint64_t count,
                      enum charge_state state)
{
    const struct charge *c = &x->c;
    for (unsigned i = 0; i < k->levels; i++) {
        struct account *a = k->accounts[i];
        if (!a)
            continue;
        struct plan_usage *u = book_usage(q, k->parties[i], c->levels[i].period);
        if (state == CHARGE_DELIVERED)
            plan_delivered(u, volume_of(c, i, count));
        else
            plan_refund(a->plan, u, a->grants, a->grant_count, volume_of(c, i, count));
        if (a->grant_count && state == CHARGE_REFUNDED)
            account_touched(q, a);
    }
    if (k->user) {
        struct plan_usage *u = book_usage(q, k->user, c->levels[0].period);
        if (state == CHARGE_DELIVERED)
            plan_delivered(u, volume_of(c, 0, count));
        else
            plan_refund(&plan_unlimited, u, NULL, 0, volume_of(c, 0, count));
    }
    book_entry_touched(q, x);
}

/* ---- what qmgr says ------------------------------------------------------------------ */

/* RESERVED asked for a hold: by guard or rate. */
static bool skips_hold(const struct reservation *r, const struct ipc_charge *in)
{
    return (r->held && !(in->flags & CHARGE_HELD)) ||
           (r->held_until && !(in->flags & CHARGE_HELD_RATE));
}

/* What smtpd wrote into COMMIT is its word; what it reserved, with whose ticket, is known. An
 * smtpd that was taken over gains nothing by naming another owner, or less than there is. */
static void check_claim(const struct quota *q, const struct reservation *r, struct ipc_charge *in)
{
    const char *id = log_esc(in->id);
    bool same = r && slice_eq(in->owner, slice_str(r->owner));
    if (r && (!same || in->recipients != r->recipients || in->size != r->size)) {
        log_error(
            "%s: ALARM: %s reserved it for %s, %u recipients, %llu bytes, and it was committed "
            "as mail of %s, %u recipients, %llu bytes: an smtpd process may have been taken "
            "over; it is charged to %s",
            id, r->s ? channel_name(r->s->channel) : "an smtpd that is gone", r->owner,
            r->recipients, (unsigned long long)r->size, log_esc(in->owner), in->recipients,
            (unsigned long long)in->size, r->owner);
        in->owner = slice_str(r->owner);
        in->size = in->size > r->size ? in->size : r->size;
    } else if (r && (in->flags & CHARGE_FRESH) && skips_hold(r, in)) {
        log_error("%s: ALARM: %s was told to have it held, and it was committed without that: the "
                  "process may have been taken over; it is mail of %s, and on its way",
                  id, r->s ? channel_name(r->s->channel) : "an smtpd that is gone", r->owner);
    } else if (!r && (in->flags & CHARGE_FRESH) &&
               clock_mono() - q->book.began > 2 * RESERVE_SECONDS * CLOCK_SECOND) {
        log_error("%s: ALARM: it was committed as mail of %s, which nobody had reserved: an smtpd "
                  "process may have been taken over; it is charged to that account",
                  id, log_esc(in->owner));
    }
}

/* The message is known already: a crash may have taken qmgr's or our word of its hold. */
static void charged_before(struct quota *q, struct entry *x, const struct ipc_charge *in)
{
    q->book.repeated++;
    if (x->c.closed_at) { /* it was over, and is in the spool again: kept until it is gone */
        x->c.closed_at = 0;
        book_entry_touched(q, x);
    }
    if ((in->flags & CHARGE_HELD_RATE) && x->c.open && !book_is_parked(q, x))
        book_hold(q, x, x->c.held_until ? x->c.held_until : quota_now());
}

static int take_charge(struct quota *q, struct ipc_charge *in, struct err *e)
{
    if (!id_valid(in->id) || in->recipients == 0 || in->recipients > CHARGE_RECIPIENTS_MAX ||
        in->owner.len > OWNER_MAX)
        return err_set(e, "a malformed charge");
    if (in->flags & CHARGE_LETTER) {
        letters_stored(q, in->id);
        return 0;
    }
    const struct reservation *r = gate_reservation(q, in->id);
    struct entry *x = map_get(&q->book.open, in->id);
    /* new, and reserved: no need to look it up */
    if (!x && !(r && (in->flags & CHARGE_FRESH)))
        x = book_entry_find(q, in->id);
    if (x) {
        gate_charged(q, in->id);
        charged_before(q, x, in);
        return 0;
    }
    check_claim(q, r, in);
    x = book_entry_new(q, in->id);
    new_charge(q, in, x);
    if (in->flags & CHARGE_HELD_RATE)
        book_hold(q, x, r && r->held_until ? r->held_until : quota_now());
    if ((in->flags & CHARGE_HELD_RATE) && r && r->held_until)
        book_check_turn(q, x, r);
    gate_charged(q, in->id); /* what it points to is needed until here */
    count_charge(q, x);
    return 0;
}

static void failure_key(struct key *k, const char *account, int64_t time, const struct entry *x,
                        uint32_t index)
{
    key_begin(k, slice_str(account));
    key_number(k, (uint64_t)time);
    key_add(k, book_entry_key(x));
    key_number(k, index);
}

/* For the account's report: whom it could not be delivered to, and why. */
static void note_failure(struct quota *q, const struct entry *x, const struct ipc_settlement *in,
                         uint32_t index)
{
    struct key k;
    const struct charge *c = &x->c;
    const int64_t now = quota_now();
    if (c->level_count == 0 || in->address.len == 0)
        return;
    failure_key(&k, c->levels[0].account, now, x, index);
    struct buf address = BUF_INIT(2000), reply = BUF_INIT(2000);
    buf_add_escaped(&address, in->address, ADDRESS_TEXT_MAX);
    buf_add_escaped(&reply, in->reply, REPLY_KEPT);
    json_t *j =
        json_pack("{s:s,s:s,s:s%,s:s%}", "id", x->id, "user", c->user, "recipient", address.data,
                  address.len, "reply", reply.data ? reply.data : "", reply.len);
    if (j)
        quota_put_json(book_extra(q), T_FAILURE, key_slice(&k), j);
    json_decref(j);
    /* the reports of those above it have it, too */
    j = json_pack("{s:s}", FAILURE_OF, c->levels[0].account);
    for (unsigned i = 1; j && i < c->level_count; i++) {
        failure_key(&k, c->levels[i].account, now, x, index);
        quota_put_json(book_extra(q), T_FAILURE, key_slice(&k), j);
    }
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

static uint32_t index_at(struct slice list, size_t at)
{
    uint32_t index = 0;
    for (int i = 3; i >= 0; i--)
        index = index << 8 | (unsigned char)list.ptr[at + (size_t)i];
    return index;
}

/* `gone`: qmgr does not have the message any more. */
static int take_settlement(struct quota *q, const struct ipc_settlement *in, bool gone,
                           struct err *e)
{
    struct counted k;
    uint64_t count = 0;
    if (!id_valid(in->id) || in->recipients.len % 4 ||
        (in->state != CHARGE_DELIVERED && in->state != CHARGE_REFUNDED) ||
        (in->address.len && in->recipients.len > 4)) /* an address is of one recipient */
        return err_set(e, "a malformed settlement");
    struct entry *x = book_entry_find(q, in->id);
    if (!x) {
        q->book.strangers++;
        return 0;
    }
    for (size_t at = 0; at < in->recipients.len; at += 4) /* B92: before the first change */
        if (index_at(in->recipients, at) >= x->c.recipients)
            return err_set(e, "a settlement of recipient %u of %u", index_at(in->recipients, at),
                           x->c.recipients);
    book_find_counted(q, &x->c, &k);
    for (size_t at = 0; at < in->recipients.len; at += 4) {
        uint32_t index = index_at(in->recipients, at);
        bool counts = settle_one(x, index, in->state);
        if (counts && in->state == CHARGE_REFUNDED)
            note_failure(q, x, in, index);
        count += counts;
    }
    for (uint32_t i = 0; in->recipients.len == 0 && i < x->c.recipients; i++)
        count += settle_one(x, i, in->state);
    if (x->c.open == 0 && x->c.closed_at == 0 && (count || gone)) {
        x->c.closed_at = quota_now();
        book_entry_touched(q, x);
    }
    if (count == 0)
        return 0;
    *(in->state == CHARGE_DELIVERED ? &q->book.delivered : &q->book.refunded) += count;
    count_end(q, x, &k, count, in->state);
    return 0;
}

int book_charges(struct quota *q, struct slice body, struct err *e)
{
    struct ipc_charges in;
    struct ipc_charge charge;
    struct ipc_settlement settlement;
    if (ipc_charges_decode(body, &in) < 0)
        return err_set(e, "malformed CHARGES");
    struct ipc_cursor c = ipc_list_cursor(in.charges), s = ipc_list_cursor(in.settlements);
    while (ipc_charge_next(&c, &charge)) {
        book_make_room(q);
        if (take_charge(q, &charge, e) < 0)
            return -1;
    }
    while (ipc_settlement_next(&s, &settlement)) {
        book_make_room(q);
        if (take_settlement(q, &settlement, false, e) < 0)
            return -1;
    }
    if (c.failed || s.failed)
        return err_set(e, "malformed CHARGES");
    q->book.batch = in.batch;
    q->book.unsynced = q->book.asked = true;
    return 0;
}

/* ---- messages that are gone ---------------------------------------------------------- */

static const char RESTORED[] = "restored"; /* T_META: struct book's, in digits */

void book_restored_put(struct quota *q, struct buf *batch)
{
    char text[24];
    q->book.restored = quota_now();
    snprintf(text, sizeof text, "%lld", (long long)q->book.restored);
    if (kv_put(batch, T_META, slice_str(RESTORED), slice_str(text)) < 0)
        panic("a batch that is full");
}

int book_restored(struct quota *q, struct err *e)
{
    uint64_t at = 0;
    if (quota_get(q, T_META, slice_str(RESTORED)) && slice_u64(buf_slice(&q->value), &at) == 0 &&
        at < INT64_MAX)
        q->book.restored = (int64_t)at;
    if (!kv_is_restored(q->kv))
        return 0;
    struct buf batch = BUF_INIT(4096);
    book_restored_put(q, &batch);
    int rc = kv_apply(q->kv, buf_slice(&batch), e);
    buf_free(&batch);
    if (rc < 0 || kv_sync(q->kv, e) < 0 || kv_restored_noted(q->kv, e) < 0)
        return -1;
    log_warning("the accounts' database is a snapshot that was put in its place: mail that was on "
                "its way when it was made, and has left the queue since, is given back to its "
                "accounts; what became of it is in the log of mail alone");
    return 0;
}

/* What became of it was told, and is lost with the database that heard it: it is not billed. */
static uint8_t state_of_gone(struct quota *q, struct slice id)
{
    const struct entry *x = q->book.restored && id_valid(id) ? book_entry_find(q, id) : NULL;
    if (!x || x->c.open == 0 || x->c.charged_at > q->book.restored)
        return CHARGE_DELIVERED;
    log_info("%.*s: has left the queue after the accounts' snapshot or export was made: %u "
             "recipients are given back",
             SLICE_ARG(id), x->c.open);
    return CHARGE_REFUNDED;
}

/* The rest of messages that are gone was delivered: a refund is told before qmgr
 * lets go of a message. */
int book_gone(struct quota *q, struct slice body, struct err *e)
{
    struct ipc_charges_gone in;
    struct ipc_charge_id id;
    if (ipc_charges_gone_decode(body, &in) < 0)
        return err_set(e, "malformed CHARGES_GONE");
    if (q->book.query == 0 || in.tag != q->book.query)
        return err_set(e, "CHARGES_GONE that was not asked for");
    q->book.query = 0;
    if (!q->book.scanned) { /* what is over may be forgotten now... */
        q->book.next_sweep = clock_mono();
        q->book.looked = false; /* ...and what was too young is looked for once more */
    }
    q->book.scanned = true;
    struct ipc_cursor cursor = ipc_list_cursor(in.ids);
    while (ipc_charge_id_next(&cursor, &id)) {
        struct ipc_settlement all = {.id = id.id};
        book_make_room(q);
        all.state = state_of_gone(q, id.id); /* malformed IDs are refused below */
        if (take_settlement(q, &all, true, e) < 0)
            return -1;
    }
    q->book.unsynced = true;
    return cursor.failed ? err_set(e, "malformed CHARGES_GONE") : 0;
}

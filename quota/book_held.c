/*
 * Messages that are held for their account's rate: when their turn comes qmgr is told, and the
 * record of it is removed when qmgr has answered, so that a crash of either at any time loses
 * no message: at worst qmgr is told again.
 *
 * Mail of an account or user that cannot send when the turn comes is parked: it waits for that
 * account or user, costs nothing meanwhile, and gets a new turn when they can send again.
 */
#include "core/fault.h"
#include "core/mem.h"
#include "quota/book.h"
#include "quota/rates.h"

enum {
    RELEASE_SLICE = 500,                    /* messages in one turn of the loop */
    PARKED_LOOKS = 50,                      /* accounts and users that are looked at in one turn */
    FILING_LOOKS = 500,                     /* the same while mail gets other turns */
    KEY_BYTES = OWNER_MAX + 1 + 8 + ID_MAX, /* the longest of T_PARKED; those of T_HELD have no
                                             * owner */
    SOON = 20000,                           /* microseconds to the next turn when there is more */
    LATER = 60 /* seconds until qmgr is told again of what it could not read */
};

/* qmgr was told, and has not answered. */
struct release {
    char id[ID_MAX + 1];
    int64_t until;
};

static struct slice release_key(const void *value)
{
    return slice_str(((const struct release *)value)->id);
}

static void on_soon(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    book_release(arg);
}

void book_held_init(struct quota *q)
{
    map_init(&q->book.releasing, release_key);
    q->book.release_soon = event_new(q->s->base, -1, 0, on_soon, q);
    if (!q->book.release_soon)
        panic("cannot make a timer");
    book_turns_restored(q);
}

void book_release_again(struct quota *q)
{
    if (q->book.releasing.key)
        map_clear(&q->book.releasing, free);
}

static void again_soon(struct quota *q)
{
    const struct timeval soon = {0, SOON};
    event_add(q->book.release_soon, &soon);
}

static void held_key(struct key *k, int64_t until, struct slice id)
{
    k->len = 0;
    key_number(k, (uint64_t)until);
    key_add(k, id);
}

static void put(struct buf *batch, enum table t, const struct key *k)
{
    if (kv_put(batch, t, key_slice(k), SLICE("")) < 0)
        panic("a batch that is full");
}

/* In the same transaction as the charge, so qmgr knows the one only with the other. */
void book_hold(struct quota *q, struct entry *x, int64_t until)
{
    struct key k;
    held_key(&k, until, book_entry_key(x));
    put(book_extra(q), T_HELD, &k);
    x->c.held_until = until;
    book_entry_touched(q, x);
}

static bool is_suspended(struct quota *q, const struct account *a, const char *login)
{
    struct user u;
    return *login && user_find(q, slice_str(login), &u) == 1 && u.suspended &&
           strcmp(u.account, a->name) == 0;
}

/* Who cannot send, so that the message cannot: "account", or "account/user". False: it may go. */
static bool stopped_by(struct quota *q, const struct entry *x, char owner[static OWNER_MAX + 1])
{
    const char *why;
    struct account *a =
        x && x->c.level_count ? account_find(q, slice_str(x->c.levels[0].account)) : NULL;
    const struct account *stop = a ? account_stopped(q, a, &why) : NULL;
    if (stop)
        snprintf(owner, OWNER_MAX + 1, "%s", stop->name);
    else if (a && is_suspended(q, a, x->c.user))
        snprintf(owner, OWNER_MAX + 1, "%s/%s", a->name, x->c.user);
    else
        return false;
    return true;
}

/* The same of one who had mail parked: for what is parked there, nothing has changed. */
static bool still_stopped(struct quota *q, struct slice owner)
{
    const char *why;
    char login[LOGIN_MAX + 1];
    struct slice user = owner, name = slice_cut(&user, '/');
    struct account *a = account_find(q, name);
    if (!a)
        return false;
    if (user.len == 0)
        return account_stopped(q, a, &why) == a;
    return name_login(user, login) == 0 && is_suspended(q, a, login);
}

/* ---- keys of a slice ------------------------------------------------------------------- */

static bool on_key(struct slice key, struct slice value, void *arg)
{
    struct gathered *g = arg;
    (void)value;
    const char len[2] = {(char)(key.len >> 8), (char)key.len};
    if (g->count == g->max || key.len > KEY_BYTES || !slice_starts(key, g->prefix) ||
        (g->until && (key.len <= 8 || (int64_t)key_last_number(slice_first(key, 8)) > g->until)))
        return false;
    g->count++;
    return buf_adds(&g->keys, slice_make(len, 2)) == 0 && buf_adds(&g->keys, key) == 0;
}

void book_gather(struct quota *q, enum table t, struct slice from, struct gathered *g)
{
    struct err e;
    g->keys = BUF_INIT((size_t)g->max * (2 + KEY_BYTES));
    if (kv_walk(q->kv, t, from, on_key, g, &e) < 0)
        panic("%s", e.text);
}

bool book_next_key(struct slice *keys, struct slice *out)
{
    if (keys->len == 0)
        return false;
    size_t len = (size_t)(unsigned char)keys->ptr[0] << 8 | (unsigned char)keys->ptr[1];
    *out = slice_first(slice_from(*keys, 2), len);
    *keys = slice_from(*keys, 2 + len);
    return true;
}

static void apply(struct quota *q, struct buf *batch)
{
    if (batch->len)
        sync_apply(q, buf_slice(batch), NULL, NULL);
    buf_free(batch);
}

/* ---- those whose turn has come ------------------------------------------------------------ */

static void parked_key(struct key *k, const char *owner, int64_t until, struct slice id)
{
    key_begin(k, slice_str(owner));
    key_number(k, (uint64_t)until);
    key_add(k, id);
}

void book_park(struct buf *batch, const char *owner, int64_t until, struct slice id)
{
    struct key k;
    parked_key(&k, owner, until, id);
    put(batch, T_PARKED, &k);
}

static bool is_parked_with(struct quota *q, const struct entry *x, const char *owner)
{
    struct key taken_back, held;
    parked_key(&taken_back, owner, 0, book_entry_key(x));
    parked_key(&held, owner, x->c.held_until, book_entry_key(x));
    return quota_get(q, T_PARKED, key_slice(&taken_back)) ||
           quota_get(q, T_PARKED, key_slice(&held));
}

bool book_is_parked(struct quota *q, const struct entry *x)
{
    char owner[OWNER_MAX + 1];
    for (unsigned i = 0; i < x->c.level_count; i++)
        if (is_parked_with(q, x, x->c.levels[i].account))
            return true;
    if (x->c.level_count == 0 || !*x->c.user)
        return false;
    snprintf(owner, sizeof owner, "%s/%s", x->c.levels[0].account, x->c.user);
    return is_parked_with(q, x, owner);
}

static void tell_qmgr(struct quota *q, struct slice id, int64_t until)
{
    struct release *r = xcalloc(1, sizeof *r);
    snprintf(r->id, sizeof r->id, "%.*s", SLICE_ARG(id));
    r->until = until;
    free(map_put(&q->book.releasing, r));
    ipc_charges_release_encode(channel_out(q->book.channel),
                               &(struct ipc_charges_release){.id = id});
}

/* True if there may be more. */
static bool release_due(struct quota *q)
{
    struct gathered g = {.max = RELEASE_SLICE, .until = quota_now()};
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    char owner[OWNER_MAX + 1];
    book_gather(q, T_HELD, SLICE(""), &g);
    struct slice keys = buf_slice(&g.keys), key;
    fault_point("quota.release");
    while (book_next_key(&keys, &key)) {
        struct slice id = slice_from(key, 8);
        int64_t until = (int64_t)key_last_number(slice_first(key, 8));
        book_make_room(q);
        if (stopped_by(q, book_entry_find(q, id), owner)) {
            (void)kv_remove(&batch, T_HELD, key);
            book_park(&batch, owner, until, id);
        } else {
            tell_qmgr(q, id, until);
        }
    }
    apply(q, &batch);
    buf_free(&g.keys);
    return g.count == g.max;
}

int book_released(struct quota *q, struct slice body, struct err *e)
{
    struct ipc_charges_released in;
    struct key k;
    if (ipc_charges_released_decode(body, &in) < 0 || in.later > 1)
        return err_set(e, "malformed CHARGES_RELEASED");
    struct release *r = map_remove(&q->book.releasing, in.id);
    if (!r)
        return err_set(e, "CHARGES_RELEASED that was not asked for");
    fault_point("quota.released");
    held_key(&k, r->until, in.id);
    if (kv_remove(book_extra(q), T_HELD, key_slice(&k)) < 0)
        panic("a batch that is full");
    free(r);
    struct entry *x = in.later ? book_entry_find(q, in.id) : NULL;
    if (x)
        book_hold(q, x, quota_now() + LATER);
    if (q->book.releasing.count == 0)
        again_soon(q);
    return 0;
}

/* ---- those that wait for their account or user ---------------------------------------- */

/* When it may go: the rates go on counting, and what did not go in its turn is not among what
 * they have counted since. */
static int64_t new_turn(struct quota *q, const struct entry *x, int64_t until)
{
    struct counted k;
    int64_t now = quota_now(), turn = now, t;
    book_find_counted(q, &x->c, &k);
    for (unsigned i = 0; i < k.levels; i++) {
        if (!k.accounts[i])
            continue;
        const struct plan *p = k.accounts[i]->plan;
        struct party *user = i == 0 ? k.user : NULL;
        t = rates_again(&k.parties[i]->tally, p, p->account_rates, x->c.open, until, now);
        turn = t > turn ? t : turn;
        t = user ? rates_again(&user->tally, p, p->user_rates, x->c.open, until, now) : now;
        turn = t > turn ? t : turn;
        party_touched(q, k.parties[i]);
        if (user)
            party_touched(q, user);
    }
    return turn;
}

/* All that changes is written in one transaction: what was counted for the new turn, too. */
static void unpark(struct quota *q, struct slice key)
{
    struct slice rest = key;
    (void)slice_cut(&rest, '\0');
    struct slice id = slice_from(rest, 8);
    int64_t until = (int64_t)key_last_number(slice_first(rest, 8));
    struct entry *x = book_entry_find(q, id);
    char owner[OWNER_MAX + 1];
    struct key k;
    bool stopped = stopped_by(q, x, owner); /* another one: of those above it, or its user */
    int64_t turn = !stopped && x && x->c.open ? new_turn(q, x, until) : quota_now();
    if (kv_remove(book_extra(q), T_PARKED, key) < 0)
        panic("a batch that is full");
    if (stopped) {
        book_park(book_extra(q), owner, until, id);
        return;
    }
    held_key(&k, turn, id);
    put(book_extra(q), T_HELD, &k);
    if (!x)
        return;
    x->c.held_until = turn;
    book_entry_touched(q, x);
}

/* An account or user with parked mail, or with such that was taken back; how much it looked at,
 * 0: it still has to wait. */
static unsigned look_at(struct quota *q, struct slice name, bool taken_back, unsigned most)
{
    struct key prefix;
    key_begin(&prefix, name);
    if (taken_back)
        key_number(&prefix, 0);
    if (still_stopped(q, name))
        return 0;
    struct gathered g = {.max = most, .prefix = key_slice(&prefix)};
    book_gather(q, T_PARKED, g.prefix, &g);
    struct slice keys = buf_slice(&g.keys), key;
    while (book_next_key(&keys, &key)) {
        book_make_room(q);
        unpark(q, key);
    }
    book_apply(q); /* the charges, with their new times, and the rates */
    buf_free(&g.keys);
    return g.count;
}

/* Goes on with who has parked mail from *at. False: there is none behind it. */
static bool next_owner(struct quota *q, struct key *at, bool taken_back, unsigned *left)
{
    struct gathered g = {.max = 1};
    struct slice keys, key;
    struct key from = *at;
    book_gather(q, T_PARKED, key_slice(&from), &g);
    keys = buf_slice(&g.keys);
    at->len = 0;
    bool any = book_next_key(&keys, &key);
    if (any) {
        struct slice name = slice_first(key, slice_chr(key, '\0'));
        unsigned n = look_at(q, name, taken_back, *left);
        key_add(at, name);
        key_add(at, n == *left ? SLICE("\0") : SLICE("\1")); /* more of it, or the next one */
        *left -= n;
    }
    buf_free(&g.keys);
    return any;
}

/* Goes round all of them, some in each turn. True if there is more to do at once. */
static bool resume_parked(struct quota *q)
{
    unsigned left = RELEASE_SLICE;
    for (int i = 0; i < PARKED_LOOKS && left; i++)
        if (!next_owner(q, &q->book.parked, false, &left))
            return false; /* once round */
    return left < RELEASE_SLICE;
}

/* What was taken back gets its turns, however many others have mail parked. True: there is more
 * to do at once. */
static bool file_taken_back(struct quota *q)
{
    unsigned left = RELEASE_SLICE;
    for (int i = 0; i < FILING_LOOKS && left; i++)
        if (!next_owner(q, &q->turns.at, true, &left)) {
            book_filed(q);
            break;
        }
    return true;
}

void book_look_at(struct quota *q, const char *account, const char *user)
{
    struct key *k = &q->book.parked;
    k->len = 0;
    key_add(k, slice_str(account));
    key_add(k, slice_str(*user ? "/" : ""));
    key_add(k, slice_str(user));
    key_add(k, SLICE("\0"));
}

void book_release(struct quota *q)
{
    if (!q->book.channel || !q->book.ready || q->book.releasing.count)
        return;
    if (q->book.unsynced)
        book_apply(q); /* what was answered is not looked at again */
    bool more = release_due(q);
    more = book_take_back(q) || more;
    if (q->turns.filing)
        more = file_taken_back(q) || more;
    else if (!book_is_timing(q))
        more = resume_parked(q) || more;
    if (more && q->book.releasing.count == 0)
        again_soon(q);
}

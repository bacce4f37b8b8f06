/* May it be sent? At MAIL as far as can be told, at the end of data for good. */
#include "core/log.h"
#include "core/mem.h"
#include "quota/quota.h"
#include "quota/rates.h"

enum {
    SPIKE_DELAY = 2000, /* milliseconds before COMMIT */
    SPIKE_SECONDS = 3600,
    GOOD_FOR = 1000,        /* milliseconds that an answer to MAIL holds for other messages, */
    GOOD_ROOM = 2000,       /* if so many of them have room, */
    GOOD_SIZE = 256 * 1024, /* each with so many bytes */
    ENOUGH = CHARGE_RECIPIENTS_MAX /* more is never asked for */
};

/* Who asks, and what was found of it. */
struct asking {
    struct quota *q;
    struct account *chain[CHARGE_LEVELS_MAX];
    struct party *parties[CHARGE_LEVELS_MAX]; /* of the chain */
    unsigned levels;
    struct party *user; /* or NULL */
    const char *user_name;
    int64_t now;
};

/* The reply that refuses; code 0: none. */
struct answer {
    uint16_t code;
    const char *enhanced;
    struct buf text;
};

static void refuse(struct answer *a, uint16_t code, const char *enhanced, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void refuse(struct answer *a, uint16_t code, const char *enhanced, const char *format, ...)
{
    va_list args;
    a->code = code;
    a->enhanced = enhanced;
    buf_clear(&a->text);
    va_start(args, format);
    (void)buf_vprintf(&a->text, format, args);
    va_end(args);
}

/* ---- who ------------------------------------------------------------------------- */

static bool identify(struct asking *x, struct quota *q, struct slice ticket, struct answer *no)
{
    static char account[ACCOUNT_NAME_MAX + 1], user[LOGIN_MAX + 1];
    const char *why;
    struct user u;
    *x = (struct asking){.q = q, .user_name = user, .now = quota_now()};
    if (ticket_read(q, ticket, account, user) < 0) {
        refuse(no, 550, "5.7.0", "Error: the login is too long ago, log in again");
        return false;
    }
    struct account *a = account_find(q, slice_str(account));
    if (!a) {
        refuse(no, 550, "5.7.1", "Error: the account does not exist any more");
        return false;
    }
    if (*user && (user_find(q, slice_str(user), &u) != 1 || strcmp(u.account, account) != 0 ||
                  u.suspended)) {
        refuse(no, 550, "5.7.1", "Error: the user is suspended");
        return false;
    }
    if (!account_usable(q, a, &why)) {
        refuse(no, 550, "5.7.1", "Error: %s", why);
        return false;
    }
    x->levels = account_chain(q, a, x->chain);
    for (unsigned i = 0; i < x->levels; i++) {
        x->parties[i] = party_find(q, x->chain[i], SLICE(""));
        rates_roll(&x->parties[i]->tally, x->chain[i]->plan, x->chain[i]->plan->account_rates,
                   x->now);
    }
    if (*user) {
        x->user = party_find(q, a, slice_str(user));
        rates_roll(&x->user->tally, a->plan, a->plan->user_rates, x->now);
    }
    return true;
}

/* ---- what is left --------------------------------------------------------------------- */

/* Messages that may still be taken, as far as that is of interest, and the reply
 * beyond them. */
struct room {
    uint64_t messages; /* of what is wanted */
    uint64_t volume;   /* that rates and plans have, GOOD_ROOM at most */
    struct answer *no;
};

/* Notes that `n` have room; true if that is less than is known of. */
static bool room_shrinks(struct room *r, uint64_t n)
{
    if (n < r->volume)
        r->volume = n;
    if (n >= r->messages)
        return false;
    r->messages = n;
    return true;
}

static void rate_room(const struct asking *x, const struct plan *p, const struct plan_rate *rates,
                      const struct party *party, const char *whose, struct room *r)
{
    const struct plan_rate *full = NULL;
    int64_t next = 0;
    if (p->rate_action != RATE_DEFER)
        return;
    uint64_t n = rates_room(&party->tally, p, rates, party->pending.messages, x->now, &full, &next);
    if (!room_shrinks(r, n))
        return;
    struct buf rate = BUF_INIT(100), when = BUF_INIT(200);
    rates_print(&rate, full);
    plan_print_time(&when, p, next);
    refuse(r->no, 450, "4.7.1", "Error: the %s may send %.*s, more from %.*s on", whose,
           SLICE_ARG(buf_slice(&rate)), SLICE_ARG(buf_slice(&when)));
    buf_free(&rate);
    buf_free(&when);
}

static void plan_room(const struct asking *x, unsigned level, uint64_t size, struct room *r)
{
    const struct account *a = x->chain[level];
    const struct party *p = x->parties[level];
    uint64_t most = r->messages > GOOD_ROOM ? r->messages : GOOD_ROOM;
    uint64_t n = plan_fit(a->plan, &p->usage, a->grants, a->grant_count, p->pending,
                          plan_cost(a->plan, size, 1), most, x->now);
    if (!room_shrinks(r, n))
        return;
    struct buf when = BUF_INIT(200);
    plan_print_time(&when, a->plan, p->usage.period.end);
    if (p->usage.period.end == INT64_MAX)
        refuse(r->no, 550, "5.7.1", "Error: the volume of account %s is used up", a->name);
    else
        refuse(r->no, 550, "5.7.1", "Error: the volume of account %s is used up until %.*s",
               a->name, SLICE_ARG(buf_slice(&when)));
    buf_free(&when);
}

/* For a message of this size with as many recipients as are `wanted`, which is what
 * spares the words of limits that are far away. */
static struct room room_for(const struct asking *x, uint64_t size, uint64_t wanted,
                            struct answer *no)
{
    const struct plan *own = x->chain[0]->plan;
    struct room r = {wanted, GOOD_ROOM, no};
    if (own->recipient_limit && own->recipient_limit < r.messages) {
        r.messages = own->recipient_limit;
        refuse(no, 452, "4.5.3", "Error: a message may have %llu recipients",
               (unsigned long long)own->recipient_limit);
    }
    if (x->user)
        rate_room(x, own, own->user_rates, x->user, "user", &r);
    for (unsigned i = 0; i < x->levels; i++) {
        rate_room(x, x->chain[i]->plan, x->chain[i]->plan->account_rates, x->parties[i], "account",
                  &r);
        plan_room(x, i, size, &r);
    }
    return r;
}

/* What MAIL and the end of data check alike. */
static bool may_send(const struct asking *x, struct slice sender, uint64_t size, struct answer *no)
{
    uint64_t limit = x->chain[0]->plan->size_limit;
    if (x->q->disk_full)
        refuse(no, 452, "4.3.1", "Error: insufficient system storage");
    else if (sender.len && !account_owns(x->q, x->chain[0], sender))
        refuse(no, 553, "5.7.1", "<%s>: Sender address rejected: not owned by account %s",
               log_esc(sender), x->chain[0]->name);
    else if (limit && size > limit)
        refuse(no, 552, "5.3.4", "Error: a message may have %llu bytes", (unsigned long long)limit);
    else
        return true;
    return false;
}

/* Room for a message of this size. Where there is plenty even for large ones, that is
 * the answer, and it holds for a moment. */
static struct room room_at_mail(struct smtpd *s, const struct asking *x, uint64_t size,
                                struct answer *no, struct ipc_mail_answer *out)
{
    uint64_t limit = x->chain[0]->plan->size_limit;
    uint64_t most = limit && limit < GOOD_SIZE ? limit : GOOD_SIZE;
    if (size <= most) {
        struct room r = room_for(x, most, ENOUGH, no);
        if (r.volume >= GOOD_ROOM) {
            out->good_for = GOOD_FOR;
            out->good_size = most;
            s->good++;
            return r;
        }
    }
    no->code = 0;
    return room_for(x, size, ENOUGH, no);
}

int gate_mail(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_mail_request in;
    struct asking x;
    struct answer no = {.text = BUF_INIT(1000)}, more = {.text = BUF_INIT(1000)};
    struct ipc_mail_answer out;
    if (ipc_mail_request_decode(body, &in) < 0)
        return err_set(e, "malformed MAIL_REQUEST");
    out = (struct ipc_mail_answer){.tag = in.tag};
    if (identify(&x, s->q, in.ticket, &no) && may_send(&x, in.sender, in.size, &no)) {
        struct room r = room_at_mail(s, &x, in.size, &more, &out);
        out.recipients = (uint32_t)r.messages;
        if (r.messages == 0) {
            out.code = more.code;
            out.enhanced = slice_str(more.enhanced);
            out.text = buf_slice(&more.text);
        }
        out.more_code = more.code;
        out.more_enhanced = slice_str(more.enhanced);
        out.more_text = buf_slice(&more.text);
    }
    if (no.code) {
        out.code = no.code;
        out.enhanced = slice_str(no.enhanced);
        out.text = buf_slice(&no.text);
    }
    ipc_mail_answer_encode(channel_out(s->channel), &out);
    buf_free(&no.text);
    buf_free(&more.text);
    return 0;
}

void gate_changed(struct quota *q)
{
    for (unsigned i = 0; i < q->smtpd_count; i++) {
        struct smtpd *s = q->smtpds[i];
        if (s->good)
            ipc_mail_forget_encode(channel_out(s->channel),
                                   &(struct ipc_mail_forget){.answers = s->good});
        s->good = 0;
    }
}

/* ---- reservations ------------------------------------------------------------------------ */

static struct slice reservation_key(const void *value)
{
    return slice_str(((const struct reservation *)value)->id);
}

static void add_pending(struct party *p, const struct plan *plan, const struct reservation *r,
                        bool taken)
{
    struct volume v = plan_cost(plan, r->size, r->recipients);
    if (taken) {
        p->pending.messages += v.messages;
        p->pending.bytes += v.bytes;
        return;
    }
    p->pending.messages -= v.messages < p->pending.messages ? v.messages : p->pending.messages;
    p->pending.bytes -= v.bytes < p->pending.bytes ? v.bytes : p->pending.bytes;
}

/* Parties with pending volume stay in memory, so both ways count the same. */
static void count_pending(struct quota *q, const struct reservation *r, bool taken)
{
    struct slice user = slice_str(r->owner), name = slice_cut(&user, '/');
    struct account *chain[CHARGE_LEVELS_MAX], *a = account_find(q, name);
    unsigned n = account_chain(q, a, chain);
    for (unsigned i = 0; i < n; i++)
        add_pending(party_find(q, chain[i], SLICE("")), chain[i]->plan, r, taken);
    if (n && user.len)
        add_pending(party_find(q, a, user), a->plan, r, taken);
}

static void reserve(struct quota *q, const struct asking *x, const struct ipc_reserve *in)
{
    struct reservation *r = xcalloc(1, sizeof *r);
    snprintf(r->id, sizeof r->id, "%.*s", SLICE_ARG(in->id));
    snprintf(r->owner, sizeof r->owner, *x->user_name ? "%s/%s" : "%s%s", x->chain[0]->name,
             x->user_name);
    r->size = in->size;
    r->recipients = in->recipients;
    r->at = clock_mono();
    map_put(&q->reservations, r);
    list_push(&q->reserved, &r->link);
    count_pending(q, r, true);
}

static void release(struct quota *q, struct reservation *r)
{
    count_pending(q, r, false);
    map_remove(&q->reservations, reservation_key(r));
    list_remove(&r->link);
    free(r);
}

bool gate_charged(struct quota *q, struct slice id)
{
    struct reservation *r = map_get(&q->reservations, id);
    if (r)
        release(q, r);
    return r != NULL;
}

int gate_release(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_release in;
    if (ipc_release_decode(body, &in) < 0)
        return err_set(e, "malformed RELEASE");
    (void)gate_charged(s->q, in.id);
    return 0;
}

void gate_tick(struct quota *q)
{
    int64_t old = clock_mono() - RESERVE_SECONDS * CLOCK_SECOND;
    if (!q->reservations.key)
        map_init(&q->reservations, reservation_key);
    while (!list_empty(&q->reserved)) {
        struct reservation *r = container_of(q->reserved.next, struct reservation, link);
        if (r->at > old)
            break;
        release(q, r);
    }
}

/* ---- the end of data ---------------------------------------------------------------------- */

/* B33: From: (and Sender:) must be the account's own. */
static bool authors_owned(const struct asking *x, struct slice list, struct answer *no)
{
    struct ipc_cursor cursor = ipc_list_cursor(list);
    struct ipc_author author;
    for (int n = 0; ipc_author_next(&cursor, &author); n++) {
        if (n == AUTHORS_MAX) {
            refuse(no, 550, "5.7.1", "Error: more than %d authors", AUTHORS_MAX);
            return false;
        }
        if (account_owns(x->q, x->chain[0], author.address))
            continue;
        refuse(no, 550, "5.7.1", "<%s>: author address rejected: not owned by account %s",
               log_esc(author.address), x->chain[0]->name);
        return false;
    }
    return !cursor.failed;
}

static bool has_room(const struct asking *x, const struct ipc_reserve *in, struct answer *no)
{
    struct answer more = {.text = BUF_INIT(1000)};
    struct room r = room_for(x, in->size, in->recipients, &more);
    bool enough = in->recipients <= r.messages;
    if (!enough)
        refuse(no, more.code, more.enhanced, "%.*s", SLICE_ARG(buf_slice(&more.text)));
    buf_free(&more.text);
    return enough;
}

/* The stolen password: far above its own usual. */
static void guard(const struct asking *x, const struct ipc_reserve *in, struct ipc_reserved *out)
{
    struct account *a = x->chain[0];
    struct party *p = x->parties[0];
    uint64_t limit = rates_spike_limit(&p->tally, a->plan);
    uint64_t hour = p->tally.hour_count + p->pending.messages + in->recipients;
    bool was = p->tally.spike_until > x->now;
    if (hour <= limit)
        return;
    bool hold = a->plan->spike_action == SPIKE_HOLD;
    p->tally.spike_until = x->now + SPIKE_SECONDS;
    if (hold)
        out->flags |= MESSAGE_HOLD;
    else
        out->delay = SPIKE_DELAY;
    if (was)
        return;
    log_warning("account %s: %llu messages in this hour are far above its usual %llu: its mail is "
                "%s; see 'postern usage show %s'",
                a->name, (unsigned long long)hour, (unsigned long long)(p->tally.usual / 1000),
                hold ? "held" : "slowed down", a->name);
    letters_spike(x->q, a, p, hold ? "held back" : "slowed down");
    party_touched(x->q, p);
}

/* rate_action = queue: the message is held until its turn comes. */
static void queue_for_rate(const struct asking *x, const struct ipc_reserve *in,
                           struct ipc_reserved *out)
{
    const struct plan *own = x->chain[0]->plan;
    int64_t at = x->now, t;
    if (x->user && own->rate_action == RATE_QUEUE)
        at = rates_turn(&x->user->tally, own, own->user_rates, x->user->pending.messages,
                        in->recipients, x->now);
    for (unsigned i = 0; i < x->levels; i++) {
        const struct plan *p = x->chain[i]->plan;
        if (p->rate_action != RATE_QUEUE)
            continue;
        t = rates_turn(&x->parties[i]->tally, p, p->account_rates, x->parties[i]->pending.messages,
                       in->recipients, x->now);
        at = t > at ? t : at;
    }
    if (at <= x->now)
        return;
    struct key k = {.len = 0};
    struct buf batch = BUF_INIT(4096);
    key_number(&k, (uint64_t)at);
    key_add(&k, in->id);
    kv_put(&batch, T_HELD, key_slice(&k), SLICE(""));
    sync_apply(x->q, buf_slice(&batch), NULL, NULL);
    buf_free(&batch);
    out->flags |= MESSAGE_HOLD;
}

int gate_reserve(struct smtpd *s, struct slice body, struct err *e)
{
    struct quota *q = s->q;
    struct ipc_reserve in;
    struct asking x;
    struct answer no = {.text = BUF_INIT(1000)};
    char owner[OWNER_MAX + 1];
    struct id id;
    if (ipc_reserve_decode(body, &in) < 0 || id_parse(in.id, &id) < 0 || in.recipients == 0 ||
        in.recipients > CHARGE_RECIPIENTS_MAX)
        return err_set(e, "malformed RESERVE");
    struct ipc_reserved out = {.tag = in.tag};
    if (map_get(&q->reservations, in.id))
        return err_set(e, "RESERVE with an ID that is reserved");
    if (q->reservations.count >= PENDING_MAX)
        refuse(&no, 451, "4.3.2", "Error: too many messages at the same time");
    else if (identify(&x, q, in.ticket, &no) && may_send(&x, in.sender, in.size, &no) &&
             authors_owned(&x, in.authors, &no) && has_room(&x, &in, &no)) {
        guard(&x, &in, &out);
        queue_for_rate(&x, &in, &out);
        reserve(q, &x, &in);
        snprintf(owner, sizeof owner, *x.user_name ? "%s/%s" : "%s%s", x.chain[0]->name,
                 x.user_name);
        out.owner = slice_str(owner);
        out.mail_class = x.chain[0]->mail_class;
    } else if (!no.code) {
        buf_free(&no.text);
        return err_set(e, "malformed RESERVE");
    }
    out.code = no.code;
    out.enhanced = slice_str(no.code ? no.enhanced : "");
    out.text = buf_slice(&no.text);
    ipc_reserved_encode(channel_out(s->channel), &out);
    buf_free(&no.text);
    return 0;
}

/* Reservations: room for a message from its end of data until qmgr reports it. */
#include "core/log.h"
#include "core/mem.h"
#include "quota/gate.h"
#include "quota/rates.h"

/* ---- what is reserved --------------------------------------------------------------- */

static struct slice reservation_key(const void *value)
{
    return slice_str(((const struct reservation *)value)->id);
}

/* What was taken is what is given back, whatever plan holds by then. */
static void take_room(struct reservation *r, struct party *p, const struct plan *plan)
{
    struct volume v = plan_cost(plan, r->size, r->recipients);
    r->taken[r->parties++] = (struct taken){p, v};
    p->pending.messages += v.messages;
    p->pending.bytes += v.bytes;
    p->reservations++;
}

static void give_back(const struct taken *t)
{
    t->party->pending.messages -= t->volume.messages;
    t->party->pending.bytes -= t->volume.bytes;
    t->party->reservations--;
}

static struct reservation *reserve(struct smtpd *s, const struct asking *x,
                                   const struct ipc_reserve *in)
{
    unsigned parties = x->levels + (x->user != NULL);
    struct reservation *r = xcalloc(1, sizeof *r + parties * sizeof r->taken[0]);
    snprintf(r->id, sizeof r->id, "%.*s", SLICE_ARG(in->id));
    snprintf(r->owner, sizeof r->owner, *x->user_name ? "%s/%s" : "%s%s", x->chain[0]->name,
             x->user_name);
    r->size = in->size;
    r->recipients = in->recipients;
    r->at = clock_mono();
    r->s = s;
    r->serial = s->q->token_serial++;
    s->reserved++;
    map_put(&x->q->reservations, r);
    list_push(&x->q->reserved, &r->link);
    for (unsigned i = 0; i < x->levels; i++)
        take_room(r, x->parties[i], x->chain[i]->plan);
    if (x->user)
        take_room(r, x->user, x->chain[0]->plan);
    return r;
}

static void release(struct quota *q, struct reservation *r)
{
    for (unsigned i = 0; i < r->parties; i++)
        give_back(&r->taken[i]);
    if (r->s)
        r->s->reserved--;
    map_remove(&q->reservations, reservation_key(r));
    list_remove(&r->link);
    free(r);
}

const struct reservation *gate_reservation(struct quota *q, struct slice id)
{
    return map_get(&q->reservations, id);
}

void gate_charged(struct quota *q, struct slice id)
{
    struct reservation *r = map_get(&q->reservations, id);
    if (r)
        release(q, r);
}

void gate_forget(struct smtpd *s)
{
    if (s->reserved)
        list_each(&s->q->reserved, n)
        {
            struct reservation *r = container_of(n, struct reservation, link);
            if (r->s == s)
                r->s = NULL;
        }
}

int gate_release(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_release in;
    if (ipc_release_decode(body, &in) < 0)
        return err_set(e, "malformed RELEASE");
    struct reservation *r = map_get(&s->q->reservations, in.id);
    if (r && !r->s) /* of a channel before, perhaps its own: it ends by itself */
        return 0;
    if (r && r->s != s) {
        log_error("%s wants to give back what another has reserved: its channel is closed",
                  channel_name(s->channel));
        return err_set(e, "RELEASE of another's message");
    }
    if (r)
        release(s->q, r);
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
            gate_refuse(no, 550, "5.7.1", "Error: more than %d authors", AUTHORS_MAX);
            return false;
        }
        if (account_owns(x->q, x->chain[0], author.address))
            continue;
        gate_refuse(no, 550, "5.7.1", "<%s>: author address rejected: not owned by account %s",
                    log_esc(author.address), x->chain[0]->name);
        return false;
    }
    return !cursor.failed;
}

static bool has_room(const struct asking *x, const struct ipc_reserve *in, struct answer *no)
{
    struct answer more = {.text = BUF_INIT(1000)};
    struct room r = gate_room(x, in->size, in->recipients, &more);
    bool enough = in->recipients <= r.messages;
    if (!enough && r.spike)
        (void)guard_acts(x, r.spike_level, in->recipients);
    if (!enough)
        gate_refuse(no, more.code, more.enhanced, "%.*s", SLICE_ARG(buf_slice(&more.text)));
    buf_free(&more.text);
    return enough;
}

/* rate_action = queue: when the message's turn comes; 0: now. */
static int64_t rate_turn(const struct asking *x, const struct ipc_reserve *in)
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
    return at > x->now ? at : 0;
}

static bool too_many(const struct smtpd *s, struct slice id, struct answer *no)
{
    const struct quota *q = s->q;
    if (!q->token_known)
        gate_refuse(no, 451, "4.3.0", "Error: the queue is not available, try again later");
    else if (map_get(&q->reservations, id))
        gate_refuse(no, 451, "4.3.0", "Error: queue ID in use, try again");
    else if (s->reserved >= RESERVATIONS_OF_SMTPD || q->reservations.count >= PENDING_MAX)
        gate_refuse(no, 451, "4.3.2", "Error: too many messages at the same time");
    return no->code != 0;
}

/* By which qmgr sees what was reserved. */
static void seal(const struct quota *q, const struct reservation *r, const struct ipc_reserve *in,
                 uint32_t flags, char out[static TOKEN_BYTES])
{
    const struct token_claim claim = {.id = in->id,
                                      .owner = slice_str(r->owner),
                                      .sender = in->sender,
                                      .recipients = in->recipients,
                                      .size = in->size};
    const struct token t = {.hold = (uint8_t)(flags & MESSAGE_HELD),
                            .at = (uint32_t)(r->at / CLOCK_SECOND),
                            .serial = r->serial};
    if (token_make(q->token_key, &claim, &t, out) < 0)
        panic("a reservation of an owner that is too long");
}

int gate_reserve(struct smtpd *s, struct slice body, struct err *e)
{
    struct quota *q = s->q;
    struct ipc_reserve in;
    struct asking x;
    struct answer no = {.text = BUF_INIT(1000)};
    struct id id;
    char token[TOKEN_BYTES];
    if (ipc_reserve_decode(body, &in) < 0 || id_parse(in.id, &id) < 0 || in.recipients == 0 ||
        in.recipients > CHARGE_RECIPIENTS_MAX || in.sender.len > TOKEN_SENDER_MAX)
        return err_set(e, "malformed RESERVE");
    struct ipc_reserved out = {.tag = in.tag};
    if (!too_many(s, in.id, &no) && gate_identify(&x, q, in.ticket, &no) &&
        gate_may_send(&x, in.sender, in.size, &no) && authors_owned(&x, in.authors, &no) &&
        has_room(&x, &in, &no)) {
        int64_t turn = rate_turn(&x, &in); /* before this message takes part in it */
        if (guard_holds(&x, in.recipients))
            out.flags |= MESSAGE_HOLD;
        struct reservation *r = reserve(s, &x, &in);
        r->held = out.flags != 0;
        if (!out.flags && turn) {
            r->held_until = turn;
            out.flags |= MESSAGE_HOLD_RATE;
        }
        out.owner = slice_str(r->owner);
        seal(q, r, &in, out.flags, token);
        out.token = slice_make(token, sizeof token);
        classes_of(&x, in.sender, &out.mail_class, &out.class_most);
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

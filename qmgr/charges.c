/*
 * What accounts pay for. quota hears of each message that is in the spool and of
 * each recipient's end, in batches that are kept until it says that they are
 * durable. The rule: a message's file stays until then (charges_wait), because
 * after a crash it is where the same batch comes from again.
 *
 * One thing needs no file: that a recipient was delivered to. A charge whose
 * message is gone was delivered, unless a refund was told before (see
 * answer_question), so deliveries wait for the charge's batch only, which as a
 * rule was acknowledged while they were under way.
 */

#include "core/fault.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/qmgr.h"

enum {
    BATCH_HALF = 48 * 1024, /* bytes of charges, and of settlements, in one batch */
    INDICES_MAX = 4096,     /* recipients in one settlement */
    REPLY_MAX = 400,        /* bytes of a reply that quota is told */
    LETTER_MAX = INLINE_CONTENT_MAX
};

struct charge_batch {
    struct list link;
    uint32_t number;
    bool sent;
    struct buf frame;
};

/* Numbers may wrap around. */
static bool is_acknowledged(const struct charges *c, uint32_t batch)
{
    return (int32_t)(c->acknowledged - batch) >= 0;
}

/* ---- batches ------------------------------------------------------------------------- */

/* In their order, always: a settlement that came before its charge would be of a
 * stranger, and lost. */
static void send_batches(struct charges *c)
{
    if (!c->peer.channel)
        return;
    list_each(&c->batches, n)
    {
        struct charge_batch *b = container_of(n, struct charge_batch, link);
        if (b->sent)
            continue;
        if (c->unacknowledged >= c->credit)
            break;
        buf_adds(channel_out(c->peer.channel), buf_slice(&b->frame));
        b->sent = true;
        c->unacknowledged++;
    }
}

/* What was gathered becomes a batch of its own. */
static void close_batch(struct qmgr *q)
{
    struct charges *c = &q->charges;
    if (c->fresh.len == 0 && c->over.len == 0)
        return;
    struct charge_batch *b = xcalloc(1, sizeof *b);
    b->number = c->number;
    b->frame = BUF_INIT(IPC_FRAME_MAX);
    struct ipc_charges out = {
        .batch = c->number, .charges = buf_slice(&c->fresh), .settlements = buf_slice(&c->over)};
    ipc_charges_encode(&b->frame, &out);
    buf_clear(&c->fresh);
    buf_clear(&c->over);
    c->number++;
    list_push(&c->batches, &b->link);
    fault_point("qmgr.charges");
    send_batches(c);
}

static void batch_free(struct charge_batch *b)
{
    list_remove(&b->link);
    buf_free(&b->frame);
    free(b);
}

static void make_room(struct qmgr *q, const struct buf *part, size_t more)
{
    if (part->len + more > BATCH_HALF)
        close_batch(q);
}

static void answer_question(struct qmgr *q);

/* One batch is under way at a time: what comes meanwhile shares the next. */
void charges_turn(struct qmgr *q)
{
    struct charges *c = &q->charges;
    if (c->unacknowledged == 0)
        close_batch(q);
    if (c->question && q->scanned && c->peer.channel)
        answer_question(q);
    send_batches(c);
}

/* ---- what quota is told ------------------------------------------------------------------ */

static bool is_letter(const struct message *m)
{
    return m->flags & MESSAGE_LETTER;
}

/* Quota has to know of it: it is paid for, or quota's own. */
static bool concerns_quota(const struct qmgr *q, const struct message *m)
{
    bool paid = message_owner(m).len && !(m->flags & MESSAGE_NOTICE);
    return q->s->config->accounts_enable && (paid || is_letter(m));
}

/* added: bytes of the body that the client did not send, and does not pay for. */
static void charge(struct qmgr *q, struct message *m, unsigned flags, uint64_t added)
{
    struct charges *c = &q->charges;
    if (!concerns_quota(q, m))
        return;
    if (is_letter(m))
        flags |= CHARGE_LETTER;
    if (m->flags & MESSAGE_HOLD_RATE)
        flags |= CHARGE_HELD_RATE;
    if (m->flags & MESSAGE_HOLD)
        flags |= CHARGE_HELD;
    make_room(q, &c->fresh, 2 * ACCOUNT_MAX);
    ipc_charge_add(&c->fresh, &(struct ipc_charge){.id = id_slice(&m->id),
                                                   .owner = message_owner(m),
                                                   .arrival = m->arrival,
                                                   .size = m->ref.body_len - added,
                                                   .recipients = m->recipient_count,
                                                   .flags = (uint8_t)flags});
    m->charged = true;
    m->charge = c->number;
}

void charges_committed(struct qmgr *q, struct message *m, uint64_t added)
{
    charge(q, m, CHARGE_FRESH, added);
}

static void add_settlement(struct qmgr *q, struct slice id, enum charge_state state,
                           struct slice recipients, struct slice address, struct slice reply)
{
    struct charges *c = &q->charges;
    make_room(q, &c->over, recipients.len + address.len + reply.len + 64);
    ipc_settlement_add(&c->over, &(struct ipc_settlement){.id = id,
                                                          .state = (uint8_t)state,
                                                          .recipients = recipients,
                                                          .address = address,
                                                          .reply = reply});
}

static void put_index(char out[4], uint32_t i)
{
    for (int k = 0; k < 4; k++, i >>= 8)
        out[k] = (char)(i & 0xff);
}

static void delivered(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count)
{
    char indices[INDICES_MAX * 4];
    if (count == m->recipient_count) {
        add_settlement(q, id_slice(&m->id), CHARGE_DELIVERED, SLICE(""), SLICE(""), SLICE(""));
        return;
    }
    for (uint32_t at = 0; at < count;) {
        uint32_t n = 0;
        while (n < INDICES_MAX && at < count)
            put_index(indices + 4 * n++, rcpts[at++]);
        add_settlement(q, id_slice(&m->id), CHARGE_DELIVERED, slice_make(indices, 4 * n), SLICE(""),
                       SLICE(""));
    }
}

/* With who and why, for the account's report. */
static void refunded(struct qmgr *q, struct message *m, uint32_t i)
{
    struct answer *a = m->env->recipients[i].answer;
    struct buf reply = BUF_INIT(2 * REPLY_MAX);
    char index[4];
    put_index(index, i);
    if (a)
        answer_wire(a, &reply, REPLY_MAX);
    add_settlement(q, id_slice(&m->id), CHARGE_REFUNDED, slice_make(index, sizeof index),
                   recipient_address(m, i), buf_slice(&reply));
    m->charge = q->charges.number; /* only the file knows it, until quota does */
    buf_free(&reply);
}

void charges_over(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                  enum spool_status status)
{
    if (!m->charged || is_letter(m) || count == 0)
        return;
    if (status == SPOOL_SENT || status == SPOOL_CONFIRM) {
        delivered(q, m, rcpts, count);
        return;
    }
    for (uint32_t k = 0; k < count; k++)
        refunded(q, m, rcpts[k]);
}

void charges_lost(struct qmgr *q, struct message *m)
{
    if (!m->charged || m->refunded)
        return;
    m->refunded = true;
    if (is_letter(m))
        return;
    add_settlement(q, id_slice(&m->id), CHARGE_REFUNDED, SLICE(""), SLICE(""), SLICE(""));
    m->charge = q->charges.number; /* only the file knows it, until quota does */
}

void charges_found(struct qmgr *q, struct message *m, const struct store_found *found)
{
    charge(q, m, 0, found->envelope->added);
    for (uint32_t i = 0; m->charged && !is_letter(m) && i < m->recipient_count; i++) {
        char status = found->status[i];
        if (status == SPOOL_SENT || status == SPOOL_CONFIRM)
            delivered(q, m, &i, 1);
        else if (status != SPOOL_PENDING)
            refunded(q, m, i);
    }
}

/* ---- waiting for quota -------------------------------------------------------------------- */

bool charges_known(const struct qmgr *q, const struct message *m)
{
    return !m->charged || is_acknowledged(&q->charges, m->charge) || !q->s->config->accounts_enable;
}

bool charges_wait(struct qmgr *q, struct message *m)
{
    if (charges_known(q, m))
        return false;
    m->env->message = m;
    list_remove(&m->env->waiting); /* perhaps it waited for its pool */
    list_push(&q->charges.waiting, &m->env->waiting);
    message_drop_body(q, m);
    return true;
}

static void settle_waiting(struct qmgr *q)
{
    struct list known, *n;
    list_init(&known);
    list_splice(&known, &q->charges.waiting);
    while ((n = list_pop(&known)))
        message_settle(q, container_of(n, struct envelope, waiting)->message);
}

static int on_charged(struct qmgr *q, struct slice body, struct err *e)
{
    struct charges *c = &q->charges;
    struct ipc_charged in;
    if (ipc_charged_decode(body, &in) < 0)
        return err_set(e, "malformed CHARGED");
    if (is_acknowledged(c, in.batch))
        return 0; /* said before */
    const struct list *first = c->batches.next;
    if (first == &c->batches || (int32_t)(in.batch - c->number) >= 0)
        return err_set(e, "CHARGED of a batch that was not sent");
    list_each_safe(&c->batches, n)
    {
        struct charge_batch *b = container_of(n, struct charge_batch, link);
        if ((int32_t)(in.batch - b->number) < 0)
            break;
        if (!b->sent)
            return err_set(e, "CHARGED of a batch that was not sent");
        c->unacknowledged--;
        batch_free(b);
    }
    c->acknowledged = in.batch;
    fault_point("qmgr.charged");
    settle_waiting(q);
    return 0;
}

/* ---- questions ------------------------------------------------------------------------------ */

/* Whoever dies between a file's way into corrupt/ and CHARGED, or finds it damaged in a scan:
 * where the file is says that nobody more was delivered to. */
static void refund_quarantined(struct qmgr *q)
{
    struct ipc_cursor cursor = ipc_list_cursor(buf_slice(&q->charges.asked));
    struct ipc_charge_id id;
    while (ipc_charge_id_next(&cursor, &id))
        if (!queue_find(q, id.id) && store_is_quarantined(q->store, id.id))
            add_settlement(q, id.id, CHARGE_REFUNDED, SLICE(""), SLICE(""), SLICE(""));
}

/* All that is known of these messages is on its way before the answer is. */
static void answer_question(struct qmgr *q)
{
    struct charges *c = &q->charges;
    struct buf gone = BUF_INIT(IPC_FRAME_MAX / 2);
    struct ipc_cursor cursor = ipc_list_cursor(buf_slice(&c->asked));
    struct ipc_charge_id id;
    if (!c->looked)
        refund_quarantined(q);
    c->looked = true;
    close_batch(q);
    list_each(&c->batches, n) if (!container_of(n, struct charge_batch, link)
                                       ->sent) return; /* no credit: when there is */
    while (ipc_charge_id_next(&cursor, &id))
        if (!queue_find(q, id.id))
            ipc_charge_id_add(&gone, &id);
    ipc_charges_gone_encode(
        channel_out(c->peer.channel),
        &(struct ipc_charges_gone){.tag = c->question, .ids = buf_slice(&gone)});
    buf_free(&gone);
    buf_clear(&c->asked);
    c->question = 0;
}

static int on_query(struct qmgr *q, struct slice body, struct err *e)
{
    struct ipc_charges_query in;
    struct charges *c = &q->charges;
    if (ipc_charges_query_decode(body, &in) < 0 || in.tag == 0 || c->question)
        return err_set(e, "malformed CHARGES_QUERY, or one too many");
    c->question = in.tag;
    c->looked = false;
    buf_clear(&c->asked);
    return buf_adds(&c->asked, in.ids) < 0 ? err_set(e, "CHARGES_QUERY is too long") : 0;
}

/* ---- letters -----------------------------------------------------------------------------------
 */

/* A letter on its way to the disk. */
struct account_letter {
    struct qmgr *q;
    uint64_t tag;
};

static void tell_noticed(struct qmgr *q, uint64_t tag, const char *error)
{
    if (q->charges.peer.channel)
        ipc_account_noticed_encode(
            channel_out(q->charges.peer.channel),
            &(struct ipc_account_noticed){.tag = tag, .error = slice_str(error)});
}

static void on_letter_stored(const char *error, void *arg)
{
    struct account_letter *l = arg;
    tell_noticed(l->q, l->tag, error ? error : "");
    free(l);
}

static int on_letter(struct qmgr *q, struct slice body, struct err *e)
{
    struct ipc_account_notice in;
    struct id id;
    if (ipc_account_notice_decode(body, &in) < 0 || id_parse(in.id, &id) < 0 ||
        in.id.len != ID_LEN || in.recipient.len == 0 || in.recipient.len > ADDRESS_MAX ||
        in.content.len == 0 || in.content.len > LETTER_MAX)
        return err_set(e, "malformed ACCOUNT_NOTICE");
    /* deleted ones that can be brought back are there, too: quota overwrites nothing */
    const struct message *there = queue_find(q, in.id);
    if (there || q->draining || !q->scanned) {
        /* it is in the queue; or it may be, once the spool is read: quota asks again */
        bool stored = there && there->phase != PHASE_COMMITTING;
        tell_noticed(q, in.tag, stored ? "" : "not now");
        return 0;
    }
    struct account_letter *l = xmalloc(sizeof *l);
    *l = (struct account_letter){q, in.tag};
    uint32_t flags = (in.flags & MESSAGE_FLAGS_ALL) | MESSAGE_LETTER;
    intake_commit_own(q, &id, in.recipient, flags, in.content, on_letter_stored, l);
    return 0;
}

/* ---- the channel --------------------------------------------------------------------------------
 */

/* A message that is released, perhaps read from the disk before. */
struct releasing {
    struct qmgr *q;
    uint64_t generation; /* of the channel: quota's next process asks again */
    char id[ID_MAX + 1];
};

static enum walk_answer release_one(struct message *m, void *arg)
{
    struct releasing *r = arg;
    (void)queue_act(r->q, m, QUEUE_DO_RELEASE_RATE, "the account's rate");
    return WALK_ON;
}

static bool waits_for_rate(const struct message *m)
{
    return m && m->charged && (m->flags & MESSAGE_HOLD_RATE);
}

static void tell_released(struct qmgr *q, struct slice id)
{
    bool later = waits_for_rate(queue_find(q, id));
    ipc_charges_released_encode(channel_out(q->charges.peer.channel),
                                &(struct ipc_charges_released){.id = id, .later = later});
}

static void released(void *arg)
{
    struct releasing *r = arg;
    struct charges *c = &r->q->charges;
    fault_point("qmgr.released");
    if (c->peer.channel && c->generation == r->generation)
        tell_released(r->q, slice_str(r->id));
    free(r);
}

/* Not held any more, or not here: then the scan may find it, held, and says so with its
 * charge. What is nobody's is none of quota's business. */
static int on_release(struct qmgr *q, struct slice body, struct err *e)
{
    struct ipc_charges_release in;
    if (ipc_charges_release_decode(body, &in) < 0 || !id_valid(in.id))
        return err_set(e, "malformed CHARGES_RELEASE");
    fault_point("qmgr.release");
    const struct message *m = queue_find(q, in.id);
    if (!waits_for_rate(m)) {
        tell_released(q, in.id);
        return 0;
    }
    struct releasing *r = xmalloc(sizeof *r);
    *r = (struct releasing){.q = q, .generation = q->charges.generation};
    snprintf(r->id, sizeof r->id, "%.*s", SLICE_ARG(in.id));
    (void)queue_visit_one(q, m->kept ? WALK_DELETED : WALK_QUEUE, in.id, release_one, released, r);
    return 0;
}

static int on_frame(struct peer *p, const struct ipc_frame *f, struct err *e)
{
    struct qmgr *q = p->q;
    struct ipc_charges_ready ready;
    switch (f->number) {
    case IPC_NUMBER_ipc_charges_ready:
        if (ipc_charges_ready_decode(f->body, &ready) < 0)
            return err_set(e, "malformed CHARGES_READY");
        q->charges.credit = ready.credit;
        return 0;
    case IPC_NUMBER_ipc_charged:
        return on_charged(q, f->body, e);
    case IPC_NUMBER_ipc_charges_query:
        return on_query(q, f->body, e);
    case IPC_NUMBER_ipc_charges_release:
        return on_release(q, f->body, e);
    case IPC_NUMBER_ipc_account_pool:
        return pools_answer(q, f->body, e);
    case IPC_NUMBER_ipc_account_notice:
        return on_letter(q, f->body, e);
    default:
        return err_set(e, "%s is not for qmgr", ipc_name(f->number));
    }
}

static void on_gone(struct peer *p)
{
    struct charges *c = &p->q->charges;
    c->credit = c->unacknowledged = 0;
    c->question = 0;
    list_each(&c->batches, n) container_of(n, struct charge_batch, link)->sent = false;
}

void charges_peer(struct qmgr *q, int fd)
{
    static const struct peer_ops ops = {on_frame, on_gone};
    q->charges.generation++;
    peer_open(&q->charges.peer, q, fd, "quota", &ops);
    tokens_connected(q);
    pools_connected(q);
}

void charges_init(struct qmgr *q)
{
    struct charges *c = &q->charges;
    list_init(&c->batches);
    list_init(&c->waiting);
    buf_init(&c->fresh, BATCH_HALF + 4096);
    buf_init(&c->over, BATCH_HALF + 4096);
    buf_init(&c->asked, IPC_FRAME_MAX);
    c->number = 1;
}

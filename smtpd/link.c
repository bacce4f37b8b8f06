#include "smtpd/link.h"

#include <unistd.h>

#include "conf/sender_class.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/mem.h"
#include "smtpd/content.h"
#include "smtpd/gate.h"
#include "smtpd/limits.h"
#include "smtpd/prefix.h"
#include "smtpd/server.h"
#include "smtpd/session.h"

static const struct refusal no_queue = {451, "4.3.0", "Error: the queue is not available"};
static const struct refusal many_large = {452, "4.3.1",
                                          "Error: too many large messages, try later"};
static const struct refusal states[] = {
    [SPOOL_OK] = {0, NULL, NULL},
    [SPOOL_FULL] = {452, "4.3.1", "Insufficient system storage"},
    [SPOOL_BAD] = {451, "4.3.0", "Error: queue file write error"},
    [SPOOL_BUSY] = {452, "4.3.1", "Error: the queue is full, try later"},
};
enum { STATE_COUNT = sizeof states / sizeof states[0] };

static struct slice message_key(const void *value)
{
    const struct link_message *m = value;
    return slice_make(&m->tag, sizeof m->tag);
}

static struct session *session_of(struct link_message *m)
{
    struct transaction *tx = container_of(m, struct transaction, at_qmgr);
    return container_of(tx, struct session, tx);
}

/* ---- open messages ------------------------------------------------------- */

static void open_message(struct link *l, struct link_message *m)
{
    if (m->tag)
        return;
    m->tag = ++l->next_tag;
    map_put(&l->messages, m);
}

/* qmgr's part of the message is over: no answer is outstanding. */
static void close_message(struct link *l, struct link_message *m)
{
    if (m->committing) {
        l->commits--;
        l->bytes -= m->bytes;
    } else if (m->large) {
        l->larges--;
    }
    list_remove(&m->waiting);
    map_remove(&l->messages, message_key(m));
    m->tag = m->bytes = 0;
    m->large = m->committing = false;
}

static struct link_message *message_of(const struct link *l, uint64_t tag)
{
    return map_get(&l->messages, slice_make(&tag, sizeof tag));
}

/* ---- sending ------------------------------------------------------------- */

/* Recipients that would make COMMIT too large go ahead of it in frames of their
 * own; returns the rest. */
static struct slice send_recipients(struct link *l, const struct link_message *m, struct slice list)
{
    while (list.len > COMMIT_RCPTS) {
        struct ipc_cursor at = ipc_list_cursor(list);
        struct ipc_rcpt r;
        size_t fits = 0;
        while (ipc_rcpt_next(&at, &r)) {
            size_t end = (size_t)(at.rest.ptr - list.ptr);
            if (end > COMMIT_RCPTS)
                break;
            fits = end;
        }
        if (fits == 0)
            panic("a recipient of more than %d bytes", COMMIT_RCPTS);
        struct ipc_commit_rcpts part = {.tag = m->tag, .recipients = slice_first(list, fits)};
        ipc_commit_rcpts_encode(channel_out(l->channel), &part);
        list = slice_from(list, fits);
    }
    return list;
}

static uint32_t message_flags(const struct transaction *tx)
{
    const struct content *c = tx->content;
    uint32_t flags = tx->flags;
    if (c->data.flags & DATA_8BIT)
        flags |= MESSAGE_8BIT;
    /* beside REQUIRETLS the header field means nothing (RFC 8689 section 5) */
    if (c->header.tls_not_required && !(flags & MESSAGE_REQUIRETLS))
        flags |= MESSAGE_TLS_OPTIONAL;
    return flags;
}

static int rank(uint8_t mail_class)
{
    return mail_class == CLASS_TRANSACTIONAL ? 2 : mail_class == CLASS_NORMAL ? 1 : 0;
}

/* What mail_class_senders says of who sends it. */
static int sender_class(const struct session *s)
{
    return sender_class_find(slice_str(s->server->config->mail_class_senders),
                             buf_slice(&s->tx.sender));
}

/* What a message's own header may ask for: anything below what holds for its account, and
 * above it only what the operator allows. */
static bool may_say(const struct session *s, uint8_t said)
{
    const struct gate *g = s->tx.gate;
    int sender = g ? SENDER_CLASS_NONE : sender_class(s); /* quota has seen to it */
    uint8_t most = g                                             ? g->class_most
                   : s->server->config->mail_class_header_raises ? CLASS_TRANSACTIONAL
                   : sender != SENDER_CLASS_NONE                 ? (uint8_t)sender
                                                                 : CLASS_NORMAL;
    return rank(said) <= rank(most) || (g && rank(said) <= rank(g->mail_class));
}

/* What the sender says of this message goes before what holds for the account as far as it
 * is allowed, and that before what the message looks like. */
static uint8_t class_of(const struct session *s)
{
    static const struct {
        struct slice word;
        uint8_t mail_class;
    } words[] = {{SLICE("transactional"), CLASS_TRANSACTIONAL},
                 {SLICE("normal"), CLASS_NORMAL},
                 {SLICE("bulk"), CLASS_BULK}};
    const struct transaction *tx = &s->tx;
    const struct header_scan *h = &tx->content->header;
    struct slice said = slice_make(h->mail_class.text, h->mail_class.len);
    struct slice precedence = slice_make(h->precedence.text, h->precedence.len);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (slice_eq(said, words[i].word) && may_say(s, words[i].mail_class))
            return words[i].mail_class;
    int sender = tx->gate ? SENDER_CLASS_NONE : sender_class(s);
    if (sender > CLASS_NORMAL)
        return (uint8_t)sender;
    if (tx->gate && tx->gate->mail_class != CLASS_NORMAL)
        return tx->gate->mail_class;
    bool bulk = slice_eq(precedence, SLICE("bulk")) || slice_eq(precedence, SLICE("list")) ||
                slice_eq(precedence, SLICE("junk")) || h->count[HEADER_LIST_ID] ||
                h->count[HEADER_LIST_UNSUBSCRIBE];
    return bulk && s->server->config->bulk_mail_detection ? CLASS_BULK : CLASS_NORMAL;
}

static void send_commit(struct link *l, struct session *s)
{
    static char prefix_bytes[PREFIX_MAX];
    struct buf prefix = {prefix_bytes, 0, sizeof prefix_bytes, sizeof prefix_bytes};
    struct transaction *tx = &s->tx;
    const struct content *c = tx->content;
    char user[32];
    snprintf(user, sizeof user, "local[uid %u]", s->uid);
    prefix_compose(s, &prefix);
    struct ipc_commit m = {
        .tag = tx->at_qmgr.tag,
        .id = id_slice(&tx->id),
        .arrival = tx->arrival,
        .flags = message_flags(tx),
        .ret = tx->ret,
        .mail_class = class_of(s),
        .account = slice_str(tx->gate ? tx->gate->owner : NULL),
        .token = slice_make(tx->gate ? tx->gate->token : NULL, tx->gate ? tx->gate->token_len : 0),
        .client = slice_str(s->local_user ? user : s->peer),
        .signer = header_signer_domain(&c->header.signer),
        .message_id = slice_make(c->header.message_id, c->header.message_id_len),
        .sender = buf_slice(&tx->sender),
        .envid = buf_slice(&tx->envid),
        .recipient_count = tx->rcpt_count,
        .recipients = send_recipients(l, &tx->at_qmgr, buf_slice(&tx->rcpts)),
        .prefix = buf_slice(&prefix),
        .body = buf_slice(&c->body),
        .large_len = c->large_len,
        .large_sum = c->large_len ? content_large_sum(c) : 0,
        .added = content_length(c) - c->data.sent,
    };
    ipc_commit_encode(channel_out(l->channel), &m);
    content_drop_memory(s);
    fault_point("smtpd.commit");
}

/* qmgr counts what it holds of us: commits, and files that wait for theirs. One
 * message alone may always go: otherwise it never would. */
static bool has_credit(const struct link *l, const struct link_message *m)
{
    uint32_t others = l->commits + l->larges - (m->large ? 1 : 0);
    if (l->commits == 0)
        return l->commit_credit > 0;
    return others < l->commit_credit && l->bytes + m->bytes <= l->byte_credit;
}

static void send_waiting(struct link *l)
{
    while (l->channel && !list_empty(&l->waiting)) {
        struct link_message *m = container_of(l->waiting.next, struct link_message, waiting);
        if (!has_credit(l, m))
            return;
        list_remove(&m->waiting);
        if (m->large)
            l->larges--;
        m->committing = true;
        l->commits++;
        l->bytes += m->bytes;
        send_commit(l, session_of(m));
    }
}

bool link_commit(struct link *l, struct session *s)
{
    struct link_message *m = &s->tx.at_qmgr;
    const struct content *c = s->tx.content;
    /* a large message is lost with the qmgr that opened its file */
    if (!l->channel || !l->known || (c->large_len && !m->tag))
        return false;
    open_message(l, m);
    m->bytes = c->body.len + s->tx.rcpts.len + s->tx.prepend.len + COMMIT_OVERHEAD;
    list_push(&l->waiting, &m->waiting);
    send_waiting(l);
    return true;
}

const struct refusal *link_open_large(struct link *l, struct session *s)
{
    struct link_message *m = &s->tx.at_qmgr;
    if (!l->channel || !l->known)
        return &no_queue;
    /* uploads that take their time must not use up the credit of all others */
    if (l->larges >= (l->commit_credit + 1) / 2)
        return &many_large;
    open_message(l, m);
    m->large = true;
    l->larges++;
    struct ipc_large_open open = {.tag = m->tag, .id = id_slice(&s->tx.id)};
    ipc_large_open_encode(channel_out(l->channel), &open);
    return NULL;
}

void link_abort(struct link *l, struct session *s)
{
    struct link_message *m = &s->tx.at_qmgr;
    if (!m->tag)
        return;
    if (l->channel && (m->large || m->committing)) {
        struct ipc_abort abort_message = {.tag = m->tag};
        ipc_abort_encode(channel_out(l->channel), &abort_message);
    }
    close_message(l, m);
    send_waiting(l);
}

const struct refusal *link_refuses(const struct link *l)
{
    if (!l->channel || !l->known)
        return &no_queue;
    return l->state == SPOOL_OK ? NULL : &states[l->state];
}

/* ---- answers -------------------------------------------------------------- */

static int on_state(struct link *l, const struct ipc_spool_state *m, struct err *e)
{
    if (m->state >= STATE_COUNT)
        return err_set(e, "spool state %u", m->state);
    l->known = true;
    l->state = m->state;
    l->commit_credit = m->commit_credit;
    l->byte_credit = m->byte_credit;
    send_waiting(l);
    return 0;
}

/* An answer may cross our ABORT: then nobody is waiting for it. */
static void on_committed(struct link *l, uint64_t tag)
{
    struct link_message *m = message_of(l, tag);
    if (!m || !m->committing)
        return;
    fault_point("smtpd.committed");
    close_message(l, m);
    session_committed(session_of(m));
    send_waiting(l);
}

static int on_refused(struct link *l, const struct ipc_refused *r, struct err *e)
{
    struct link_message *m = message_of(l, r->tag);
    if (r->code < 400 || r->code > 599)
        return err_set(e, "a refusal with code %u", r->code);
    if (!m)
        return 0;
    close_message(l, m);
    session_refused(session_of(m), r->code, r->enhanced, r->text);
    send_waiting(l);
    return 0;
}

static void on_large(struct link *l, uint64_t tag, int fd)
{
    struct link_message *m = message_of(l, tag);
    if (m && session_of(m)->wait == WAIT_LARGE)
        session_large_ready(session_of(m), fd);
    else
        close(fd);
}

static int on_frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg, struct err *e)
{
    struct link *l = arg;
    struct ipc_spool_state state;
    struct ipc_committed committed;
    struct ipc_refused refused;
    struct ipc_large_fd large;
    (void)c;
    switch (f->number) {
    case IPC_NUMBER_ipc_spool_state:
        if (ipc_spool_state_decode(f->body, &state) == 0)
            return on_state(l, &state, e);
        break;
    case IPC_NUMBER_ipc_committed:
        if (ipc_committed_decode(f->body, &committed) == 0) {
            on_committed(l, committed.tag);
            return 0;
        }
        break;
    case IPC_NUMBER_ipc_refused:
        if (ipc_refused_decode(f->body, &refused) == 0)
            return on_refused(l, &refused, e);
        break;
    case IPC_NUMBER_ipc_large_fd:
        if (ipc_large_fd_decode(f->body, &large) == 0) {
            on_large(l, large.tag, fd);
            return 0;
        }
        break;
    default:
        break;
    }
    if (fd >= 0)
        close(fd);
    return err_set(e, "unexpected or malformed %s", ipc_name(f->number));
}

/* What was at qmgr may or may not be in the spool: the client is told to try
 * again, which at worst makes a duplicate (P4) and never a loss. */
static void lose_messages(struct link *l)
{
    size_t at = 0, n = 0;
    struct link_message **all = xcalloc(l->messages.count + 1, sizeof(struct link_message *));
    for (struct link_message *m; (m = map_next(&l->messages, &at));)
        all[n++] = m;
    for (size_t i = 0; i < n; i++)
        close_message(l, all[i]);
    for (size_t i = 0; i < n; i++)
        session_refused(session_of(all[i]), no_queue.code, slice_str(no_queue.enhanced),
                        slice_str(no_queue.text));
    free(all);
}

static void on_closed(struct channel *c, const char *why, void *arg)
{
    struct link *l = arg;
    if (l->channel != c)
        return;
    log_warning("the link to qmgr is gone: %s; mail is refused with 451 until it is back", why);
    l->channel = NULL;
    l->known = false;
    lose_messages(l);
}

static const struct channel_ops link_ops = {on_frame, on_closed};

void link_attach(struct link *l, int fd)
{
    struct channel *old = l->channel;
    l->channel = NULL;
    l->known = false;
    if (old) {
        channel_free(old);
        lose_messages(l);
    }
    l->channel = channel_new(l->base, fd, "qmgr", &link_ops, l);
}

void link_init(struct link *l, struct event_base *base)
{
    *l = (struct link){.base = base};
    list_init(&l->waiting);
    map_init(&l->messages, message_key);
}

void link_free(struct link *l)
{
    channel_free(l->channel);
    l->channel = NULL;
    map_free(&l->messages);
}

/*
 * Notices to senders (RFC 3461, 3464): which are owed, what goes to bounce, and
 * what follows when they are in the spool. A notice's ID is made from its
 * message's, so making it again after a crash gives the same one (F09, F10).
 */
#include "core/fault.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/qmgr.h"

enum {
    OUTSTANDING_MAX = 64,
    CONTENT_MAX = 60 * 1024, /* of the original, in a notice */
    /* bounce writes each recipient twice, with words around it */
    GROWTH = 4,
    OVERHEAD = 4 * 1024
};

struct notice {
    struct list link; /* in notices.wanted while it is not sent */
    struct qmgr *q;
    struct message *m; /* pinned */
    struct id id;
    uint64_t tag;
    uint8_t kind;         /* enum notice_kind */
    bool without_content; /* the first try came back too large */
    uint32_t count;
    uint32_t rcpts[];
};

static struct slice tag_key(const void *value)
{
    const struct notice *n = value;
    return slice_make(&n->tag, sizeof n->tag);
}

void notices_init(struct qmgr *q)
{
    list_init(&q->notices.wanted);
    map_init(&q->notices.asked, tag_key);
}

/* ---- who hears of what ----------------------------------------------------------------- */

/* 'F', 'D', 'S', 'B' for one of our notices, or 0. */
static char kind_of(const struct id *id)
{
    return strlen(id->text) == ID_NOTICE_LEN ? id->text[ID_LEN] : 0;
}

bool notices_is_one(const struct message *m)
{
    return kind_of(&m->id) != 0;
}

bool notices_has_reader(const struct qmgr *q, const struct message *m)
{
    if (message_sender(m).len)
        return true;
    /* never a bounce of a bounce: one double bounce at most, about a failure */
    char kind = kind_of(&m->id);
    return q->s->config->double_bounce_recipient[0] && (kind == 0 || kind == 'F');
}

static bool wants_delay(const struct recipient *r)
{
    return r->state == RCPT_WAITING && (r->notify == 0 || (r->notify & NOTIFY_DELAY));
}

/* ---- starting one ------------------------------------------------------------------------- */

static struct notice *notice_new(struct qmgr *q, struct message *m, uint8_t kind,
                                 bool (*member)(const struct recipient *r, uint8_t number),
                                 uint8_t number)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < m->recipient_count; i++)
        count += member(&m->env->recipients[i], number);
    struct notice *n = xmalloc(sizeof *n + count * sizeof n->rcpts[0]);
    *n = (struct notice){.q = q, .m = m, .kind = kind};
    list_init(&n->link);
    for (uint32_t i = 0; i < m->recipient_count; i++)
        if (member(&m->env->recipients[i], number))
            n->rcpts[n->count++] = i;
    return n;
}

static bool is_failed(const struct recipient *r, uint8_t number)
{
    return r->state == RCPT_FAILED && r->notice == number;
}

static bool is_confirmed(const struct recipient *r, uint8_t number)
{
    (void)number;
    return r->state == RCPT_CONFIRMED;
}

static bool is_late(const struct recipient *r, uint8_t number)
{
    (void)number;
    return wants_delay(r);
}

static struct id failure_id(const struct message *m, unsigned number)
{
    if (message_sender(m).len)
        return id_notice(&m->id, 'F', number);
    /* a notice that fails has one recipient: its own number tells its double apart */
    if (kind_of(&m->id))
        number = (unsigned)m->id.text[ID_LEN + 1] % (NOTICE_LAST + 1);
    return id_notice(&m->id, 'B', number);
}

static struct notice *failure_notice(struct qmgr *q, struct message *m)
{
    struct envelope *e = m->env;
    uint8_t number = UINT8_MAX;
    for (uint32_t i = 0; i < m->recipient_count; i++)
        if (e->recipients[i].state == RCPT_FAILED && e->recipients[i].notice < number)
            number = e->recipients[i].notice;
    /* the last one waits for all that may still fail */
    if (number == NOTICE_LAST && e->left > e->failed + e->confirmed)
        return NULL;
    bool doubled = message_sender(m).len == 0;
    struct notice *n =
        notice_new(q, m, doubled ? NOTICE_DOUBLE : NOTICE_FAILURE, is_failed, number);
    n->id = failure_id(m, number);
    if (e->notice_next <= number && number < NOTICE_LAST) {
        e->notice_next = (uint8_t)(number + 1);
        e->notice_bytes = 0;
    }
    return n;
}

/* Derived from the first recipient, so that it is the same after a crash. */
static unsigned success_number(const struct message *m)
{
    uint32_t i = 0;
    while (i < m->recipient_count && m->env->recipients[i].state != RCPT_CONFIRMED)
        i++;
    return i % (NOTICE_LAST + 1);
}

static struct notice *success_notice(struct qmgr *q, struct message *m)
{
    unsigned number = success_number(m);
    struct notice *n = notice_new(q, m, NOTICE_SUCCESS, is_confirmed, 0);
    for (int tries = 0; tries <= NOTICE_LAST; tries++) {
        n->id = id_notice(&m->id, 'S', number);
        if (!queue_find(q, id_slice(&n->id)))
            break; /* otherwise it is an earlier one, of other recipients */
        number = (number + 1) % (NOTICE_LAST + 1);
    }
    return n;
}

static struct notice *delay_notice(struct qmgr *q, struct message *m)
{
    struct notice *n = notice_new(q, m, NOTICE_DELAY, is_late, 0);
    m->env->delay_due = false;
    if (n->count == 0 || message_sender(m).len == 0) {
        m->env->delay_sent = true;
        free(n);
        return NULL;
    }
    n->id = id_notice(&m->id, 'D', 0);
    return n;
}

static void complete(struct notice *n);

bool notices_start(struct qmgr *q, struct message *m)
{
    struct envelope *e = m->env;
    struct notice *n = NULL;
    if (e->noticing || !(e->failed || e->confirmed || e->delay_due))
        return e->noticing;
    if (m->flags & MESSAGE_DELETED)
        return false; /* nobody is told, unless it comes back */
    /* what else happens in this round of attempts goes into the same notice */
    if (!q->scanned || q->draining || e->queued || e->failing || e->notice_at > q->now)
        return false;
    if (e->failed)
        n = failure_notice(q, m);
    if (!n && e->confirmed)
        n = success_notice(q, m);
    if (!n && e->delay_due)
        n = delay_notice(q, m);
    if (!n)
        return false;
    e->noticing = true;
    message_pin(m);
    list_push(&q->notices.wanted, &n->link);
    return true;
}

/* If the notice is in the queue, those that it is about are done. */
static void found_one(struct qmgr *q, struct message *m, const struct id *id, uint8_t kind,
                      bool (*member)(const struct recipient *r, uint8_t number), uint8_t number)
{
    struct envelope *e = m->env;
    if (!queue_find(q, id_slice(id)))
        return;
    struct notice *n = notice_new(q, m, kind, member, number);
    if (n->count) {
        bool success = kind == NOTICE_SUCCESS;
        *(success ? &e->confirmed : &e->failed) -= n->count;
        events_notice(q, m, id, kind, n->count);
        recipients_done(q, m, n->rcpts, n->count, success ? SPOOL_SENT : SPOOL_BOUNCED);
    }
    free(n);
}

void notices_found(struct qmgr *q, struct message *m)
{
    uint8_t kind = message_sender(m).len ? NOTICE_FAILURE : NOTICE_DOUBLE;
    for (uint8_t number = 0; number <= NOTICE_LAST && m->env->failed; number++) {
        struct id id = failure_id(m, number);
        found_one(q, m, &id, kind, is_failed, number);
    }
    if (m->env->confirmed) {
        struct id id = id_notice(&m->id, 'S', success_number(m));
        found_one(q, m, &id, NOTICE_SUCCESS, is_confirmed, 0);
    }
}

/* ---- asking bounce --------------------------------------------------------------------------- */

static enum dsn_action action_of(const struct notice *n, const struct recipient *r)
{
    if (n->kind == NOTICE_DELAY)
        return ACTION_DELAYED;
    if (n->kind == NOTICE_SUCCESS)
        return r->answer && r->answer->final ? ACTION_DELIVERED : ACTION_RELAYED;
    return ACTION_FAILED;
}

static void add_recipient(const struct notice *n, uint32_t i, struct buf *list, bool brief)
{
    static struct buf words = {NULL, 0, 0, 2 * ANSWER_TEXT_MAX};
    const struct recipient *r = &n->m->env->recipients[i];
    char class = n->kind == NOTICE_SUCCESS ? '2' : n->kind == NOTICE_DELAY ? '4' : '5';
    char buffer[ENHANCED_MAX + 1];
    buf_clear(&words);
    /* what expired keeps the code of what held it up (4.x.x) */
    if (class == '5' && r->answer && r->answer->enhanced[0] == '4')
        class = '4';
    if (r->answer)
        answer_wire(r->answer, &words, NOTICE_DIAGNOSTIC_MAX);
    int64_t until = n->kind == NOTICE_DELAY ? retry_until(n->q, n->m) : 0;
    ipc_notice_rcpt_add(list,
                        &(struct ipc_notice_rcpt){
                            .address = recipient_address(n->m, i),
                            .orcpt = brief ? SLICE("") : recipient_orcpt(n->m, i),
                            .action = (uint8_t)action_of(n, r),
                            .status = answer_status(r->answer, class, buffer),
                            .diagnostic = brief ? SLICE("") : buf_slice(&words),
                            .remote = r->answer && !r->answer->local && r->answer->code,
                            .remote_mta = brief || !r->answer ? SLICE("") : answer_host(r->answer),
                            .last_attempt = r->answer ? r->answer->when : 0,
                            .retry_until = until,
                        });
}

/* The recipients, in brief if they are too many to be told in full; what does
 * not even fit then is in the log (their number of notices is used up). */
static void list_recipients(const struct notice *n, struct buf *list)
{
    for (int brief = 0; brief < 2; brief++) {
        buf_clear(list);
        uint32_t k = 0;
        while (k < n->count && list->len + 3 * ADDRESS_MAX + NOTICE_DIAGNOSTIC_MAX < list->max)
            add_recipient(n, n->rcpts[k++], list, brief);
        if (k == n->count)
            return;
        if (brief)
            log_error("%s: %u recipients are not listed in notice %s, which would be too large",
                      n->m->id.text, n->count - k, n->id.text);
    }
}

/* Where the header ends, its empty line included; all if there is none. */
static size_t header_len(struct slice content)
{
    for (size_t i = 0; i + 3 < content.len; i++)
        if (memcmp(content.ptr + i, "\r\n\r\n", 4) == 0)
            return i + 4;
    return content.len;
}

static size_t content_room(const struct notice *n, size_t list_len)
{
    size_t room = CONTENT_MAX, limit = (size_t)n->q->s->config->bounce_size_limit;
    size_t used = OVERHEAD + GROWTH * list_len;
    if (n->without_content || used >= INLINE_CONTENT_MAX)
        return 0;
    if (room > INLINE_CONTENT_MAX - used)
        room = INLINE_CONTENT_MAX - used;
    return room < limit ? room : limit;
}

static void send_request(struct notice *n, struct slice prefix, struct slice body)
{
    struct qmgr *q = n->q;
    const struct message *m = n->m;
    struct buf list = BUF_INIT(NOTICE_LIST_MAX + 4 * ADDRESS_MAX);
    struct buf content = BUF_INIT(CONTENT_MAX + INLINE_CONTENT_MAX);
    list_recipients(n, &list);
    size_t room = content_room(n, list.len);
    /* Nothing of what had to be encrypted all the way is in its notice, for which no such way
     * may be found (RFC 8689 section 5). */
    bool redacted = m->flags & MESSAGE_REQUIRETLS;
    bool full = n->kind != NOTICE_DELAY && n->kind != NOTICE_SUCCESS && m->env->ret != RET_HDRS &&
                !redacted && message_size(m) <= room;
    buf_adds(&content, slice_first(prefix, CONTENT_MAX));
    buf_adds(&content, slice_first(body, CONTENT_MAX));
    if (!full)
        content.len = header_len(buf_slice(&content));
    if (redacted)
        content.len = 0;
    if (content.len > room)
        content.len = room;
    bool doubled = n->kind == NOTICE_DOUBLE;
    struct ipc_notice_request out = {
        .tag = n->tag,
        .kind = n->kind,
        .notice_id = id_slice(&n->id),
        .id = id_slice(&m->id),
        .arrival = m->arrival,
        .sender = doubled ? slice_str(q->s->config->double_bounce_recipient) : message_sender(m),
        .original_sender = message_sender(m),
        .envid = message_envid(m),
        .ret = full ? RET_FULL : RET_HDRS,
        .flags = m->flags & MESSAGE_FLAGS_ALL,
        .size = message_size(m),
        .recipients = buf_slice(&list),
        .content = buf_slice(&content),
    };
    ipc_notice_request_encode(channel_out(q->notices.peer.channel), &out);
    map_put(&q->notices.asked, n);
    buf_free(&list);
    buf_free(&content);
}

static void on_content(struct slice prefix, struct slice body, const char *error, void *arg)
{
    struct notice *n = arg;
    if (!n->q->notices.peer.channel) { /* it died meanwhile */
        n->q->notices.outstanding--;
        list_push(&n->q->notices.wanted, &n->link);
        return;
    }
    if (error)
        log_error("%s: notice %s goes without the message, which cannot be read: %s", n->m->id.text,
                  n->id.text, error);
    send_request(n, prefix, body);
}

static void ask(struct notice *n)
{
    struct qmgr *q = n->q;
    const struct message *m = n->m;
    const struct body *b = m->env->body;
    n->tag = ++q->notices.next_tag;
    q->notices.outstanding++;
    if (b && !m->ref.large)
        send_request(n, slice_make(b->data, b->prefix_len),
                     slice_make(b->data + b->prefix_len, b->body_len));
    else
        store_read(q->store, &m->id, &m->ref, CONTENT_MAX, on_content, n);
}

void notices_turn(struct qmgr *q)
{
    struct notices *all = &q->notices;
    while (!list_empty(&all->wanted) && all->outstanding < OUTSTANDING_MAX) {
        struct notice *n = container_of(all->wanted.next, struct notice, link);
        bool exists = queue_find(q, id_slice(&n->id)) != NULL;
        if (!exists && !all->peer.channel)
            return; /* F14: asked when there is a bounce process again */
        list_remove(&n->link);
        if (exists)
            complete(n); /* made before a crash, and still on its way */
        else
            ask(n);
    }
}

/* ---- when it is in the spool --------------------------------------------------------------------
 */

static void finish(struct notice *n)
{
    struct qmgr *q = n->q;
    struct message *m = n->m;
    free(n);
    m->env->noticing = false;
    if (message_unpin(q, m))
        message_settle(q, m);
}

/* Recipients whose state changed meanwhile (deleted) are left alone. */
static uint32_t still_in(struct notice *n, enum recipient_state state)
{
    uint32_t count = 0;
    for (uint32_t k = 0; k < n->count; k++)
        if (n->m->env->recipients[n->rcpts[k]].state == state)
            n->rcpts[count++] = n->rcpts[k];
    return count;
}

static void complete(struct notice *n)
{
    struct qmgr *q = n->q;
    struct message *m = n->m;
    struct envelope *e = m->env;
    fault_point("qmgr.noticed");
    e->notice_at = 0;
    q->counters.notices++;
    events_notice(q, m, &n->id, n->kind, n->count);
    if (n->kind == NOTICE_DELAY) {
        struct buf out = BUF_INIT(SPOOL_RECORD_MAX);
        e->delay_sent = true;
        e->delay_due = false; /* it was deferred once more meanwhile: one warning is enough */
        if (!m->quarantined &&
            spool_record_encode(
                &out, &m->id,
                &(struct spool_record){.type = SPOOL_RECORD_DELAY_SENT, .when = clock_wall()}) == 0)
            store_record(q->store, &m->id, &m->ref, buf_slice(&out), NULL, NULL);
        buf_free(&out);
    } else if (n->kind == NOTICE_SUCCESS) {
        uint32_t count = still_in(n, RCPT_CONFIRMED);
        e->confirmed -= count;
        recipients_done(q, m, n->rcpts, count, SPOOL_SENT);
    } else {
        uint32_t count = still_in(n, RCPT_FAILED);
        e->failed -= count;
        recipients_done(q, m, n->rcpts, count, SPOOL_BOUNCED);
    }
    finish(n);
}

/* F22: no room for the notice. What it is about stays, and it is made again. */
static void on_committed(const char *error, void *arg)
{
    struct notice *n = arg;
    if (!error) {
        complete(n);
        return;
    }
    log_error("%s: notice %s could not be stored, made again in %llds: %s", n->m->id.text,
              n->id.text, (long long)(NOTICE_RETRY_DELAY / CLOCK_SECOND), error);
    n->m->env->notice_at = n->q->now + NOTICE_RETRY_DELAY;
    if (n->kind == NOTICE_DELAY)
        n->m->env->delay_due = true;
    finish(n);
}

/* ---- the channel
 * ---------------------------------------------------------------------------------- */

static int on_notice(struct qmgr *q, struct slice body, struct err *e)
{
    struct ipc_notice in;
    if (ipc_notice_decode(body, &in) < 0 || in.content.len == 0)
        return err_set(e, "malformed NOTICE");
    struct notice *n = map_get(&q->notices.asked, slice_make(&in.tag, sizeof in.tag));
    if (!n)
        return err_set(e, "NOTICE that was not asked for");
    map_remove(&q->notices.asked, tag_key(n));
    q->notices.outstanding--;
    if (in.content.len > INLINE_CONTENT_MAX) {
        if (n->without_content) {
            on_committed("it is too large", n);
            return 0;
        }
        n->without_content = true;
        list_push_front(&q->notices.wanted, &n->link);
        return 0;
    }
    if (queue_find(q, id_slice(&n->id))) {
        complete(n);
        return 0;
    }
    struct slice to = n->kind == NOTICE_DOUBLE ? slice_str(q->s->config->double_bounce_recipient)
                                               : message_sender(n->m);
    fault_point("qmgr.notice");
    intake_commit_notice(q, &n->id, n->m, to, in.flags, in.content, on_committed, n);
    return 0;
}

static int on_frame(struct peer *p, const struct ipc_frame *f, struct err *e)
{
    if (f->number != IPC_NUMBER_ipc_notice)
        return err_set(e, "%s is not for qmgr", ipc_name(f->number));
    return on_notice(p->q, f->body, e);
}

static void on_gone(struct peer *p)
{
    struct qmgr *q = p->q;
    q->notices.outstanding -= (uint32_t)q->notices.asked.count;
    size_t cursor = 0;
    struct notice *n;
    while ((n = map_next(&q->notices.asked, &cursor)))
        list_push(&q->notices.wanted, &n->link);
    map_clear(&q->notices.asked, NULL);
}

void notices_peer(struct qmgr *q, int fd)
{
    static const struct peer_ops ops = {on_frame, on_gone};
    peer_open(&q->notices.peer, q, fd, "bounce", &ops);
}

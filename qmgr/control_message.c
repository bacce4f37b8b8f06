/* message.show, and how a message is described in results. */
#include "core/clock.h"
#include "core/json.h"
#include "qmgr/control_client.h"

static const char *status_name(enum queue_status status)
{
    static const char *const names[] = {[QUEUE_ACTIVE] = "active",
                                        [QUEUE_DEFERRED] = "deferred",
                                        [QUEUE_HOLD] = "hold",
                                        [QUEUE_INCOMING] = "incoming",
                                        [QUEUE_DELETED] = "deleted"};
    return names[status];
}

static const char *recipient_state_name(enum recipient_state state)
{
    static const char *const names[] = {
        [RCPT_WAITING] = "waiting", [RCPT_QUEUED] = "queued",       [RCPT_FAILING] = "failed",
        [RCPT_FAILED] = "failed",   [RCPT_CONFIRMED] = "delivered", [RCPT_DONE] = "done"};
    return names[state];
}

static void describe_reply(struct buf *b, const struct answer *reply, bool brief)
{
    static struct buf words = {NULL, 0, 0, 8192};
    buf_clear(&words);
    answer_describe(reply, &words);
    json_str(b, "reply", buf_slice(&words));
    if (!brief)
        json_seconds(b, "reply_time", reply->when);
}

static void describe_recipient(struct control_client *c, struct buf *b, const struct message *m,
                               uint32_t i)
{
    struct queue_recipient r;
    queue_recipient(c->control->queue, m, i, &r);
    json_begin(b);
    json_str(b, "address", r.address);
    bool brief = c->request.brief;
    if (r.orcpt.len && !brief)
        json_str(b, "orcpt", r.orcpt);
    if (!brief)
        json_str(b, "state", slice_str(recipient_state_name(r.state)));
    json_int(b, "attempts", r.attempts);
    if (r.next)
        json_seconds(b, "next", r.next);
    if (r.answer)
        describe_reply(b, r.answer, brief);
    json_end(b);
}

static void describe_more(struct control_client *c, struct buf *b, const struct message *m)
{
    int64_t next = queue_next_attempt(c->control->queue, m);
    if (message_account(m).len)
        json_str(b, "account", message_account(m));
    if (message_envid(m).len)
        json_str(b, "envid", message_envid(m));
    if (m->flags & MESSAGE_NOTICE)
        json_bool(b, "notice", true);
    if (m->flags & MESSAGE_EXPIRED)
        json_bool(b, "forced_expire", true);
    if (next && queue_status(m) != QUEUE_DELETED)
        json_seconds(b, "next", next);
    json_int(b, "recipient_count", m->recipient_count);
}

void control_describe(struct control_client *c, struct buf *b, struct message *m)
{
    size_t start = b->len;
    uint32_t i = 0, left = 0;
    json_str(b, "id", id_slice(&m->id));
    json_str(b, "status", slice_str(status_name(queue_status(m))));
    json_seconds(b, "arrival", m->arrival);
    json_int(b, "size", (int64_t)message_size(m));
    json_str(b, "sender", message_sender(m));
    if (queue_status(m) == QUEUE_DELETED)
        json_seconds(b, "kept_until", queue_next_attempt(c->control->queue, m));
    if (!c->request.brief)
        describe_more(c, b, m);
    json_list(b, "recipients");
    for (; i < m->recipient_count; i++) {
        if (m->env->recipients[i].state == RCPT_DONE)
            continue;
        if (b->len - start < CONTROL_RESULT_MAX)
            describe_recipient(c, b, m, i);
        else
            left++;
    }
    json_list_end(b);
    if (left)
        json_int(b, "recipients_left_out", left);
}

/* ---- message.show ---------------------------------------------------------------- */

/* Content is any bytes, JSON is not: it travels in base64. */
static void add_base64(struct buf *b, struct slice s)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < s.len; i += 3) {
        size_t n = s.len - i < 3 ? s.len - i : 3;
        uint32_t bits = 0;
        for (size_t k = 0; k < 3; k++)
            bits = bits << 8 | (k < n ? (unsigned char)s.ptr[i + k] : 0u);
        char out[4] = {digits[bits >> 18], digits[bits >> 12 & 63],
                       n > 1 ? digits[bits >> 6 & 63] : '=', n > 2 ? digits[bits & 63] : '='};
        buf_add(b, out, 4);
    }
}

static void content_counts(struct control_client *c, struct buf *b)
{
    json_int(b, "content_bytes", (int64_t)c->request.content.len);
    json_int(b, "content_total", (int64_t)c->request.content_total);
}

static void send_content(struct control_client *c)
{
    struct control_request *r = &c->request;
    while (r->content_sent < r->content.len) {
        if (control_full(c)) {
            control_more(c, send_content);
            return;
        }
        struct slice piece =
            slice_first(slice_from(buf_slice(&r->content), r->content_sent), CONTROL_CONTENT_PIECE);
        struct buf base64 = BUF_INIT(2 * CONTROL_CONTENT_PIECE);
        add_base64(&base64, piece);
        json_str(control_line_begin(c), "content", buf_slice(&base64));
        control_line_end(c);
        buf_free(&base64);
        r->content_sent += piece.len;
    }
    control_done(c, content_counts);
}

static void content_read(struct slice prefix, struct slice body, const char *error, void *arg)
{
    struct control_client *c = arg;
    if (!control_unpin(c))
        return;
    if (error) {
        control_fail(c, "The message's content cannot be read: %s.", error);
        return;
    }
    buf_adds(&c->request.content, slice_first(prefix, CONTROL_CONTENT_MAX));
    buf_adds(&c->request.content, slice_first(body, CONTROL_CONTENT_MAX - c->request.content.len));
    send_content(c);
}

static enum walk_answer show_one(struct control_client *c, struct message *m)
{
    control_describe(c, control_line_begin(c), m);
    control_line_end(c);
    c->request.content_total = message_size(m);
    return WALK_STOP;
}

static void shown(struct control_client *c)
{
    const json_t *part = control_asked(c, "content");
    struct message *m = queue_find(c->control->queue, id_slice(&c->request.id));
    if (c->request.matched == 0)
        control_fail(c,
                     "There is no message %s in the queue; it may have been delivered: "
                     "'postern trace %s' tells.",
                     c->request.id.text, c->request.id.text);
    else if (!json_is_true(part))
        control_done(c, NULL);
    else if (!m)
        control_fail(c, "The message has just left the queue.");
    else {
        control_pin(c);
        queue_read(c->control->queue, m, CONTROL_CONTENT_MAX, content_read, c);
    }
}

static enum walk_answer visit(struct message *m, void *arg)
{
    struct control_client *c = arg;
    c->request.matched++;
    return show_one(c, m);
}

static void visited(void *arg)
{
    struct control_client *c = arg;
    c->request.walk = NULL;
    shown(c);
}

void control_message_show(struct control_client *c)
{
    if (!control_id(c))
        return;
    c->request.walk =
        queue_visit_one(c->control->queue, WALK_BOTH, id_slice(&c->request.id), visit, visited, c);
}

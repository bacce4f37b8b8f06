/* queue.summary: the queue by domains of recipients. */
#include <stdlib.h>

#include "core/clock.h"
#include "core/json.h"
#include "core/mem.h"
#include "qmgr/control_client.h"

enum { SUMMARY_REPLY_MAX = 200 };

struct summary_row {
    struct slice domain; /* lower case, in name */
    uint64_t recipients, by_status[QUEUE_STATUSES];
    int64_t oldest; /* wall microseconds */
    int64_t reply_when;
    struct buf reply; /* the latest */
    char name[256];
};

static struct slice row_key(const void *value)
{
    return ((const struct summary_row *)value)->domain;
}

static void row_free(void *value)
{
    struct summary_row *row = value;
    buf_free(&row->reply);
    free(row);
}

void control_summary_free(struct control_request *r)
{
    if (!r->domains.key)
        return;
    map_clear(&r->domains, row_free);
    map_free(&r->domains);
}

/* The domain's row; past CONTROL_SUMMARY_MAX domains all others share one. */
static struct summary_row *row_of(struct control_request *r, struct slice address)
{
    char name[256];
    struct slice domain = slice_first(slice_from(address, slice_rchr(address, '@') + 1), 255);
    for (size_t i = 0; i < domain.len; i++)
        name[i] = domain.ptr[i] >= 'A' && domain.ptr[i] <= 'Z' ? (char)(domain.ptr[i] | 0x20)
                                                               : domain.ptr[i];
    struct slice key = slice_make(name, domain.len);
    struct summary_row *row = map_get(&r->domains, key);
    if (row)
        return row;
    if (r->domains.count >= CONTROL_SUMMARY_MAX) {
        key = SLICE("(others)");
        if ((row = map_get(&r->domains, key)))
            return row;
    }
    row = xcalloc(1, sizeof *row);
    memcpy(row->name, key.ptr, key.len);
    row->domain = slice_make(row->name, key.len);
    row->reply = BUF_INIT(1024);
    map_put(&r->domains, row);
    return row;
}

static enum walk_answer count_one(struct control_client *c, struct message *m)
{
    struct control_request *r = &c->request;
    enum queue_status status = queue_status(m);
    r->by_status[status]++;
    for (uint32_t i = 0; i < m->recipient_count; i++) {
        struct queue_recipient rcpt;
        queue_recipient(c->control->queue, m, i, &rcpt);
        if (rcpt.state == RCPT_DONE)
            continue;
        struct summary_row *row = row_of(r, rcpt.address);
        row->recipients++;
        row->by_status[status]++;
        if (!row->oldest || m->arrival < row->oldest)
            row->oldest = m->arrival;
        if (rcpt.answer && rcpt.answer->when >= row->reply_when) {
            row->reply_when = rcpt.answer->when;
            buf_clear(&row->reply);
            answer_wire(rcpt.answer, &row->reply, SUMMARY_REPLY_MAX);
        }
    }
    return WALK_ON;
}

static void statuses(struct buf *b, const uint64_t by_status[QUEUE_STATUSES])
{
    json_int(b, "active", (int64_t)by_status[QUEUE_ACTIVE]);
    json_int(b, "deferred", (int64_t)by_status[QUEUE_DEFERRED]);
    json_int(b, "hold", (int64_t)by_status[QUEUE_HOLD]);
    json_int(b, "incoming", (int64_t)by_status[QUEUE_INCOMING]);
    if (by_status[QUEUE_DELETED])
        json_int(b, "deleted", (int64_t)by_status[QUEUE_DELETED]);
}

static void totals(struct control_client *c, struct buf *b)
{
    json_int(b, "messages", (int64_t)c->request.matched);
    json_int(b, "recipients", (int64_t)c->request.recipients);
    json_int(b, "bytes", (int64_t)c->request.bytes);
    statuses(b, c->request.by_status);
}

static void send_rows(struct control_client *c)
{
    struct control_request *r = &c->request;
    struct summary_row *row;
    while (!control_full(c) && (row = map_next(&r->domains, &r->domain_cursor))) {
        struct buf *b = control_line_begin(c);
        json_str(b, "domain", row->domain);
        json_int(b, "recipients", (int64_t)row->recipients);
        statuses(b, row->by_status);
        json_seconds(b, "oldest", row->oldest);
        if (row->reply.len)
            json_str(b, "reply", buf_slice(&row->reply));
        control_line_end(c);
    }
    if (control_full(c))
        control_more(c, send_rows);
    else
        control_done(c, totals);
}

void control_queue_summary(struct control_client *c)
{
    if (!control_selection(c))
        return;
    map_init(&c->request.domains, row_key);
    control_walk(c, count_one, send_rows);
}

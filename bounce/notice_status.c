/* The second part: what programs read (RFC 3464; RFC 6533 for international
 * addresses). When all recipients do not fit in full, each says less. */
#include "bounce/notice.h"
#include "mail/dsn_field.h"
#include "mail/dsn_words.h"

static const struct detail {
    size_t diagnostic; /* bytes of it; 0: none */
    bool optional;     /* fields that RFC 3464 does not require */
} details[] = {{512, true}, {120, true}, {60, false}, {0, false}};

enum { DETAIL_COUNT = sizeof details / sizeof details[0] };

/* "rfc822; a@b", "utf-8; ä@b" or, in an ASCII report, "utf-8; \x{E4}@b". */
static int address_field(const struct notice *n, struct buf *b, const char *name,
                         struct slice address)
{
    if (!dsn_is_8bit(address))
        return dsn_field(b, name, "rfc822;", address, false);
    if (n->utf8)
        return dsn_field(b, name, "utf-8;", address, true);
    struct buf plain = BUF_INIT(b->max);
    int rc = dsn_add_utf8_xtext(&plain, address);
    if (rc == 0)
        rc = dsn_field(b, name, "utf-8;", buf_slice(&plain), false);
    buf_free(&plain);
    return rc;
}

/* ORCPT comes as "type;address", decoded. */
static int original_recipient(const struct notice *n, struct buf *b, struct slice orcpt)
{
    struct slice address = orcpt;
    struct slice type = slice_cut(&address, ';');
    if (slice_caseeq(type, SLICE("rfc822")) || slice_caseeq(type, SLICE("utf-8")))
        return address_field(n, b, "Original-Recipient", address);
    return dsn_field(b, "Original-Recipient", "", orcpt, n->utf8);
}

static int message_fields(const struct notice *n, struct buf *b)
{
    const struct ipc_notice_request *r = n->request;
    if (r->envid.len && dsn_field(b, "Original-Envelope-Id", "", r->envid, false) < 0)
        return -1;
    if (dsn_field(b, "Reporting-MTA", "dns;", n->identity->hostname, n->utf8) < 0 ||
        dsn_field(b, "X-Postern-Queue-ID", "", r->id, false) < 0 ||
        address_field(n, b, "X-Postern-Sender", r->original_sender) < 0)
        return -1;
    return dsn_field_date(b, "Arrival-Date", r->arrival);
}

static const char *action_name(uint8_t action)
{
    static const char *const names[] = {
        [ACTION_FAILED] = "failed",       [ACTION_DELAYED] = "delayed",
        [ACTION_DELIVERED] = "delivered", [ACTION_RELAYED] = "relayed",
        [ACTION_EXPANDED] = "expanded",
    };
    return action < sizeof names / sizeof names[0] ? names[action] : names[ACTION_FAILED];
}

/* RFC 3464 requires a status: where none came, the class follows from the action. */
static struct slice status_of(const struct ipc_notice_rcpt *r)
{
    if (dsn_status_valid(r->status))
        return r->status;
    if (r->action == ACTION_DELAYED)
        return SLICE("4.0.0");
    return r->action == ACTION_FAILED || r->action > ACTION_EXPANDED ? SLICE("5.0.0")
                                                                     : SLICE("2.0.0");
}

static int recipient_fields(const struct notice *n, struct buf *b, const struct ipc_notice_rcpt *r,
                            const struct detail *d)
{
    if (buf_add(b, "\r\n", 2) < 0)
        return -1;
    if (r->orcpt.len && d->optional && original_recipient(n, b, r->orcpt) < 0)
        return -1;
    if (address_field(n, b, "Final-Recipient", r->address) < 0 ||
        buf_printf(b, "Action: %s\r\n", action_name(r->action)) < 0 ||
        dsn_field(b, "Status", "", status_of(r), false) < 0)
        return -1;
    if (r->remote && r->remote_mta.len && d->optional &&
        dsn_field(b, "Remote-MTA", "dns;", r->remote_mta, n->utf8) < 0)
        return -1;
    if (r->diagnostic.len && d->diagnostic &&
        dsn_field_quoted(b, "Diagnostic-Code", r->remote ? "smtp;" : "x-postern;", r->diagnostic,
                         d->diagnostic) < 0)
        return -1;
    if (d->optional && dsn_field_date(b, "Last-Attempt-Date", r->last_attempt) < 0)
        return -1;
    if (r->action == ACTION_DELAYED && d->optional &&
        dsn_field_date(b, "Will-Retry-Until", r->retry_until) < 0)
        return -1;
    return 0;
}

/* Writes all at one level of detail; returns how many recipients fit. */
static size_t try_detail(const struct notice *n, struct buf *b, const struct detail *d)
{
    size_t listed = 0;
    buf_clear(b);
    if (message_fields(n, b) < 0) {
        buf_clear(b);
        return 0;
    }
    struct ipc_cursor cursor = ipc_list_cursor(n->request->recipients);
    struct ipc_notice_rcpt r;
    while (ipc_notice_rcpt_next(&cursor, &r)) {
        size_t before = b->len;
        if (recipient_fields(n, b, &r, d) < 0) {
            b->len = before;
            break;
        }
        listed++;
    }
    return listed;
}

void notice_status(struct notice *n, struct buf *out, size_t room)
{
    struct buf part = BUF_INIT(room);
    size_t listed = 0;
    for (size_t i = 0; i < DETAIL_COUNT; i++)
        if ((listed = try_detail(n, &part, &details[i])) == n->count)
            break;
    n->unlisted = n->count - listed;
    buf_adds(out, buf_slice(&part));
    buf_free(&part);
}

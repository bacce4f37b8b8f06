/* Puts a notice together: header, three parts, boundaries. */
#include "bounce/notice.h"

#include <string.h>

#include "mail/dsn_field.h"

enum { BOUNDARY_MAX = 64 };

static const char *subject_of(uint8_t kind)
{
    static const char *const subjects[] = {
        [NOTICE_FAILURE] = "Your message could not be delivered",
        [NOTICE_DELAY] = "Your message is delayed",
        [NOTICE_SUCCESS] = "Your message was delivered",
        [NOTICE_DOUBLE] = "Undeliverable message from a sender who cannot be told",
    };
    return kind < sizeof subjects / sizeof subjects[0] ? subjects[kind] : subjects[NOTICE_FAILURE];
}

static struct slice header_of(struct slice content)
{
    const char *end = content.len ? memmem(content.ptr, content.len, "\r\n\r\n", 4) : NULL;
    return end ? slice_first(content, (size_t)(end - content.ptr)) : content;
}

/* Counts the recipients and finds out whether the notice is international: the
 * original was (so its sender's side can take such mail) and something in the
 * notice is not ASCII. */
static int look_over(struct notice *n, struct err *e)
{
    const struct ipc_notice_request *r = n->request;
    bool beyond_ascii = dsn_is_8bit(r->sender) || dsn_is_8bit(r->original_sender) ||
                        dsn_is_8bit(header_of(r->content));
    struct ipc_cursor cursor = ipc_list_cursor(r->recipients);
    struct ipc_notice_rcpt rcpt;
    while (ipc_notice_rcpt_next(&cursor, &rcpt)) {
        n->count++;
        beyond_ascii = beyond_ascii || dsn_is_8bit(rcpt.address) || dsn_is_8bit(rcpt.orcpt);
    }
    if (cursor.failed)
        return err_set(e, "a notice request's recipients cannot be decoded");
    n->utf8 = beyond_ascii && (r->flags & MESSAGE_SMTPUTF8);
    return 0;
}

/* A boundary that is in none of the parts. It comes from the queue ID, so that
 * the same notice made again is the same. */
static void choose_boundary(char boundary[BOUNDARY_MAX], const struct notice *n,
                            const struct slice *parts, size_t count)
{
    struct slice id = slice_first(n->request->notice_id, 32);
    for (unsigned attempt = 0;; attempt++) {
        struct buf b = BUF_INIT(BOUNDARY_MAX - 1);
        buf_printf(&b, "=_%u_", attempt);
        for (size_t i = 0; i < id.len; i++)
            buf_addc(&b, (id.ptr[i] >= '0' && id.ptr[i] <= '9') ||
                                 ((id.ptr[i] | 0x20) >= 'a' && (id.ptr[i] | 0x20) <= 'z')
                             ? id.ptr[i]
                             : '.');
        bool found = false;
        for (size_t i = 0; i < count && !found; i++)
            found = parts[i].len && memmem(parts[i].ptr, parts[i].len, b.data, b.len) != NULL;
        memcpy(boundary, b.data, b.len);
        boundary[b.len] = '\0';
        buf_free(&b);
        if (!found)
            return;
    }
}

static void add_header(const struct notice *n, struct buf *out, int64_t now, const char *boundary,
                       bool eight_bit)
{
    const struct ipc_notice_request *r = n->request;
    const struct notice_identity *id = n->identity;
    bool named = slice_chr(id->from, '<') < id->from.len;
    struct buf value = BUF_INIT(NOTICE_HEADER_MAX);

    dsn_field_date(out, "Date", now);
    buf_printf(&value, named ? "%.*s" : "Mail Delivery System <%.*s>", SLICE_ARG(id->from));
    dsn_field(out, "From", "", buf_slice(&value), n->utf8);
    buf_clear(&value);
    buf_printf(&value, "<%.*s>", SLICE_ARG(slice_first(r->sender, 900)));
    dsn_field(out, "To", "", buf_slice(&value), n->utf8);
    dsn_field(out, "Subject", "", slice_str(subject_of(r->kind)), false);
    buf_clear(&value);
    buf_printf(&value, "<%.*s@%.*s>", SLICE_ARG(r->notice_id), SLICE_ARG(id->hostname));
    dsn_field(out, "Message-ID", "", buf_slice(&value), n->utf8);
    buf_printf(out, "Auto-Submitted: %s\r\n",
               r->kind == NOTICE_DOUBLE ? "auto-generated" : "auto-replied");
    buf_printf(out,
               "MIME-Version: 1.0\r\n"
               "Content-Type: multipart/report; report-type=delivery-status;\r\n"
               " boundary=\"%s\"\r\n"
               "%s\r\n"
               "This is a report in MIME format (RFC 6522).\r\n",
               boundary, eight_bit ? "Content-Transfer-Encoding: 8bit\r\n" : "");
    buf_free(&value);
}

static void add_part(struct buf *out, const char *boundary, const char *type,
                     const char *description, struct slice part)
{
    buf_printf(out,
               "\r\n--%s\r\n"
               "Content-Type: %s\r\n"
               "Content-Description: %s\r\n"
               "%s\r\n",
               boundary, type, description,
               dsn_is_8bit(part) ? "Content-Transfer-Encoding: 8bit\r\n" : "");
    buf_adds(out, part);
}

static void add_returned(const struct notice *n, struct buf *out, const char *boundary,
                         struct slice part)
{
    bool global = n->utf8 && dsn_is_8bit(header_of(part));
    if (n->returned == RETURNED_ALL)
        add_part(out, boundary, global ? "message/global" : "message/rfc822", "Original message",
                 part);
    else if (n->returned != RETURNED_NOTHING)
        add_part(out, boundary, global ? "message/global-headers" : "text/rfc822-headers",
                 "Header of the original message", part);
}

int notice_compose(const struct ipc_notice_request *request, const struct notice_identity *identity,
                   int64_t now, struct buf *out, uint32_t *flags, struct err *e)
{
    struct notice n = {.request = request, .identity = identity};
    struct buf parts[3] = {BUF_INIT(NOTICE_TEXT_MAX), BUF_INIT(NOTICE_CONTENT_MAX),
                           BUF_INIT(NOTICE_CONTENT_MAX)};
    char boundary[BOUNDARY_MAX];
    if (look_over(&n, e) < 0)
        return -1;

    size_t room = NOTICE_CONTENT_MAX - NOTICE_HEADER_MAX - NOTICE_TEXT_MAX;
    notice_status(&n, &parts[1], room - NOTICE_RETURN_MIN);
    notice_return(&n, &parts[2], room - parts[1].len - 2);
    notice_text(&n, &parts[0]);

    struct slice s[3];
    bool eight_bit = false;
    for (int i = 0; i < 3; i++) {
        s[i] = buf_slice(&parts[i]);
        eight_bit = eight_bit || dsn_is_8bit(s[i]);
    }
    choose_boundary(boundary, &n, s, 3);
    add_header(&n, out, now, boundary, eight_bit);
    add_part(out, boundary, n.utf8 ? "text/plain; charset=utf-8" : "text/plain; charset=us-ascii",
             "Notice", s[0]);
    add_part(out, boundary, n.utf8 ? "message/global-delivery-status" : "message/delivery-status",
             "Delivery report", s[1]);
    add_returned(&n, out, boundary, s[2]);
    buf_printf(out, "\r\n--%s--\r\n", boundary);

    *flags = (uint32_t)MESSAGE_NOTICE | (eight_bit ? (uint32_t)MESSAGE_8BIT : 0) |
             (n.utf8 ? (uint32_t)MESSAGE_SMTPUTF8 : 0);
    for (int i = 0; i < 3; i++)
        buf_free(&parts[i]);
    return 0;
}

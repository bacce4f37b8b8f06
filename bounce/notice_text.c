/* The first part: what people read. It says what happened to which recipient,
 * in the words of the other side where there are any, and what to do. */
#include "bounce/notice.h"

#include <stdio.h>

#include "mail/dsn_field.h"
#include "mail/dsn_words.h"

enum { TAIL_RESERVE = 2 * 1024, PARAGRAPH_MAX = 4096 };

/* One wrapped paragraph made from a format; what does not fit is left out. */
static void say(const struct notice *n, struct buf *b, const char *indent, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void say(const struct notice *n, struct buf *b, const char *indent, const char *format, ...)
{
    struct buf line = BUF_INIT(PARAGRAPH_MAX);
    size_t before = b->len;
    va_list args;
    va_start(args, format);
    int rc = buf_vprintf(&line, format, args);
    va_end(args);
    if (rc == 0)
        rc = dsn_paragraph(b, indent, buf_slice(&line), n->utf8);
    if (rc < 0)
        b->len = before;
    buf_free(&line);
}

static void blank(struct buf *b)
{
    buf_add(b, "\r\n", 2);
}

/* "the following recipient", "the following 12 recipients" */
static const char *recipients(const struct notice *n, char *text, size_t size)
{
    if (n->count == 1)
        return "the following recipient";
    snprintf(text, size, "the following %zu recipients", n->count);
    return text;
}

static void opening(const struct notice *n, struct buf *b)
{
    char text[64];
    const char *who = recipients(n, text, sizeof text);
    const struct slice sender = n->request->original_sender;
    say(n, b, "", "This is the mail system at %.*s.", SLICE_ARG(n->identity->hostname));
    blank(b);
    switch (n->request->kind) {
    case NOTICE_DELAY:
        say(n, b, "",
            "Your message has not yet been delivered to %s. It is still in the queue, and delivery "
            "is tried again. You need not send it again.",
            who);
        break;
    case NOTICE_SUCCESS:
        say(n, b, "", "You asked for a report on your message. It has left this system for %s.",
            who);
        break;
    case NOTICE_DOUBLE:
        say(n, b, "",
            "A message could not be delivered to %s, and its sender cannot be told. You get this "
            "notice because this system is configured to send such notices to you. The message's "
            "sender was <%.*s>.",
            who, SLICE_ARG(sender));
        break;
    default:
        say(n, b, "", "Your message could not be delivered to %s. It is not tried again.", who);
    }
    blank(b);
}

static void peer_words(const struct notice *n, struct buf *b, const struct ipc_notice_rcpt *r)
{
    if (slice_trim(r->diagnostic).len == 0)
        return;
    if (!r->remote)
        say(n, b, "    ", "This mail system says:");
    else if (r->remote_mta.len)
        say(n, b, "    ", "The mail server %.*s said:", SLICE_ARG(slice_first(r->remote_mta, 255)));
    else
        say(n, b, "    ", "The other mail server said:");
    struct buf quoted = BUF_INIT(PARAGRAPH_MAX);
    buf_add_escaped(&quoted, slice_trim(r->diagnostic), NOTICE_TEXT_DIAGNOSTIC);
    say(n, b, "        ", "%.*s", SLICE_ARG(buf_slice(&quoted)));
    buf_free(&quoted);
}

static void what_happened(const struct notice *n, struct buf *b, const struct ipc_notice_rcpt *r)
{
    const struct dsn_words *words = dsn_explain(r->status);
    switch (r->action) {
    case ACTION_DELIVERED:
        say(n, b, "    ", "The message was delivered.");
        break;
    case ACTION_RELAYED:
        say(n, b, "    ",
            "The message was handed to a mail server that does not report on delivery. You may not "
            "hear of it again.");
        break;
    case ACTION_EXPANDED:
        say(n, b, "    ", "The message was handed to a list of recipients.");
        break;
    case ACTION_DELAYED:
        say(n, b, "    ", "%s", words->happened);
        break;
    default:
        say(n, b, "    ", "%s %s", words->happened, words->advice);
    }
}

/* 0, or -1 (and nothing appended) if the recipient does not fit. */
static int one_recipient(const struct notice *n, struct buf *b, const struct ipc_notice_rcpt *r)
{
    size_t before = b->len;
    if (buf_addc(b, '<') < 0 || dsn_add_safe(b, slice_first(r->address, 900), n->utf8) < 0 ||
        buf_addstr(b, ">\r\n") < 0) {
        b->len = before;
        return -1;
    }
    what_happened(n, b, r);
    peer_words(n, b, r);
    if (r->action == ACTION_DELAYED && r->retry_until > 0) {
        struct buf date = BUF_INIT(128);
        dsn_field_date(&date, "    Delivery is tried until", r->retry_until);
        buf_adds(b, buf_slice(&date));
        buf_free(&date);
    }
    if (buf_add(b, "\r\n", 2) < 0) {
        b->len = before;
        return -1;
    }
    return 0;
}

/* Returns how many recipients the text does not speak of. */
static size_t all_recipients(const struct notice *n, struct buf *b)
{
    struct ipc_cursor cursor = ipc_list_cursor(n->request->recipients);
    struct ipc_notice_rcpt r;
    size_t told = 0;
    while (told < NOTICE_TEXT_RECIPIENTS && ipc_notice_rcpt_next(&cursor, &r) &&
           one_recipient(n, b, &r) == 0)
        told++;
    return n->count - told;
}

static void returned(const struct notice *n, struct buf *b)
{
    switch (n->returned) {
    case RETURNED_ALL:
        say(n, b, "", "Your message follows after the report.");
        break;
    case RETURNED_HEADER:
    case RETURNED_HEADER_BEGINNING:
        say(n, b, "", "%s of your message follows after the report%s.",
            n->returned == RETURNED_HEADER ? "The header" : "The beginning of the header",
            n->too_large ? "; the whole message is too large to be returned" : "");
        break;
    case RETURNED_NOTHING:
        if (n->request->flags & MESSAGE_REQUIRETLS)
            say(n, b, "",
                "Your message required TLS on its whole way (REQUIRETLS). Nothing of it is in this "
                "notice, which may have to take a way without.");
        break;
    }
}

void notice_text(const struct notice *n, struct buf *out)
{
    struct buf b = BUF_INIT(NOTICE_TEXT_MAX - TAIL_RESERVE);
    opening(n, &b);
    size_t untold = all_recipients(n, &b);
    b.max = NOTICE_TEXT_MAX;
    if (untold) {
        say(n, &b, "", "The report that follows lists the other %zu recipients.", untold);
        blank(&b);
    }
    if (n->unlisted) {
        say(n, &b, "", "%zu of them did not fit into it.", n->unlisted);
        blank(&b);
    }
    returned(n, &b);
    say(n, &b, "",
        "If you need help, write to <%.*s> and include this notice, or at least the queue ID "
        "%.*s.",
        SLICE_ARG(n->identity->contact), SLICE_ARG(n->request->id));
    buf_adds(out, buf_slice(&b));
    buf_free(&b);
}

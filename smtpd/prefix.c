#include "smtpd/prefix.h"

#include "core/mem.h"
#include "mail/date.h"
#include "mail/message_id.h"
#include "mail/received.h"
#include "smtpd/content.h"
#include "smtpd/limits.h"

static void add_received(struct session *s, struct buf *out)
{
    /* RFC 3848, RFC 6531 section 4.3; who has authenticated has said EHLO */
    static const struct slice protocols[2][2][3] = {
        {{{"SMTP", 4}, {"ESMTP", 5}, {"UTF8SMTP", 8}},
         {{"SMTP", 4}, {"ESMTPS", 6}, {"UTF8SMTPS", 9}}},
        {{{"SMTP", 4}, {"ESMTPA", 6}, {"UTF8SMTPA", 9}},
         {{"SMTP", 4}, {"ESMTPSA", 7}, {"UTF8SMTPSA", 10}}},
    };
    bool utf8 = (s->tx.flags & MESSAGE_SMTPUTF8) != 0;
    char tls_text[RECEIVED_TLS_MAX];
    struct buf tls = {tls_text, 0, sizeof tls_text, sizeof tls_text};
    secure_received(s, &tls);
    struct received r = {
        .helo = slice_str(s->helo),
        .client_name = session_client_name(s),
        .client_addr = session_client_address(s),
        .myhostname = slice_str(s->server->config->myhostname),
        .protocol = protocols[s->login && !s->login->implied][secure_is_on(s)][utf8 ? 2 : s->esmtp],
        .tls = buf_slice(&tls),
        .id = id_slice(&s->tx.id),
        .recipient = tx_single_recipient(&s->tx),
        .arrival = s->tx.arrival,
        .local = s->local_user,
        .uid = s->uid,
    };
    if (received_compose(&r, out) < 0)
        panic("the Received line does not fit");
}

void prefix_prepare(struct session *s)
{
    struct content *c = s->tx.content;
    struct header_scan *h = &c->header;
    if (!s->server->submission || h->count[HEADER_MESSAGE_ID])
        return;
    struct buf value = {h->message_id, 0, sizeof h->message_id, sizeof h->message_id};
    if (message_id_make(&value, s->tx.arrival, id_slice(&s->tx.id),
                        slice_str(s->server->config->myhostname)) < 0)
        panic("the Message-ID does not fit");
    h->message_id_len = (uint8_t)value.len;
    c->made_message_id = true;
}

static void add_missing(const struct session *s, struct buf *out)
{
    const struct content *c = s->tx.content;
    if (c->header.count[HEADER_DATE] == 0) {
        buf_addstr(out, "Date: ");
        buf_adds(out, mail_date(s->tx.arrival));
        buf_add(out, "\r\n", 2);
    }
    if (c->made_message_id) {
        buf_addstr(out, "Message-ID: ");
        buf_add(out, c->header.message_id, c->header.message_id_len);
        buf_add(out, "\r\n", 2);
    }
}

void prefix_compose(struct session *s, struct buf *out)
{
    const struct header_scan *h = &s->tx.content->header;
    buf_adds(out, buf_slice(&s->tx.prepend)); /* before our trace line, as in Postfix */
    add_received(s, out);
    if (s->server->submission)
        add_missing(s, out);
    if (h->no_blank_line && h->size == 0)
        buf_add(out, "\r\n", 2);
}

#include "mail/received.h"

#include "mail/date.h"

enum { RECEIVED_HELO_MAX = 255 };

/* Appends peer text as one harmless word: no blanks, nothing that begins or
 * ends a comment, a quoted string or the date. */
static int add_word(struct slice s, struct buf *out)
{
    static const char special[] = "()<>\\\";,@";
    s = slice_first(s, RECEIVED_HELO_MAX);
    if (s.len == 0)
        return buf_addstr(out, "unknown");
    if (buf_reserve(out, s.len) < 0)
        return -1;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool plain = c > ' ' && c < 0x7f && !memchr(special, c, sizeof special - 1);
        out->data[out->len++] = plain ? c : '?';
    }
    return 0;
}

/* An address that was parsed: anything printable, UTF-8 included. */
static int add_recipient(struct slice s, struct buf *out)
{
    if (buf_reserve(out, s.len) < 0)
        return -1;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        out->data[out->len++] = c < ' ' || c == 0x7f ? '?' : (char)c;
    }
    return 0;
}

static int add_from(const struct received *r, struct buf *out)
{
    bool v6 = slice_chr(r->client_addr, ':') < r->client_addr.len;
    if (buf_addstr(out, "Received: from ") < 0 || add_word(r->helo, out) < 0 ||
        buf_addstr(out, " (") < 0 || add_word(r->client_name, out) < 0 ||
        buf_addstr(out, v6 ? " [IPv6:" : " [") < 0 || add_word(r->client_addr, out) < 0)
        return -1;
    return buf_addstr(out, "])\r\n") < 0 ? -1 : buf_adds(out, r->tls);
}

static int add_user(const struct received *r, struct buf *out)
{
    if (buf_addstr(out, "Received: by ") < 0 || buf_adds(out, r->myhostname) < 0)
        return -1;
    return buf_printf(out, " (Postern, from userid %u)\r\n\tid %.*s", r->uid, SLICE_ARG(r->id));
}

static int add_by(const struct received *r, struct buf *out)
{
    if (buf_addstr(out, "\tby ") < 0 || buf_adds(out, r->myhostname) < 0 ||
        buf_addstr(out, " (Postern) with ") < 0 || buf_adds(out, r->protocol) < 0 ||
        buf_addstr(out, " id ") < 0)
        return -1;
    return buf_adds(out, r->id);
}

static int add_for(const struct received *r, struct buf *out)
{
    if (r->recipient.len == 0)
        return buf_addstr(out, ";\r\n\t");
    if (buf_addstr(out, "\r\n\tfor <") < 0 || add_recipient(r->recipient, out) < 0)
        return -1;
    return buf_addstr(out, ">; ");
}

int received_compose(const struct received *r, struct buf *out)
{
    size_t before = out->len;
    int rc = r->local ? add_user(r, out) : add_from(r, out);
    if (rc == 0 && !r->local)
        rc = add_by(r, out);
    if (rc == 0 && add_for(r, out) == 0 && buf_adds(out, mail_date(r->arrival)) == 0 &&
        buf_addstr(out, "\r\n") == 0)
        return 0;
    out->len = before;
    return -1;
}

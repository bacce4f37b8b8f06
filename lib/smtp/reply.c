#include "smtp/reply.h"

#include "smtp/address.h"

enum reply_state { CODE_1, CODE_2, CODE_3, SEPARATOR, TEXT, OVER };

void reply_init(struct smtp_reply *r)
{
    *r = (struct smtp_reply){.text = BUF_INIT(REPLY_BYTES_MAX)};
}

void reply_free(struct smtp_reply *r)
{
    buf_free(&r->text);
    reply_reset(r);
}

void reply_reset(struct smtp_reply *r)
{
    struct buf text = r->text;
    buf_clear(&text);
    *r = (struct smtp_reply){.utf8 = r->utf8, .text = text};
}

static bool all_digits(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
    return s.len > 0;
}

/* class.subject.detail (RFC 2034 4) at the front of the first line, kept only
 * if its class is the code's. */
static void find_enhanced(struct smtp_reply *r, struct slice line)
{
    struct slice word = slice_first(line, slice_chr(line, ' ')), rest = word;
    struct slice class = slice_cut(&rest, '.'), subject = slice_cut(&rest, '.');
    if (word.len > REPLY_ENHANCED_MAX || class.len != 1 || class.ptr[0] != '0' + r->code / 100 ||
        class.ptr[0] == '3')
        return;
    if (subject.len > 3 || !all_digits(subject) || rest.len > 3 || !all_digits(rest))
        return;
    memcpy(r->enhanced, word.ptr, word.len);
    r->enhanced[word.len] = '\0';
}

/* The line's text is in r->text from line_at on, its LF included. */
static enum reply_status end_line(struct smtp_reply *r)
{
    struct slice line = slice_from(buf_slice(&r->text), r->line_at);
    line.len--;
    if (line.len && line.ptr[line.len - 1] == '\r') {
        line.len--;
        r->text.data[r->line_at + line.len] = '\n';
        r->text.len--;
    }
    if (slice_chr(line, '\0') < line.len || slice_chr(line, '\r') < line.len)
        return REPLY_MALFORMED;
    if (r->utf8 ? !utf8_valid(line) : has_8bit(line))
        return REPLY_MALFORMED;
    if (r->lines == 0)
        r->code = r->line_code;
    else if (r->code != r->line_code)
        return REPLY_MIXED;
    if (r->lines++ == 0)
        find_enhanced(r, line);
    r->line_at = (uint32_t)r->text.len;
    r->line_code = 0;
    r->state = CODE_1;
    if (r->separator != '-')
        return REPLY_DONE;
    return r->lines == REPLY_LINES_MAX ? REPLY_TOO_LONG : REPLY_MORE;
}

/* The four bytes before the text. */
static enum reply_status prefix_byte(struct smtp_reply *r, char c)
{
    if (r->state == SEPARATOR) {
        r->separator = (uint8_t)c;
        r->state = TEXT;
        if (c == ' ' || c == '-')
            return REPLY_MORE;
        /* "250" CRLF: no text at all. The line end is read as text. */
        if ((c != '\r' && c != '\n') || buf_addc(&r->text, c) < 0)
            return REPLY_MALFORMED;
        return c == '\n' ? end_line(r) : REPLY_MORE;
    }
    if (c < '0' || c > '9' || (r->state == CODE_1 && (c < '2' || c > '5')))
        return REPLY_MALFORMED;
    r->line_code = (uint16_t)(r->line_code * 10 + (c - '0'));
    r->state++;
    return REPLY_MORE;
}

static enum reply_status text_bytes(struct smtp_reply *r, struct slice in, size_t *taken)
{
    size_t lf = slice_chr(in, '\n');
    *taken = 1;
    if (r->separator == '\r' && in.ptr[0] != '\n')
        return REPLY_MALFORMED; /* "250" CR and then no LF */
    *taken = lf < in.len ? lf + 1 : lf;
    if (buf_add(&r->text, in.ptr, *taken) < 0)
        return REPLY_TOO_LONG;
    return lf < in.len ? end_line(r) : REPLY_MORE;
}

enum reply_status reply_feed(struct smtp_reply *r, struct slice in, size_t *consumed)
{
    enum reply_status status = REPLY_MORE;
    size_t at = 0;
    if (r->state == OVER) {
        *consumed = 0;
        return (enum reply_status)r->separator;
    }
    while (at < in.len && status == REPLY_MORE) {
        size_t taken = 1;
        if (r->bytes >= REPLY_BYTES_MAX) {
            status = REPLY_TOO_LONG;
            break;
        }
        struct slice rest = slice_first(slice_from(in, at), REPLY_BYTES_MAX - r->bytes);
        status = r->state == TEXT ? text_bytes(r, rest, &taken) : prefix_byte(r, rest.ptr[0]);
        at += taken;
        r->bytes += (uint32_t)taken;
    }
    *consumed = at;
    if (status != REPLY_MORE) {
        r->state = OVER;
        r->separator = (uint8_t)status;
    }
    return status;
}

bool reply_line(struct slice *rest, struct slice *line)
{
    if (rest->len == 0)
        return false;
    *line = slice_cut(rest, '\n');
    return true;
}

void reply_text(const struct smtp_reply *r, struct buf *out, size_t max)
{
    struct slice rest = buf_slice(&r->text), line;
    size_t limit = out->len + max;
    bool first = true;
    while (reply_line(&rest, &line)) {
        if (!first && line.len && out->len < limit && buf_addc(out, ' ') < 0)
            return;
        if (out->len >= limit || buf_adds(out, slice_first(line, limit - out->len)) < 0)
            return;
        first = first && line.len == 0;
    }
}

const char *reply_trouble(enum reply_status status)
{
    switch (status) {
    case REPLY_MORE:
    case REPLY_DONE:
        return "";
    case REPLY_MALFORMED:
        return "malformed reply";
    case REPLY_MIXED:
        return "reply whose lines have different codes";
    case REPLY_TOO_LONG:
        return "reply longer than 100 lines or 64 KiB";
    }
    return "";
}

#include "tables/wire.h"

#include "core/hex.h"

/* ---- tcp ------------------------------------------------------------------- */

int tcp_table_request(struct slice key, struct buf *out)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t start = out->len;
    int rc = buf_addstr(out, "get ");
    for (size_t i = 0; i < key.len && rc == 0; i++) {
        unsigned char c = (unsigned char)key.ptr[i];
        if (c > ' ' && c < 0x7f && c != '%')
            rc = buf_addc(out, (char)c);
        else
            rc = buf_add(out, (char[]){'%', digits[c >> 4], digits[c & 15]}, 3);
    }
    if (rc == 0)
        rc = buf_addc(out, '\n');
    if (rc == 0 && out->len - start <= TCP_TABLE_LINE_MAX)
        return 0;
    out->len = start;
    return -1;
}

/* Every % is followed by two digits. */
static bool is_encoded(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] != '%')
            continue;
        if (i + 2 >= text.len || hex_digit(text.ptr[i + 1]) < 0 || hex_digit(text.ptr[i + 2]) < 0)
            return false;
        i += 2;
    }
    return true;
}

/* The status words of a reply. */
static int parse_status(struct slice line, struct table_reply *out)
{
    static const struct {
        struct slice code;
        enum table_result result;
    } codes[] = {
        {{"200", 3}, TABLE_FOUND}, {{"500", 3}, TABLE_NOT_FOUND}, {{"400", 3}, TABLE_ERROR}};
    out->text = slice_from(line, 4);
    if (line.len > 3 && line.ptr[3] != ' ')
        return -1;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (slice_eq(slice_first(line, 3), codes[i].code)) {
            out->result = codes[i].result;
            return 0;
        }
    return -1;
}

enum table_reply_status tcp_table_reply(struct slice in, struct table_reply *out)
{
    size_t end = slice_chr(slice_first(in, TCP_TABLE_LINE_MAX), '\n');
    *out = (struct table_reply){.result = TABLE_ERROR};
    if (end >= TCP_TABLE_LINE_MAX)
        return TABLE_REPLY_BAD;
    if (end == in.len)
        return TABLE_REPLY_MORE;
    out->used = end + 1;
    if (parse_status(slice_first(in, end), out) < 0)
        return TABLE_REPLY_BAD;
    return out->result != TABLE_FOUND || is_encoded(out->text) ? TABLE_REPLY_DONE : TABLE_REPLY_BAD;
}

int tcp_table_decode(struct slice text, struct buf *value)
{
    int rc = 0;
    for (size_t i = 0; i < text.len && rc == 0; i++) {
        if (text.ptr[i] != '%' || i + 2 >= text.len) {
            rc = buf_addc(value, text.ptr[i]);
            continue;
        }
        int high = hex_digit(text.ptr[i + 1]), low = hex_digit(text.ptr[i + 2]);
        rc = high < 0 || low < 0 ? -1 : buf_addc(value, (char)(high << 4 | low));
        i += 2;
    }
    return rc;
}

/* ---- socketmap ------------------------------------------------------------- */

int socketmap_request(struct slice name, struct slice key, struct buf *out)
{
    size_t start = out->len;
    if (buf_printf(out, "%zu:", name.len + 1 + key.len) == 0 && buf_adds(out, name) == 0 &&
        buf_addc(out, ' ') == 0 && buf_adds(out, key) == 0 && buf_addc(out, ',') == 0)
        return 0;
    out->len = start;
    return -1;
}

/* The length before the colon: digits without needless zeros. Sets *colon. */
static enum table_reply_status netstring_length(struct slice in, size_t *colon, size_t *length)
{
    enum { DIGITS_MAX = 6 };
    size_t n = 0;
    *length = 0;
    while (n < in.len && n < DIGITS_MAX && in.ptr[n] >= '0' && in.ptr[n] <= '9') {
        if (n > 0 && in.ptr[0] == '0')
            return TABLE_REPLY_BAD;
        *length = *length * 10 + (size_t)(in.ptr[n++] - '0');
    }
    if (*length > SOCKETMAP_REPLY_MAX)
        return TABLE_REPLY_BAD;
    if (n == in.len)
        return TABLE_REPLY_MORE;
    *colon = n;
    return n > 0 && in.ptr[n] == ':' ? TABLE_REPLY_DONE : TABLE_REPLY_BAD;
}

static int parse_answer(struct slice body, struct table_reply *out)
{
    static const struct {
        struct slice word;
        enum table_result result;
    } words[] = {{{"OK", 2}, TABLE_FOUND},
                 {{"NOTFOUND", 8}, TABLE_NOT_FOUND},
                 {{"TEMP", 4}, TABLE_ERROR},
                 {{"TIMEOUT", 7}, TABLE_ERROR},
                 {{"PERM", 4}, TABLE_ERROR}};
    struct slice word = slice_cut(&body, ' ');
    out->text = body;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (slice_eq(word, words[i].word)) {
            out->result = words[i].result;
            return 0;
        }
    return -1;
}

enum table_reply_status socketmap_reply(struct slice in, struct table_reply *out)
{
    size_t colon = 0, length;
    *out = (struct table_reply){.result = TABLE_ERROR};
    enum table_reply_status status = netstring_length(in, &colon, &length);
    if (status != TABLE_REPLY_DONE)
        return status;
    struct slice body = slice_from(in, colon + 1);
    if (body.len <= length)
        return TABLE_REPLY_MORE;
    if (body.ptr[length] != ',')
        return TABLE_REPLY_BAD;
    out->used = colon + 1 + length + 1;
    return parse_answer(slice_first(body, length), out) < 0 ? TABLE_REPLY_BAD : TABLE_REPLY_DONE;
}

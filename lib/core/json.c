#include "core/json.h"

/* A comma is due unless the value is the first after '{', '[', ':' or a line. */
static void name_it(struct buf *b, const char *name)
{
    char last = b->len ? b->data[b->len - 1] : '\n';
    if (last != '{' && last != '[' && last != ':' && last != '\n')
        buf_addc(b, ',');
    if (name) {
        buf_addc(b, '"');
        buf_addstr(b, name);
        buf_add(b, "\":", 2);
    }
}

void json_begin(struct buf *b)
{
    name_it(b, NULL);
    buf_addc(b, '{');
}

void json_end(struct buf *b)
{
    buf_addc(b, '}');
}

void json_list(struct buf *b, const char *name)
{
    name_it(b, name);
    buf_addc(b, '[');
}

void json_list_end(struct buf *b)
{
    buf_addc(b, ']');
}

void json_member(struct buf *b, const char *name)
{
    name_it(b, name);
    buf_addc(b, '{');
}

/* Length of the well-formed UTF-8 sequence at p (RFC 3629), or 0. */
static size_t utf8_len(const unsigned char *p, size_t left)
{
    size_t n = p[0] < 0x80                   ? 1
               : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
               : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
               : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
                                             : 0;
    if (n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

static void add_string(struct buf *b, struct slice s)
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char *p = (const unsigned char *)s.ptr;
    size_t plain = 0, i = 0;
    buf_addc(b, '"');
    while (i < s.len) {
        unsigned char c = p[i];
        size_t n = c >= 0x20 && c < 0x7f   ? 1
                   : c < 0x20 || c == 0x7f ? 0
                                           : utf8_len(p + i, s.len - i);
        if (n && c != '"' && c != '\\') {
            i += n;
            continue;
        }
        buf_add(b, s.ptr + plain, i - plain);
        if (c == '"' || c == '\\')
            buf_add(b, (char[]){'\\', (char)c}, 2);
        else if (c == '\n')
            buf_add(b, "\\n", 2);
        else if (c == '\r')
            buf_add(b, "\\r", 2);
        else if (c == '\t')
            buf_add(b, "\\t", 2);
        else if (c < 0x80)
            buf_add(b, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
        else
            buf_add(b, "\\ufffd", 6);
        plain = ++i;
    }
    buf_add(b, s.ptr + plain, s.len - plain);
    buf_addc(b, '"');
}

void json_str(struct buf *b, const char *name, struct slice value)
{
    name_it(b, name);
    add_string(b, value);
}

void json_int(struct buf *b, const char *name, int64_t value)
{
    name_it(b, name);
    if (value < 0)
        buf_addc(b, '-');
    buf_addu64(b, value < 0 ? -(uint64_t)value : (uint64_t)value);
}

void json_bool(struct buf *b, const char *name, bool value)
{
    name_it(b, name);
    buf_addstr(b, value ? "true" : "false");
}

void json_seconds(struct buf *b, const char *name, int64_t microseconds)
{
    uint64_t all = microseconds < 0 ? -(uint64_t)microseconds : (uint64_t)microseconds;
    char fraction[7] = {'.'};
    uint64_t rest = all % 1000000;
    for (int i = 6; i > 0; i--, rest /= 10)
        fraction[i] = (char)('0' + rest % 10);
    name_it(b, name);
    if (microseconds < 0)
        buf_addc(b, '-');
    buf_addu64(b, all / 1000000);
    buf_add(b, fraction, sizeof fraction);
}

void json_raw(struct buf *b, const char *name, struct slice json)
{
    name_it(b, name);
    buf_adds(b, json);
}

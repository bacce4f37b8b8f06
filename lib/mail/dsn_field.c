#include "mail/dsn_field.h"

#include <stdio.h>
#include <time.h>

#include "core/clock.h"

/* Length of the well-formed sequence at the start of s, or 0; its character. */
static size_t utf8_take(struct slice s, uint32_t *character)
{
    const unsigned char *p = (const unsigned char *)s.ptr;
    if (s.len == 0)
        return 0;
    size_t n = p[0] < 0x80   ? 1
               : p[0] < 0xc2 ? 0
               : p[0] < 0xe0 ? 2
               : p[0] < 0xf0 ? 3
               : p[0] < 0xf5 ? 4
                             : 0;
    static const uint8_t lead_mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (n == 0 || n > s.len)
        return 0;
    uint32_t c = p[0] & lead_mask[n];
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return 0;
    *character = c;
    return n;
}

bool dsn_is_8bit(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] >= 0x80)
            return true;
    return false;
}

bool dsn_is_utf8(struct slice s)
{
    uint32_t c;
    for (size_t n; s.len; s = slice_from(s, n))
        if ((n = utf8_take(s, &c)) == 0)
            return false;
    return true;
}

int dsn_add_safe(struct buf *b, struct slice value, bool utf8)
{
    bool keep = utf8 && dsn_is_utf8(value);
    if (buf_reserve(b, value.len) < 0)
        return -1;
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        bool bad = c < 0x20 || c == 0x7f || (c >= 0x80 && !keep);
        b->data[b->len++] = bad ? '?' : (char)c;
    }
    return 0;
}

int dsn_add_xtext(struct buf *b, struct slice value)
{
    int rc = 0;
    for (size_t i = 0; i < value.len && rc == 0; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        if (c > 0x20 && c < 0x7f && c != '+' && c != '=')
            rc = buf_addc(b, (char)c);
        else
            rc = buf_printf(b, "+%02X", c);
    }
    return rc;
}

int dsn_add_utf8_xtext(struct buf *b, struct slice value)
{
    int rc = 0;
    size_t n;
    for (; value.len && rc == 0; value = slice_from(value, n)) {
        uint32_t c;
        n = utf8_take(value, &c);
        if (n == 0) {
            n = 1;
            rc = buf_addc(b, '?');
        } else if (c > 0x20 && c < 0x7f && c != '+' && c != '=' && c != '\\') {
            rc = buf_addc(b, (char)c);
        } else {
            rc = buf_printf(b, "\\x{%02X}", c);
        }
    }
    return rc;
}

/* The longest beginning of `text` that goes on a line with `room` bytes left:
 * up to its last space if all does not fit, else up to its first space, and at
 * most `most` bytes. `text` is not empty. */
static size_t line_part(struct slice text, size_t room, size_t most)
{
    if (text.len <= room)
        return text.len;
    size_t cut = room;
    while (cut > 0 && text.ptr[cut] != ' ')
        cut--;
    if (cut == 0)
        cut = slice_chr(text, ' ');
    if (cut > most) {
        cut = most;
        while (cut > most - 4 && ((unsigned char)text.ptr[cut] & 0xc0) == 0x80)
            cut--; /* not within a UTF-8 character */
    }
    return cut;
}

static struct slice skip_spaces(struct slice s)
{
    while (s.len && s.ptr[0] == ' ')
        s = slice_from(s, 1);
    return s;
}

/* Lines of safe text; `used` bytes of the first line are taken already. */
static int add_wrapped(struct buf *b, const char *indent, size_t used, struct slice text)
{
    size_t indent_len = strlen(indent);
    enum { LONGEST = DSN_LINE_MAX - 120 }; /* leaves room for name, type and indent */
    text = slice_trim(text);
    do {
        size_t room = used < DSN_LINE_FOLD ? DSN_LINE_FOLD - used : 0;
        size_t n = text.len ? line_part(text, room, LONGEST) : 0;
        if (buf_adds(b, slice_first(text, n)) < 0 || buf_add(b, "\r\n", 2) < 0)
            return -1;
        text = skip_spaces(slice_from(text, n));
        if (text.len && buf_addstr(b, indent) < 0)
            return -1;
        used = indent_len;
    } while (text.len);
    return 0;
}

/* "Name: prefix" and then the safe text, folded. */
static int add_field(struct buf *b, const char *name, const char *prefix, struct slice text)
{
    size_t start = b->len;
    if (buf_addstr(b, name) < 0 || buf_add(b, ": ", 2) < 0 || buf_addstr(b, prefix) < 0 ||
        (*prefix && buf_addc(b, ' ') < 0))
        return -1;
    return add_wrapped(b, " ", b->len - start, text);
}

int dsn_field(struct buf *b, const char *name, const char *prefix, struct slice value, bool utf8)
{
    struct buf safe = BUF_INIT(b->max);
    int rc = dsn_add_safe(&safe, value, utf8);
    if (rc == 0)
        rc = add_field(b, name, prefix, buf_slice(&safe));
    buf_free(&safe);
    return rc;
}

int dsn_field_quoted(struct buf *b, const char *name, const char *prefix, struct slice text,
                     size_t max)
{
    struct buf safe = BUF_INIT(b->max);
    int rc = buf_add_escaped(&safe, slice_trim(text), max);
    if (rc == 0)
        rc = add_field(b, name, prefix, buf_slice(&safe));
    buf_free(&safe);
    return rc;
}

int dsn_paragraph(struct buf *b, const char *indent, struct slice text, bool utf8)
{
    struct buf safe = BUF_INIT(b->max);
    int rc = dsn_add_safe(&safe, text, utf8);
    if (rc == 0)
        rc = buf_addstr(b, indent);
    if (rc == 0)
        rc = add_wrapped(b, indent, strlen(indent), buf_slice(&safe));
    buf_free(&safe);
    return rc;
}

int dsn_field_date(struct buf *b, const char *name, int64_t when)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t seconds = (time_t)(when / CLOCK_SECOND);
    struct tm tm;
    if (when <= 0 || !gmtime_r(&seconds, &tm) || tm.tm_year > 9999 - 1900)
        return 0;
    return buf_printf(b, "%s: %s, %d %s %d %02d:%02d:%02d +0000\r\n", name, days[tm.tm_wday],
                      tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min,
                      tm.tm_sec);
}

#include "core/hex.h"
#include "smtp/address.h"
#include "smtp/params.h"

static const struct slice utf8_type = {"utf-8", 5};

/* Appends a code point in UTF-8; -1 if it is none. */
static int add_utf8(uint32_t point, struct buf *out)
{
    unsigned char u[4];
    size_t n = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
        return -1;
    for (size_t i = n; i-- > 1; point >>= 6)
        u[i] = (unsigned char)(0x80 | (point & 0x3f));
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    u[0] = (unsigned char)(lead[n] | point);
    return buf_add(out, u, n);
}

/* "\x{HEX}" at the front of *in: appends its character and cuts it off. */
static int decode_escape(struct slice *in, struct buf *out)
{
    static const struct slice open = {"\\x{", 3};
    enum { DIGITS_MAX = 6 };
    uint32_t point = 0;
    if (!slice_starts(*in, open))
        return -1;
    struct slice rest = slice_from(*in, open.len);
    size_t close = slice_chr(rest, '}');
    if (close == 0 || close == rest.len || close > DIGITS_MAX)
        return -1;
    for (size_t i = 0; i < close; i++) {
        int digit = hex_digit(rest.ptr[i]);
        if (digit < 0)
            return -1;
        point = point * 16 + (uint32_t)digit;
    }
    *in = slice_from(rest, close + 1);
    return add_utf8(point, out);
}

/* utf-8-addr-xtext and utf-8-addr-unitext (RFC 6533 3) to plain UTF-8. */
static int decode_unicode(struct slice in, bool smtputf8, struct buf *out)
{
    while (in.len) {
        unsigned char c = (unsigned char)in.ptr[0];
        int rc;
        if (c == '\\') {
            rc = decode_escape(&in, out);
        } else {
            rc = xtext_char(c) || (c >= 0x80 && smtputf8) ? buf_addc(out, (char)c) : -1;
            in = slice_from(in, 1);
        }
        if (rc < 0)
            return -1;
    }
    return 0;
}

static bool type_valid(struct slice type)
{
    for (size_t i = 0; i < type.len; i++) {
        char c = type.ptr[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') &&
            c != '-')
            return false;
    }
    return type.len > 0;
}

int orcpt_decode(struct slice in, bool smtputf8, struct buf *out)
{
    struct slice rest = in, type = slice_cut(&rest, ';');
    if (!type_valid(type) || rest.len == 0)
        return -1;
    if (buf_adds(out, type) < 0 || buf_addc(out, ';') < 0)
        return -1;
    if (slice_caseeq(type, utf8_type))
        return decode_unicode(rest, smtputf8, out);
    return xtext_decode(rest, out);
}

/* ---- encoding -------------------------------------------------------------- */

/* The code point at the front of s, which is not empty, and its bytes. Bytes
 * that are not UTF-8 stand for themselves. */
static uint32_t code_point(struct slice s, size_t *len)
{
    unsigned char c = (unsigned char)s.ptr[0];
    size_t n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    uint32_t point = n == 1 ? c : c & (0xffu >> (n + 1));
    *len = 1;
    if (n > s.len || !utf8_valid(slice_first(s, n)))
        return c;
    for (size_t i = 1; i < n; i++)
        point = point << 6 | ((unsigned char)s.ptr[i] & 0x3f);
    *len = n;
    return point;
}

static int encode_unicode(struct slice in, bool smtputf8, struct buf *out)
{
    while (in.len) {
        size_t n;
        uint32_t point = code_point(in, &n);
        bool plain =
            point < 0x80 ? point != '\\' && xtext_char((unsigned char)point) : smtputf8 && n > 1;
        int rc = plain ? buf_add(out, in.ptr, n) : buf_printf(out, "\\x{%X}", (unsigned)point);
        if (rc < 0)
            return -1;
        in = slice_from(in, n);
    }
    return 0;
}

int orcpt_encode(struct slice orcpt, bool smtputf8, struct buf *out)
{
    struct slice rest = orcpt, type = slice_cut(&rest, ';');
    size_t before = out->len;
    int rc = type_valid(type) && type.len < orcpt.len ? 0 : -1;
    if (rc == 0 && (buf_adds(out, type) < 0 || buf_addc(out, ';') < 0))
        rc = -1;
    if (rc == 0)
        rc = slice_caseeq(type, utf8_type) ? encode_unicode(rest, smtputf8, out)
                                           : xtext_encode(rest, out);
    if (rc < 0)
        out->len = before;
    return rc;
}

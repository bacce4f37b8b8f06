#include "core/hex.h"
#include "smtp/params.h"

bool xtext_char(unsigned char c)
{
    return c >= 0x21 && c <= 0x7e && c != '+' && c != '=';
}

int xtext_decode(struct slice in, struct buf *out)
{
    while (in.len) {
        char c = in.ptr[0];
        size_t taken = 1;
        if (c == '+') {
            /* RFC 3461 wants upper case; some senders do not know */
            int high = in.len > 2 ? hex_digit(in.ptr[1]) : -1;
            int low = in.len > 2 ? hex_digit(in.ptr[2]) : -1;
            if (high < 0 || low < 0)
                return -1;
            c = (char)(high * 16 + low);
            taken = 3;
        } else if (!xtext_char((unsigned char)c)) {
            return -1;
        }
        if (buf_addc(out, c) < 0)
            return -1;
        in = slice_from(in, taken);
    }
    return 0;
}

int xtext_encode(struct slice in, struct buf *out)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < in.len; i++) {
        unsigned char c = (unsigned char)in.ptr[i];
        int rc = xtext_char(c) ? buf_addc(out, (char)c)
                               : buf_add(out, (char[]){'+', digits[c >> 4], digits[c & 15]}, 3);
        if (rc < 0)
            return -1;
    }
    return 0;
}

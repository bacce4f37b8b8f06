#include "smtp/sasl.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* ---- base64 ------------------------------------------------------------------ */

/* The six bits of a letter, or -1. */
static int bits_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

long base64_decode(struct slice text, char *out, size_t size)
{
    size_t len = 0, pad = 0;
    uint32_t group = 0;
    if (text.len % 4)
        return -1;
    while (pad < 2 && pad < text.len && text.ptr[text.len - 1 - pad] == '=')
        pad++;
    size_t letters = text.len - pad;
    if (letters / 4 * 3 + letters % 4 * 3 / 4 > size)
        return -1;
    for (size_t i = 0; i < letters; i++) {
        int bits = bits_of(text.ptr[i]);
        if (bits < 0)
            return -1;
        group = group << 6 | (uint32_t)bits;
        if (i % 4)
            out[len++] = (char)(group >> (6 - i % 4 * 2));
    }
    /* with 1 or 2 letters of padding 2 or 4 bits belong to no byte */
    return pad && group & ((1U << pad * 2) - 1) ? -1 : (long)len;
}

int base64_encode(struct slice in, struct buf *out)
{
    if (buf_reserve(out, (in.len + 2) / 3 * 4) < 0)
        return -1;
    for (size_t i = 0; i < in.len; i += 3) {
        uint32_t group = 0;
        for (size_t k = 0; k < 3; k++)
            group = group << 8 | (i + k < in.len ? (unsigned char)in.ptr[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            out->data[out->len++] = i + k <= in.len ? alphabet[group >> (18 - 6 * k) & 63] : '=';
    }
    return 0;
}

/* ---- mechanisms ---------------------------------------------------------------- */

bool sasl_is_mechanism(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (!(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '-' && c != '_')
            return false;
    }
    return name.len > 0 && name.len <= SASL_MECHANISM_MAX;
}

int sasl_plain_parse(struct slice message, struct sasl_plain *out)
{
    struct slice rest = message;
    size_t first = slice_chr(rest, '\0');
    if (first == rest.len)
        return -1;
    out->authzid = slice_first(rest, first);
    rest = slice_from(rest, first + 1);
    size_t second = slice_chr(rest, '\0');
    if (second == rest.len)
        return -1;
    out->user = slice_first(rest, second);
    out->password = slice_from(rest, second + 1);
    bool good = out->authzid.len <= SASL_USER_MAX && out->user.len > 0 &&
                out->user.len <= SASL_USER_MAX && out->password.len > 0 &&
                out->password.len <= SASL_PASSWORD_MAX &&
                slice_chr(out->password, '\0') == out->password.len;
    return good ? 0 : -1;
}

#include "smtp/xattr.h"

#include <arpa/inet.h>

#include "smtp/params.h"

static const char *const names[XATTR_COUNT] = {
    [XATTR_NAME] = "NAME",         [XATTR_ADDR] = "ADDR",         [XATTR_PORT] = "PORT",
    [XATTR_PROTO] = "PROTO",       [XATTR_HELO] = "HELO",         [XATTR_LOGIN] = "LOGIN",
    [XATTR_DESTADDR] = "DESTADDR", [XATTR_DESTPORT] = "DESTPORT", [XATTR_IDENT] = "IDENT",
    [XATTR_SOURCE] = "SOURCE",
};

const char *xattr_text(enum xattr_name name)
{
    return names[name];
}

static int find_name(struct slice text, enum xattr_name *out)
{
    for (int i = 0; i < XATTR_COUNT; i++)
        if (slice_caseeq(text, slice_str(names[i]))) {
            *out = (enum xattr_name)i;
            return 0;
        }
    return -1;
}

/* Values go into log lines, header fields and requests to policy servers. */
static void make_printable(struct xattr *a)
{
    for (size_t i = 0; i < a->len; i++)
        if (a->value[i] < ' ' || a->value[i] > '~')
            a->value[i] = '?';
    a->value[a->len] = '\0';
}

int xattr_next(struct slice *in, struct xattr *out)
{
    *in = slice_trim(*in);
    if (in->len == 0)
        return 0;
    struct slice value = slice_cut(in, ' ');
    size_t equals = slice_chr(value, '=');
    if (equals == value.len || find_name(slice_first(value, equals), &out->name) < 0)
        return -1;
    value = slice_from(value, equals + 1);
    struct buf b = {out->value, 0, XATTR_VALUE_MAX, XATTR_VALUE_MAX};
    out->known = value.len && !slice_caseeq(value, SLICE("[UNAVAILABLE]")) &&
                 !slice_caseeq(value, SLICE("[TEMPUNAVAIL]"));
    if (out->known && xtext_decode(value, &b) < 0)
        return -1;
    out->len = b.len;
    make_printable(out);
    return 1;
}

int xattr_address(const struct xattr *a, struct proxy_endpoint *out)
{
    struct slice prefix = SLICE("IPV6:");
    bool is6 = slice_casestarts(xattr_value(a), prefix);
    if (inet_pton(is6 ? AF_INET6 : AF_INET, a->value + (is6 ? prefix.len : 0), out->address) != 1)
        return -1;
    out->len = is6 ? 16 : 4;
    return 0;
}

int xattr_port(const struct xattr *a, uint16_t *out)
{
    uint64_t n;
    if (slice_u64(xattr_value(a), &n) < 0 || n > UINT16_MAX)
        return -1;
    *out = (uint16_t)n;
    return 0;
}

int xattr_protocol(const struct xattr *a, bool *esmtp)
{
    *esmtp = slice_caseeq(xattr_value(a), SLICE("ESMTP"));
    return *esmtp || slice_caseeq(xattr_value(a), SLICE("SMTP")) ? 0 : -1;
}

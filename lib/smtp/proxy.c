#include "smtp/proxy.h"

#include <arpa/inet.h>

/* ---- version 1: a line of text ---------------------------------------------- */

/* An IP address as text; 0 or -1. */
static int take_address(struct slice text, int family, struct proxy_endpoint *out)
{
    char copy[INET6_ADDRSTRLEN];
    if (text.len == 0 || text.len >= sizeof copy || memchr(text.ptr, '\0', text.len))
        return -1;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    out->len = family == AF_INET ? 4 : 16;
    return inet_pton(family, copy, out->address) == 1 ? 0 : -1;
}

static int take_port(struct slice text, struct proxy_endpoint *out)
{
    uint64_t port;
    bool padded = text.len > 1 && text.ptr[0] == '0';
    if (padded || slice_u64(text, &port) < 0 || port > UINT16_MAX)
        return -1;
    out->port = (uint16_t)port;
    return 0;
}

/* What follows "PROXY ", without CRLF. */
static int parse_line(struct slice line, struct proxy_header *out)
{
    struct slice protocol = slice_cut(&line, ' ');
    if (slice_eq(protocol, SLICE("UNKNOWN")))
        return 0; /* whatever else the line says is to be ignored */
    int family = slice_eq(protocol, SLICE("TCP4"))   ? AF_INET
                 : slice_eq(protocol, SLICE("TCP6")) ? AF_INET6
                                                     : -1;
    if (family < 0)
        return -1;
    struct slice from = slice_cut(&line, ' '), to = slice_cut(&line, ' ');
    struct slice from_port = slice_cut(&line, ' ');
    if (take_address(from, family, &out->client) < 0 ||
        take_address(to, family, &out->server) < 0 || take_port(from_port, &out->client) < 0)
        return -1;
    return take_port(line, &out->server); /* no blank may be left in it */
}

static enum proxy_status parse_v1(struct slice in, struct proxy_header *out, size_t *used)
{
    struct slice start = SLICE("PROXY ");
    struct slice head = slice_first(in, PROXY_V1_MAX);
    size_t lf = slice_chr(head, '\n');
    if (lf == head.len)
        return head.len == PROXY_V1_MAX ? PROXY_BAD : PROXY_MORE;
    if (lf < start.len || head.ptr[lf - 1] != '\r')
        return PROXY_BAD;
    struct slice line = slice_from(slice_first(head, lf - 1), start.len);
    if (parse_line(line, out) < 0)
        return PROXY_BAD;
    *used = lf + 1;
    return PROXY_DONE;
}

/* ---- version 2: binary --------------------------------------------------------- */

enum {
    V2_FIXED = 16, /* signature, version and command, family, length */
    V2_COMMAND_LOCAL = 0x20,
    V2_COMMAND_PROXY = 0x21,
    V2_UNSPEC = 0x00,
    V2_TCP4 = 0x11,
    V2_TCP6 = 0x21,
    V2_UNIX = 0x31,
    V2_UNIX_BYTES = 216,
    V2_TLV_HEAD = 3
};
static const struct slice v2_signature = {"\r\n\r\n\0\r\nQUIT\n", 12};

static unsigned take_u16(const char *at)
{
    return (unsigned)(unsigned char)at[0] << 8 | (unsigned char)at[1];
}

/* Extensions must fill the rest exactly: otherwise a length lies. */
static bool are_extensions(struct slice rest)
{
    while (rest.len) {
        if (rest.len < V2_TLV_HEAD)
            return false;
        size_t len = V2_TLV_HEAD + take_u16(rest.ptr + 1);
        if (len > rest.len)
            return false;
        rest = slice_from(rest, len);
    }
    return true;
}

static int take_addresses(struct slice body, uint8_t bytes, struct proxy_header *out)
{
    size_t ports = 2u * bytes, all = ports + 4;
    if (body.len < all || !are_extensions(slice_from(body, all)))
        return -1;
    out->client.len = out->server.len = bytes;
    memcpy(out->client.address, body.ptr, bytes);
    memcpy(out->server.address, body.ptr + bytes, bytes);
    out->client.port = (uint16_t)take_u16(body.ptr + ports);
    out->server.port = (uint16_t)take_u16(body.ptr + ports + 2);
    return 0;
}

static int parse_body(unsigned command, unsigned family, struct slice body,
                      struct proxy_header *out)
{
    if (command == V2_COMMAND_LOCAL)
        return 0; /* the rest is to be ignored */
    switch (family) {
    case V2_TCP4:
        return take_addresses(body, 4, out);
    case V2_TCP6:
        return take_addresses(body, 16, out);
    case V2_UNIX:
        return body.len >= V2_UNIX_BYTES ? 0 : -1;
    case V2_UNSPEC:
        return 0;
    default:
        return -1;
    }
}

static enum proxy_status parse_v2(struct slice in, struct proxy_header *out, size_t *used)
{
    if (in.len < V2_FIXED)
        return PROXY_MORE;
    unsigned command = (unsigned char)in.ptr[12], family = (unsigned char)in.ptr[13];
    size_t len = take_u16(in.ptr + 14);
    bool known = command == V2_COMMAND_LOCAL || command == V2_COMMAND_PROXY;
    if (!known || len > PROXY_HEADER_MAX - V2_FIXED)
        return PROXY_BAD;
    if (in.len < V2_FIXED + len)
        return PROXY_MORE;
    if (parse_body(command, family, slice_first(slice_from(in, V2_FIXED), len), out) < 0)
        return PROXY_BAD;
    *used = V2_FIXED + len;
    return PROXY_DONE;
}

/* Whether `in` begins with `start`, or may once more of it is here. */
static bool may_start(struct slice in, struct slice start)
{
    size_t len = in.len < start.len ? in.len : start.len;
    return slice_eq(slice_first(in, len), slice_first(start, len));
}

enum proxy_status proxy_parse(struct slice in, struct proxy_header *out, size_t *used)
{
    *out = (struct proxy_header){0};
    *used = 0;
    if (in.len == 0)
        return PROXY_MORE;
    if (may_start(in, SLICE("PROXY ")))
        return parse_v1(in, out, used);
    if (may_start(in, v2_signature))
        return parse_v2(in, out, used);
    return PROXY_BAD;
}

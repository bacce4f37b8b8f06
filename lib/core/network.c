#include "core/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "core/log.h"

static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

int network_address(struct slice text, unsigned char out[16])
{
    char copy[INET6_ADDRSTRLEN + 1];
    if (text.len >= 2 && text.ptr[0] == '[' && text.ptr[text.len - 1] == ']')
        text = slice_make(text.ptr + 1, text.len - 2);
    if (text.len == 0 || text.len >= sizeof copy || memchr(text.ptr, '\0', text.len))
        return -1;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    if (inet_pton(AF_INET, copy, out) == 1)
        return 4;
    return inet_pton(AF_INET6, copy, out) == 1 ? 16 : -1;
}

static void widen(struct slice address, unsigned char out[16])
{
    if (address.len == 4) {
        memcpy(out, mapped, sizeof mapped);
        memcpy(out + sizeof mapped, address.ptr, 4);
    } else {
        memcpy(out, address.ptr, 16);
    }
}

static bool same_prefix(const unsigned char *a, const unsigned char *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(a, b, whole) != 0)
        return false;
    return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

/* Whether bits behind the prefix are set, which is most often a slip. */
static bool has_host_bits(const struct network *n)
{
    unsigned char zero[16];
    memcpy(zero, n->address, sizeof zero);
    for (unsigned i = n->bits; i < 128; i++)
        zero[i / 8] &= (unsigned char)~(0x80u >> (i % 8));
    return memcmp(zero, n->address, sizeof zero) != 0;
}

int network_parse(struct slice text, struct network *n, struct err *e)
{
    unsigned char bytes[16];
    uint64_t bits;
    size_t slash = slice_rchr(text, '/');
    int len = network_address(slice_first(text, slash), bytes);
    if (len < 0)
        return err_set(e,
                       "%s: is not a network; write an address as 192.0.2.1 or [2001:db8::1], or "
                       "a network as 192.0.2.0/24 or [2001:db8::]/32",
                       log_esc_n(text, 80));
    unsigned width = (unsigned)len * 8;
    bits = width;
    if (slash < text.len && (slice_u64(slice_from(text, slash + 1), &bits) < 0 || bits > width))
        return err_set(e, "%s: the prefix length must be from 0 to %u", log_esc_n(text, 80), width);
    widen(slice_make(bytes, (size_t)len), n->address);
    n->bits = (unsigned char)(bits + 128 - width);
    if (has_host_bits(n))
        return err_set(e, "%s: bits behind the prefix length %u are set; write the network itself",
                       log_esc_n(text, 80), (unsigned)bits);
    return 0;
}

/* ::/0 must not take IPv4 addresses in, nor 0.0.0.0/0 IPv6 ones. */
static bool is_v4(const unsigned char address[16])
{
    return memcmp(address, mapped, sizeof mapped) == 0;
}

bool network_has(const struct network *n, struct slice address)
{
    unsigned char wide[16];
    if (address.len != 4 && address.len != 16)
        return false;
    widen(address, wide);
    return (n->bits >= 96 && is_v4(n->address)) == is_v4(wide) &&
           same_prefix(n->address, wide, n->bits);
}

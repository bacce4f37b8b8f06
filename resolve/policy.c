#include "resolve/policy.h"

#include <ifaddrs.h>
#include <netinet/in.h>

#include "core/mem.h"

/* IANA's special-purpose registries (RFC 6890), multicast, and what embeds an
 * IPv4 address is looked at by that address (see embedded). */
static const char forbidden_networks[] =
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 "
    "192.0.2.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 "
    "240.0.0.0/4 [::]/128 [::1]/128 [100::]/64 [2001:db8::]/32 [fc00::]/7 [fe80::]/10 [fec0::]/10 "
    "[ff00::]/8 [64:ff9b:1::]/48 [2001::]/32 [3fff::]/20";

/* The IPv4 address inside a mapped, NAT64 (RFC 6052) or 6to4 address. */
static bool embedded(struct slice address, struct slice *inner)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};
    static const uint8_t compatible[12] = {0};
    if (address.len != 16)
        return false;
    if (memcmp(address.ptr, mapped, 12) == 0 || memcmp(address.ptr, nat64, 12) == 0 ||
        memcmp(address.ptr, compatible, 12) == 0)
        *inner = slice_from(address, 12);
    else if ((uint8_t)address.ptr[0] == 0x20 && (uint8_t)address.ptr[1] == 0x02)
        *inner = slice_make(address.ptr + 2, 4);
    else
        return false;
    return true;
}

static bool is_own(const struct policy *p, struct slice address)
{
    for (size_t i = 0; i < p->own_count; i++)
        if (slice_eq(address, slice_make(p->own[i].raw, p->own[i].len)))
            return true;
    return false;
}

enum address_verdict policy_check(const struct policy *p, struct slice address)
{
    struct slice inner;
    if (nets_match(&p->permit, address))
        return ADDRESS_FINE;
    if (is_own(p, address))
        return ADDRESS_OWN;
    if (nets_match(&p->forbidden, address))
        return ADDRESS_FORBIDDEN;
    if (embedded(address, &inner))
        return policy_check(p, inner);
    return ADDRESS_FINE;
}

static bool raw_address(const struct sockaddr *sa, struct own_address *out)
{
    if (sa && sa->sa_family == AF_INET) {
        out->len = 4;
        memcpy(out->raw, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
        return true;
    }
    if (sa && sa->sa_family == AF_INET6) {
        out->len = 16;
        memcpy(out->raw, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
        return true;
    }
    return false;
}

/* Loopback and link-local addresses are forbidden by range; as "ourselves" they
 * would make every MX record that points there a reason to drop better ones. */
int policy_open(struct policy *p, struct err *e)
{
    struct ifaddrs *all;
    *p = (struct policy){0};
    if (nets_parse(&p->forbidden, forbidden_networks, e) < 0)
        return -1;
    if (getifaddrs(&all) < 0)
        return err_sys(e, "addresses of this host");
    p->own = xcalloc(OWN_ADDRESSES_MAX, sizeof *p->own);
    for (struct ifaddrs *i = all; i && p->own_count < OWN_ADDRESSES_MAX; i = i->ifa_next) {
        struct own_address *own = &p->own[p->own_count];
        if (!raw_address(i->ifa_addr, own))
            continue;
        bool loopback =
            own->len == 4 ? own->raw[0] == 127 : memcmp(own->raw, &in6addr_loopback, 16) == 0;
        bool link_local = own->len == 16 && own->raw[0] == 0xfe && (own->raw[1] & 0xc0) == 0x80;
        if (loopback || link_local)
            continue;
        p->has_ipv6 = p->has_ipv6 || own->len == 16;
        p->own_count++;
    }
    freeifaddrs(all);
    return 0;
}

int policy_permit(struct policy *p, const char *networks, struct err *e)
{
    struct nets permit;
    if (nets_parse(&permit, networks, e) < 0)
        return err_prefix(e, "resolver_permit_networks");
    nets_free(&p->permit);
    p->permit = permit;
    return 0;
}

void policy_close(struct policy *p)
{
    nets_free(&p->permit);
    nets_free(&p->forbidden);
    xfree(&p->own);
    p->own_count = 0;
}

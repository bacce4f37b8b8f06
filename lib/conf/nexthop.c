#include "conf/nexthop.h"

#include "conf/config.h"
#include "conf/nets.h"
#include "core/log.h"

static bool is_port(struct slice text)
{
    static const char *const names[] = {"smtp", "lmtp", "submission"};
    uint64_t number;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (slice_caseeq(text, slice_str(names[i])))
            return true;
    return slice_u64(text, &number) == 0 && number >= 1 && number <= 65535;
}

static bool is_address(struct slice text)
{
    unsigned char bytes[16];
    if (slice_casestarts(text, SLICE("IPv6:")))
        return network_address(slice_from(text, 5), bytes) == 16;
    return network_address(text, bytes) > 0;
}

/* Letters of any language: resolve converts them. */
static bool is_name(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        char low = (char)(c | 0x20);
        if (!(low >= 'a' && low <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_' &&
            c != '.' && c < 0x80)
            return false;
    }
    return text.len > 0 && text.ptr[0] != '.';
}

static bool is_nexthop(struct slice text)
{
    struct slice host, port;
    if (slice_casestarts(text, SLICE("inet:")))
        text = slice_from(text, 5);
    if (is_address(text)) /* an IPv6 address has colons of its own */
        return true;
    if (text.len && text.ptr[0] == '[') {
        size_t end = slice_chr(text, ']');
        if (end == text.len)
            return false;
        host = slice_make(text.ptr + 1, end - 1);
        port = slice_from(text, end + 1);
    } else {
        size_t colon = slice_rchr(text, ':');
        host = slice_first(text, colon);
        port = slice_from(text, colon);
    }
    if (port.len && (port.ptr[0] != ':' || !is_port(slice_from(port, 1))))
        return false;
    return is_address(host) || is_name(host);
}

int nexthops_check(const char *text, struct err *e)
{
    struct slice rest = slice_str(text), element;
    while (config_list_next(&rest, &element))
        if (!is_nexthop(element))
            return err_set(e,
                           "%s: is no next hop; give a domain, or a host or address in brackets, "
                           "and :port if it is not 25: example.net, [smtp.example.net]:587",
                           log_esc_n(element, 80));
    return 0;
}

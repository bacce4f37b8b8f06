#include "resolve/destination.h"

#include <arpa/inet.h>

#include "conf/nets.h"
#include "core/log.h"

static int parse_port(struct slice text, uint16_t *port)
{
    static const struct {
        const char *name;
        uint16_t port;
    } services[] = {{"smtp", 25}, {"lmtp", LMTP_PORT}, {"submission", 587}};
    uint64_t number;
    for (size_t i = 0; i < sizeof services / sizeof *services; i++)
        if (slice_caseeq(text, slice_str(services[i].name))) {
            *port = services[i].port;
            return 0;
        }
    if (slice_u64(text, &number) < 0 || number == 0 || number > 65535)
        return -1;
    *port = (uint16_t)number;
    return 0;
}

/* An address, or "IPv6:" and one as in an address literal (RFC 5321 4.1.3). */
static int parse_address(struct slice text, struct destination *out)
{
    static const struct slice prefix = {"IPv6:", 5};
    bool v6_only = slice_casestarts(text, prefix);
    unsigned char raw[16];
    int len = network_address(v6_only ? slice_from(text, prefix.len) : text, raw);
    if (len < 0 || (v6_only && len != 16))
        return -1;
    out->kind = DESTINATION_ADDRESS;
    out->address_len = (uint8_t)len;
    memcpy(out->address, raw, (size_t)len);
    return 0;
}

static int parse_unix(struct slice path, struct destination *out)
{
    if (path.len == 0 || path.ptr[0] != '/' || path.len > UNIX_PATH_MAX ||
        memchr(path.ptr, '\0', path.len))
        return -1;
    out->kind = DESTINATION_UNIX;
    out->port = 0;
    memcpy(out->name.text, path.ptr, path.len);
    out->name.text[path.len] = '\0';
    return 0;
}

/* Splits "[host]:port" or "host:port". */
static int split(struct slice text, struct slice *host, bool *bracketed, struct slice *port)
{
    *bracketed = text.len && text.ptr[0] == '[';
    if (*bracketed) {
        size_t end = slice_chr(text, ']');
        if (end == text.len)
            return -1;
        *host = slice_make(text.ptr + 1, end - 1);
        *port = slice_from(text, end + 1);
    } else {
        size_t end = slice_rchr(text, ':');
        *host = slice_first(text, end);
        *port = slice_from(text, end);
    }
    if (port->len && (port->ptr[0] != ':' || port->len == 1))
        return -1;
    *port = slice_from(*port, 1);
    return host->len ? 0 : -1;
}

static int parse_one(struct slice text, const struct destination_defaults *defaults,
                     struct destination *out)
{
    struct slice host, port;
    bool bracketed;
    *out = (struct destination){.configured = true, .lmtp = defaults->lmtp, .port = defaults->port};
    if (defaults->lmtp && slice_starts(text, SLICE("unix:")))
        return parse_unix(slice_from(text, 5), out);
    if (slice_casestarts(text, SLICE("inet:")))
        text = slice_from(text, 5);
    if (parse_address(text, out) == 0) /* an IPv6 address has colons of its own */
        return 0;
    if (split(text, &host, &bracketed, &port) < 0)
        return -1;
    if (port.len && parse_port(port, &out->port) < 0)
        return -1;
    if (parse_address(host, out) == 0)
        return 0;
    out->kind = bracketed || defaults->lmtp || defaults->no_mx ? DESTINATION_HOST : DESTINATION_MX;
    return domain_parse(host, &out->name);
}

static bool next_word(struct slice *list, struct slice *word)
{
    static const char separators[] = ", \t\r\n";
    size_t n = 0;
    while (list->len && memchr(separators, list->ptr[0], sizeof separators - 1))
        *list = slice_from(*list, 1);
    while (n < list->len && !memchr(separators, list->ptr[n], sizeof separators - 1))
        n++;
    *word = slice_first(*list, n);
    *list = slice_from(*list, n);
    return n > 0;
}

int destination_parse(struct slice text, const struct destination_defaults *defaults,
                      struct destination out[DESTINATIONS_MAX], struct err *e)
{
    struct slice rest = text, word;
    int count = 0;
    while (next_word(&rest, &word)) {
        if (count == DESTINATIONS_MAX)
            return err_set(e, "more than %d next hops in \"%s\"", DESTINATIONS_MAX, log_esc(text));
        if (parse_one(word, defaults, &out[count]) < 0)
            return err_set(e,
                           "\"%s\" is no next hop; expected domain, [host], [address], each "
                           "with :port if wanted%s",
                           log_esc(word), defaults->lmtp ? ", or unix:/path" : "");
        count++;
    }
    return count ? count : err_set(e, "the next hop is empty");
}

int destination_of_domain(struct slice domain, const struct destination_defaults *defaults,
                          struct destination *out)
{
    *out = (struct destination){.lmtp = defaults->lmtp, .port = defaults->port};
    if (domain.len >= 2 && domain.ptr[0] == '[' && domain.ptr[domain.len - 1] == ']')
        return parse_address(slice_make(domain.ptr + 1, domain.len - 2), out);
    out->kind = defaults->lmtp ? DESTINATION_HOST : DESTINATION_MX;
    return domain_parse(domain, &out->name);
}

void destination_key(const struct destination *d, struct buf *out)
{
    (void)buf_addc(out, (char)('a' + d->kind));
    (void)buf_addc(out, d->configured ? 'c' : 'm');
    (void)buf_addc(out, d->lmtp ? 'l' : 's');
    (void)buf_add(out, &d->port, sizeof d->port);
    (void)buf_add(out, &d->facts, sizeof d->facts);
    if (d->kind == DESTINATION_ADDRESS)
        (void)buf_add(out, d->address, d->address_len);
    else
        (void)buf_adds(out, domain_slice(&d->name));
}

void destination_print(const struct destination *d, uint16_t usual_port, struct buf *out)
{
    char address[INET6_ADDRSTRLEN];
    /* a domain of that name with a port would be read as the prefix of a list's entry */
    if (d->kind == DESTINATION_MX && d->port != usual_port &&
        slice_caseeq(domain_slice(&d->name), SLICE("inet")))
        (void)buf_adds(out, SLICE("inet:"));
    if (d->kind == DESTINATION_ADDRESS) {
        inet_ntop(d->address_len == 4 ? AF_INET : AF_INET6, d->address, address, sizeof address);
        (void)buf_printf(out, "[%s]", address);
    } else if (d->kind == DESTINATION_HOST)
        (void)buf_printf(out, "[%s]", d->name.text);
    else
        (void)buf_printf(out, "%s%s", d->kind == DESTINATION_UNIX ? "unix:" : "", d->name.text);
    if (d->kind != DESTINATION_UNIX && d->port != usual_port)
        (void)buf_printf(out, ":%u", d->port);
}

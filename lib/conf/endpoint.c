#include "conf/endpoint.h"

#include "conf/nets.h"
#include "core/buf.h"
#include "core/log.h"

static int parse_inet(struct slice text, struct endpoint *out)
{
    unsigned char bytes[16];
    size_t colon = slice_rchr(text, ':');
    struct slice host = slice_first(text, colon), port = slice_from(text, colon + 1);
    uint64_t number;
    if (colon == text.len) {
        host = SLICE("127.0.0.1");
        port = text;
    } else if (slice_caseeq(host, SLICE("localhost"))) {
        host = SLICE("127.0.0.1");
    }
    int len = network_address(host, bytes);
    if (len < 0 || slice_u64(port, &number) < 0 || number < 1 || number > UINT16_MAX)
        return -1;
    out->port = (uint16_t)number;
    out->len = (size_t)len;
    memcpy(out->address, bytes, out->len);
    return 0;
}

static int parse_unix(struct slice path, const char *directory, struct endpoint *out)
{
    struct buf b = {out->address, 0, sizeof out->address, sizeof out->address};
    if (path.len == 0 || memchr(path.ptr, '\0', path.len))
        return -1;
    if (path.ptr[0] != '/' && buf_printf(&b, "%s/", directory) < 0)
        return -1;
    if (buf_adds(&b, path) < 0)
        return -1;
    out->port = 0;
    out->len = b.len;
    return 0;
}

int endpoint_parse(struct slice text, const char *directory, struct endpoint *out, struct err *e)
{
    struct slice rest = text, type = slice_cut(&rest, ':');
    if (slice_eq(type, SLICE("inet")) && parse_inet(rest, out) == 0)
        return 0;
    if (slice_eq(type, SLICE("unix")) && parse_unix(rest, directory, out) == 0)
        return 0;
    return err_set(
        e,
        "%s: is not a server's address; write inet:ADDRESS:PORT with a numeric address, or "
        "unix:PATH of at most 107 bytes",
        log_esc_n(text, 120));
}

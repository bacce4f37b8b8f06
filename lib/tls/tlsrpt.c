#include "tls/tlsrpt.h"

#include "tls/policy.h"

static int hex(char c)
{
    char low = (char)(c | 0x20);
    return c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

/* An atom's bytes (RFC 5322 3.2.3) and dots: what needs no quoting. */
static bool is_plain(char c)
{
    char low = (char)(c | 0x20);
    return (low >= 'a' && low <= 'z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-/=?^_`{|}~.", c));
}

static bool is_mailbox(struct slice address)
{
    size_t at = slice_rchr(address, '@');
    if (at == 0 || at > 64 || at >= address.len || address.ptr[0] == '.' ||
        address.ptr[at - 1] == '.')
        return false;
    for (size_t i = 0; i < at; i++)
        if (!is_plain(address.ptr[i]) || (i && address.ptr[i] == '.' && address.ptr[i - 1] == '.'))
            return false;
    return tls_is_host_name(slice_from(address, at + 1));
}

int tlsrpt_url_parse(struct slice text, struct tlsrpt_url *out)
{
    uint64_t port = 443;
    if (!slice_casestarts(text, SLICE("https://")) || text.len > TLSRPT_URL_MAX)
        return -1;
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] <= ' ' || text.ptr[i] > '~' || strchr("\"#<>\\^`{|}", text.ptr[i]))
            return -1;
    struct slice rest = slice_from(text, 8), authority = rest;
    size_t end = slice_chr(rest, '/'), query = slice_chr(rest, '?');
    authority = slice_first(rest, end < query ? end : query);
    out->path = slice_from(rest, authority.len);
    out->host = slice_cut(&authority, ':');
    if (authority.len && (slice_u64(authority, &port) < 0 || port == 0 || port > UINT16_MAX))
        return -1;
    out->port = (uint16_t)port;
    return tls_is_host_name(out->host) && (out->path.len == 0 || out->path.ptr[0] == '/') ? 0 : -1;
}

static void take_url(struct slice uri, struct tlsrpt_record *out)
{
    struct tlsrpt_url parts;
    if (out->url_count == TLSRPT_URLS_MAX || tlsrpt_url_parse(uri, &parts) < 0)
        return;
    memcpy(out->url[out->url_count], uri.ptr, uri.len);
    out->url[out->url_count++][uri.len] = '\0';
}

/* "mailto:a%2Bb@example.com?subject=x" */
static void take_uri(struct slice uri, struct tlsrpt_record *out)
{
    if (slice_casestarts(uri, SLICE("https:"))) {
        take_url(uri, out);
        return;
    }
    char address[TLSRPT_MAILBOX_MAX + 1];
    size_t len = 0;
    if (!slice_casestarts(uri, SLICE("mailto:")) || out->count == TLSRPT_MAILBOXES_MAX)
        return;
    uri = slice_from(uri, 7);
    uri = slice_first(uri, slice_chr(uri, '?'));
    for (size_t i = 0; i < uri.len; i++) {
        char c = uri.ptr[i];
        if (c == '%') {
            int high = i + 2 < uri.len ? hex(uri.ptr[i + 1]) : -1;
            int low = i + 2 < uri.len ? hex(uri.ptr[i + 2]) : -1;
            if (high < 0 || low < 0)
                return;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (len == TLSRPT_MAILBOX_MAX)
            return;
        address[len++] = c;
    }
    if (!is_mailbox(slice_make(address, len)))
        return;
    memcpy(out->mailbox[out->count], address, len);
    out->mailbox[out->count++][len] = '\0';
}

int tlsrpt_record_parse(struct slice text, struct tlsrpt_record *out)
{
    bool first = true, found = false;
    memset(out, 0, sizeof *out);
    while (text.len) {
        struct slice value = slice_trim(slice_cut(&text, ';'));
        struct slice name = slice_trim(slice_cut(&value, '='));
        if (first &&
            (!slice_eq(name, SLICE("v")) || !slice_eq(slice_trim(value), SLICE("TLSRPTv1"))))
            return -1;
        first = false;
        if (!slice_eq(name, SLICE("rua")) || found)
            continue;
        found = true;
        while (value.len)
            take_uri(slice_trim(slice_cut(&value, ',')), out);
    }
    return found ? 0 : -1;
}

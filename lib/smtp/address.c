#include "smtp/address.h"

#include <arpa/inet.h>

/* ---- character classes ----------------------------------------------------- */

static bool is_alnum(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* RFC 5322 3.2.3, and UTF8-non-ascii of RFC 6531. */
static bool is_atext(unsigned char c)
{
    static const char others[] = "!#$%&'*+-/=?^_`{|}~";
    return is_alnum(c) || c >= 0x80 || (c && memchr(others, c, sizeof others - 1));
}

bool has_8bit(struct slice s)
{
    uint64_t any = 0, words[4];
    size_t at = 0;
    for (; s.len - at >= sizeof words; at += sizeof words) {
        memcpy(words, s.ptr + at, sizeof words);
        any |= words[0] | words[1] | words[2] | words[3];
    }
    for (; at < s.len; at++)
        any |= (unsigned char)s.ptr[at];
    return any & UINT64_C(0x8080808080808080);
}

/* Bytes of the UTF-8 sequence that begins at s, or 0 (RFC 3629 4). */
static size_t utf8_sequence(struct slice s)
{
    static const struct {
        unsigned char first_low, first_high, second_low, second_high;
        uint8_t len;
    } forms[] = {
        {0x00, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    const unsigned char *u = (const unsigned char *)s.ptr;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (u[0] < forms[i].first_low || u[0] > forms[i].first_high)
            continue;
        size_t len = forms[i].len;
        if (len > s.len)
            return 0;
        if (len > 1 && (u[1] < forms[i].second_low || u[1] > forms[i].second_high))
            return 0;
        for (size_t k = 2; k < len; k++)
            if ((u[k] & 0xc0) != 0x80)
                return 0;
        return len;
    }
    return 0;
}

bool utf8_valid(struct slice s)
{
    if (!has_8bit(s))
        return true;
    while (s.len) {
        size_t n = utf8_sequence(s);
        if (n == 0)
            return false;
        s = slice_from(s, n);
    }
    return true;
}

/* ---- local part ------------------------------------------------------------ */

static bool is_dot_atom(struct slice s)
{
    if (s.len == 0 || s.ptr[0] == '.' || s.ptr[s.len - 1] == '.')
        return false;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c == '.' ? s.ptr[i - 1] == '.' : !is_atext(c))
            return false;
    }
    return true;
}

/* Bytes of the quoted string at the front of s, quotes included, or 0. */
static size_t quoted_length(struct slice s)
{
    for (size_t i = 1; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c == '"')
            return i + 1;
        if (c == '\\' && ++i == s.len)
            return 0;
        c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c == 0x7f)
            return 0;
    }
    return 0;
}

/* Bytes of the local part at the front of s: up to the @ outside quotes, or to
 * the end. 0 if it begins with a quoted string that is none. */
static size_t local_length(struct slice s)
{
    if (s.len && s.ptr[0] == '"')
        return quoted_length(s);
    return slice_chr(s, '@');
}

/* Writes the canonical form of a quoted local part. */
static enum path_error put_quoted(struct slice quoted, struct smtp_path *out)
{
    char plain[ADDRESS_LOCAL_MAX];
    size_t n = 0, at = 0;
    for (size_t i = 1; i + 1 < quoted.len; i++) {
        if (quoted.ptr[i] == '\\')
            i++;
        if (n == sizeof plain)
            return PATH_LONG_LOCAL;
        plain[n++] = quoted.ptr[i];
    }
    if (is_dot_atom(slice_make(plain, n))) {
        memcpy(out->text, plain, n);
        out->local_len = out->len = (uint16_t)n;
        return PATH_OK;
    }
    out->text[at++] = '"';
    for (size_t i = 0; i < n; i++) {
        bool escape = plain[i] == '"' || plain[i] == '\\';
        if (at + escape + 2 > ADDRESS_LOCAL_MAX)
            return PATH_LONG_LOCAL;
        if (escape)
            out->text[at++] = '\\';
        out->text[at++] = plain[i];
    }
    out->text[at++] = '"';
    out->local_len = out->len = (uint16_t)at;
    return PATH_OK;
}

static enum path_error put_local(struct slice local, struct smtp_path *out)
{
    if (local.len && local.ptr[0] == '"')
        return put_quoted(local, out);
    if (local.len > ADDRESS_LOCAL_MAX)
        return PATH_LONG_LOCAL;
    if (!is_dot_atom(local))
        return PATH_BAD_LOCAL;
    memcpy(out->text, local.ptr, local.len);
    out->local_len = out->len = (uint16_t)local.len;
    return PATH_OK;
}

/* ---- domain ---------------------------------------------------------------- */

static enum path_error check_domain(struct slice s, bool utf8)
{
    struct slice rest = s;
    if (s.len == 0)
        return PATH_BAD_DOMAIN;
    if (s.len > ADDRESS_DOMAIN_MAX)
        return PATH_LONG_DOMAIN;
    if (s.ptr[s.len - 1] == '.')
        return PATH_BAD_DOMAIN;
    while (rest.len) {
        struct slice label = slice_cut(&rest, '.');
        if (label.len == 0)
            return PATH_BAD_DOMAIN;
        if (label.len > ADDRESS_LABEL_MAX)
            return PATH_LONG_LABEL;
        if (label.ptr[0] == '-' || label.ptr[label.len - 1] == '-')
            return PATH_BAD_DOMAIN;
        for (size_t i = 0; i < label.len; i++) {
            unsigned char c = (unsigned char)label.ptr[i];
            if (!is_alnum(c) && c != '-' && c != '_' && !(c >= 0x80 && utf8))
                return PATH_BAD_DOMAIN;
        }
    }
    return PATH_OK;
}

bool domain_valid(struct slice s, bool utf8)
{
    return check_domain(s, utf8) == PATH_OK && (!utf8 || utf8_valid(s));
}

/* [1.2.3.4] or [IPv6:...] (RFC 5321 4.1.3). */
static bool literal_valid(struct slice s)
{
    static const struct slice prefix = {"IPv6:", 5};
    char text[INET6_ADDRSTRLEN + 1];
    unsigned char address[16];
    struct slice inner = {s.ptr + 1, s.len - 2};
    int family = AF_INET;
    if (slice_casestarts(inner, prefix)) {
        inner = slice_from(inner, prefix.len);
        family = AF_INET6;
    }
    if (inner.len == 0 || inner.len >= sizeof text || memchr(inner.ptr, '\0', inner.len))
        return false;
    memcpy(text, inner.ptr, inner.len);
    text[inner.len] = '\0';
    return inet_pton(family, text, address) == 1;
}

static enum path_error put_domain(struct slice domain, struct smtp_path *out)
{
    enum path_error rc;
    out->literal = domain.len && domain.ptr[0] == '[';
    if (!out->literal)
        rc = check_domain(domain, out->utf8);
    else if (domain.len < 3 || domain.ptr[domain.len - 1] != ']' || !literal_valid(domain))
        rc = PATH_BAD_LITERAL;
    else
        rc = PATH_OK;
    if (rc != PATH_OK)
        return rc;
    out->text[out->len++] = '@';
    memcpy(out->text + out->len, domain.ptr, domain.len);
    out->len = (uint16_t)(out->len + domain.len);
    return PATH_OK;
}

/* ---- the whole ------------------------------------------------------------- */

static enum path_error parse_mailbox(struct slice s, unsigned flags, struct smtp_path *out)
{
    enum path_error rc;
    out->utf8 = has_8bit(s);
    if (out->utf8 && !(flags & PATH_UTF8))
        return PATH_NOT_ASCII;
    if (out->utf8 && !utf8_valid(s))
        return PATH_BAD_UTF8;
    size_t n = local_length(s);
    if (n == 0)
        return PATH_BAD_LOCAL;
    if (n < s.len && s.ptr[n] != '@')
        return PATH_BAD_LOCAL;
    rc = put_local(slice_first(s, n), out);
    if (rc != PATH_OK)
        return rc;
    if (n < s.len)
        return put_domain(slice_from(s, n + 1), out);
    bool postmaster = slice_caseeq(s, SLICE("postmaster"));
    return postmaster && (flags & PATH_RECIPIENT) ? PATH_OK : PATH_NO_DOMAIN;
}

enum path_error address_parse(struct slice address, unsigned flags, struct smtp_path *out)
{
    memset(out, 0, sizeof *out);
    enum path_error rc = PATH_OK;
    if (address.len)
        rc = parse_mailbox(address, flags, out);
    else if (!(flags & PATH_SENDER))
        rc = PATH_NULL;
    if (rc != PATH_OK)
        memset(out, 0, sizeof *out);
    return rc;
}

/* Cuts "@host,@host:" off: source routes are ignored (RFC 5321 appendix C). */
static bool skip_route(struct slice *s)
{
    if (s->len == 0 || s->ptr[0] != '@')
        return true;
    struct slice rest = *s, route = slice_cut(&rest, ':');
    if (route.len + 1 + rest.len != s->len)
        return false; /* no colon */
    while (route.len) {
        struct slice hop = slice_cut(&route, ',');
        if (hop.len == 0 || hop.ptr[0] != '@' || check_domain(slice_from(hop, 1), true) != PATH_OK)
            return false;
    }
    *s = rest;
    return rest.len > 0;
}

/* Bytes of s up to the `>` outside quotes, or s.len. A quote opens a string
 * only at the beginning, behind a route, or in what will be refused anyway. */
static size_t path_end(struct slice s)
{
    bool quoted = false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '"')
            quoted = !quoted;
        else if (s.ptr[i] == '\\' && quoted)
            i++;
        else if (s.ptr[i] == '>' && !quoted)
            return i;
    }
    return s.len;
}

enum path_error path_parse(struct slice *in, unsigned flags, struct smtp_path *out)
{
    struct slice s = *in;
    memset(out, 0, sizeof *out);
    if (s.len == 0)
        return PATH_SYNTAX;
    if (s.ptr[0] != '<') {
        size_t n = slice_chr(s, ' ');
        enum path_error rc = address_parse(slice_first(s, n), flags, out);
        if (rc == PATH_OK)
            *in = slice_from(s, n);
        return rc;
    }
    s = slice_from(s, 1);
    size_t n = path_end(s);
    struct slice mailbox = slice_first(s, n), rest = slice_from(s, n + 1);
    if (n == s.len || (rest.len && rest.ptr[0] != ' '))
        return PATH_SYNTAX;
    if (!skip_route(&mailbox))
        return PATH_BAD_ROUTE;
    enum path_error rc = address_parse(mailbox, flags, out);
    if (rc == PATH_OK)
        *in = rest;
    return rc;
}

struct refusal path_refusal(enum path_error error, unsigned flags)
{
    static const struct {
        uint16_t code;
        const char *enhanced; /* NULL: bad sender or bad recipient */
        const char *text;
    } table[PATH_ERROR_COUNT] = {
        [PATH_SYNTAX] = {501, NULL, "Bad address syntax; expected <local-part@domain>"},
        [PATH_BAD_ROUTE] = {553, NULL, "Bad source route or empty local part of address"},
        [PATH_NULL] = {501, NULL, "An address is needed here"},
        [PATH_NO_DOMAIN] = {553, NULL, "Address without a domain"},
        [PATH_BAD_LOCAL] = {553, NULL, "Bad local part of address"},
        [PATH_BAD_DOMAIN] = {553, NULL, "Bad domain of address"},
        [PATH_BAD_LITERAL] = {553, NULL, "Bad address literal"},
        [PATH_LONG_LOCAL] = {553, NULL, "Local part of address is longer than 64 bytes"},
        [PATH_LONG_DOMAIN] = {553, NULL, "Domain of address is longer than 255 bytes"},
        [PATH_LONG_LABEL] = {553, NULL, "Label in the domain of address is longer than 63 bytes"},
        [PATH_NOT_ASCII] = {553, "5.6.7", "Address outside ASCII needs SMTPUTF8"},
        [PATH_BAD_UTF8] = {553, "5.6.7", "Address is not valid UTF-8"},
    };
    const char *about = flags & PATH_SENDER ? "5.1.7" : "5.1.3";
    if (error <= PATH_OK || error >= PATH_ERROR_COUNT)
        return (struct refusal){0, "", ""};
    const char *enhanced = table[error].enhanced ? table[error].enhanced : about;
    return (struct refusal){table[error].code, enhanced, table[error].text};
}

/* Offset of the @ between local part and domain, or len. */
static size_t at_sign(struct slice address)
{
    size_t from = 0;
    if (address.len && address.ptr[0] == '"')
        from = quoted_length(address);
    struct slice rest = slice_from(address, from);
    size_t at = slice_rchr(rest, '@');
    return at == rest.len ? address.len : from + at;
}

struct slice address_domain(struct slice address)
{
    return slice_from(address, at_sign(address) + 1);
}

struct slice address_local(struct slice address)
{
    return slice_first(address, at_sign(address));
}

#include "mail/header_signer.h"

#include "mail/header_name.h"

/* A DKIM-Signature is a list of tag=value; From a list of addresses. */
enum { DKIM_TAG, DKIM_D, DKIM_VALUE, DKIM_OTHER, DKIM_OVER };
enum { FROM_OUTSIDE, FROM_DOMAIN, FROM_QUOTED, FROM_COMMENT, FROM_OVER };

/* 0: not a character of a domain. UTF-8 is (RFC 6532, 3.2): to stop there would leave the beginning
 * of the name, which is somebody else's. */
static char domain_char(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c + 32);
    bool fits = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
                c == '_' || (unsigned char)c >= 0x80;
    return fits ? c : '\0';
}

static void add(char *domain, uint8_t *len, char c)
{
    if (*len < HEADER_DOMAIN_MAX)
        domain[(*len)++] = c;
}

static void dkim_byte(struct header_signer *s, char c)
{
    bool space = header_blank(c) || c == '\r' || c == '\n'; /* may be anywhere but in words */
    switch (s->state) {
    case DKIM_TAG:
        if (!space)
            s->state = c == 'd' ? DKIM_D : c == ';' ? DKIM_TAG : DKIM_OTHER;
        break;
    case DKIM_D:
        if (!space)
            s->state = c == '=' ? DKIM_VALUE : c == ';' ? DKIM_TAG : DKIM_OTHER;
        break;
    case DKIM_VALUE:
        if (domain_char(c))
            add(s->dkim, &s->dkim_len, domain_char(c));
        else if (!space)
            s->state = DKIM_OVER;
        break;
    case DKIM_OTHER:
        if (c == ';')
            s->state = DKIM_TAG;
        break;
    default:
        break;
    }
}

void header_signer_dkim(struct header_signer *s, struct slice part)
{
    for (size_t i = 0; i < part.len && s->state != DKIM_OVER; i++)
        dkim_byte(s, part.ptr[i]);
}

/* In a quoted string or a comment, which may have others inside (RFC 5322 section 3.2): what
 * looks like an address there is none. */
static void from_aside(struct header_signer *s, char c)
{
    if (s->escaped || c == '\\') {
        s->escaped = !s->escaped;
        return;
    }
    if (s->state == FROM_QUOTED)
        s->state = c == '"' ? FROM_OUTSIDE : FROM_QUOTED;
    else if (c == '(' && s->depth < UINT8_MAX)
        s->depth++;
    else if (c == ')' && --s->depth == 0)
        s->state = FROM_OUTSIDE;
}

static void from_byte(struct header_signer *s, char c)
{
    if (c == '"') {
        s->state = FROM_QUOTED;
    } else if (c == '(') {
        s->state = FROM_COMMENT;
        s->depth = 1;
    } else if (c == '<') { /* what came before is a name */
        s->state = FROM_OUTSIDE;
        s->from_len = 0;
    } else if (c == '>' || c == ',' || c == ';') {
        s->state = s->from_len ? FROM_OVER : FROM_OUTSIDE;
    } else if (c == '@') {
        s->state = FROM_DOMAIN;
        s->from_len = 0;
    } else if (s->state == FROM_DOMAIN && domain_char(c)) {
        add(s->from, &s->from_len, domain_char(c));
    } else {
        s->state = FROM_OUTSIDE;
    }
}

void header_signer_from(struct header_signer *s, struct slice part)
{
    for (size_t i = 0; i < part.len && s->state != FROM_OVER; i++)
        if (s->state == FROM_QUOTED || s->state == FROM_COMMENT)
            from_aside(s, part.ptr[i]);
        else
            from_byte(s, part.ptr[i]);
}

/* Anybody can write any d=; one that is From's domain, or above it, says who answers. */
static bool is_aligned(struct slice dkim, struct slice from)
{
    if (slice_eq(dkim, from))
        return dkim.len > 0;
    return dkim.len < from.len && slice_chr(dkim, '.') < dkim.len && slice_ends(from, dkim) &&
           from.ptr[from.len - dkim.len - 1] == '.';
}

struct slice header_signer_domain(const struct header_signer *s)
{
    struct slice dkim = slice_make(s->dkim, s->dkim_len), from = slice_make(s->from, s->from_len);
    return is_aligned(dkim, from) ? dkim : from;
}

#include "mail/header_signer.h"

#include "mail/header_name.h"

/* A DKIM-Signature is a list of tag=value; From a list of addresses. */
enum { DKIM_TAG, DKIM_D, DKIM_VALUE, DKIM_OTHER, DKIM_OVER };
enum { FROM_OUTSIDE, FROM_DOMAIN };

/* 0: not a character of a domain. */
static char domain_char(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c + 32);
    bool fits =
        (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
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

void header_signer_from(struct header_signer *s, struct slice part)
{
    for (size_t i = 0; i < part.len; i++) {
        char c = part.ptr[i];
        if (c == '@') {
            s->state = FROM_DOMAIN;
            s->from_len = 0;
        } else if (s->state == FROM_DOMAIN && domain_char(c)) {
            add(s->from, &s->from_len, domain_char(c));
        } else {
            s->state = FROM_OUTSIDE;
        }
    }
}

struct slice header_signer_domain(const struct header_signer *s)
{
    return s->dkim_len ? slice_make(s->dkim, s->dkim_len) : slice_make(s->from, s->from_len);
}

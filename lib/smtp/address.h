/*
 * Mail addresses as in MAIL FROM and RCPT TO (RFC 5321 4.1.2, RFC 6531).
 *
 * Canonical text: local@domain, without <>, without a source route, the local
 * part quoted only where it must be and then with the fewest backslashes. Case
 * is kept. Percent and bang are ordinary characters of a local part (B27).
 */
#ifndef POSTERN_SMTP_ADDRESS_H
#define POSTERN_SMTP_ADDRESS_H

#include "core/refusal.h"
#include "core/slice.h"

enum {
    ADDRESS_LOCAL_MAX = 64,
    ADDRESS_DOMAIN_MAX = 255,
    ADDRESS_LABEL_MAX = 63,
    ADDRESS_MAX = ADDRESS_LOCAL_MAX + 1 + ADDRESS_DOMAIN_MAX
};

/* A parsed path: no pointers, may be copied. */
struct smtp_path {
    uint16_t len;               /* of text; 0: the null path <> */
    uint16_t local_len;         /* the local part as in text, quotes included */
    bool utf8;                  /* has bytes outside ASCII */
    bool literal;               /* the domain is an address literal, brackets included */
    char text[ADDRESS_MAX + 1]; /* canonical, NUL-terminated */
};

static inline struct slice path_address(const struct smtp_path *p)
{
    return slice_make(p->text, p->len);
}
static inline struct slice path_local(const struct smtp_path *p)
{
    return slice_make(p->text, p->local_len);
}
/* Empty for <> and <postmaster>. */
static inline struct slice path_domain(const struct smtp_path *p)
{
    return slice_from(path_address(p), (size_t)p->local_len + 1);
}

enum path_flag {
    PATH_SENDER = 1,    /* MAIL FROM: <> is allowed; enhanced codes speak of the sender */
    PATH_RECIPIENT = 2, /* RCPT TO: <postmaster> is allowed */
    PATH_UTF8 = 4       /* non-ASCII is allowed (check .utf8 against SMTPUTF8 afterwards) */
};

enum path_error {
    PATH_OK,
    PATH_SYNTAX,    /* no <...>, or something else unreadable */
    PATH_BAD_ROUTE, /* "<@" begins a source route, and this is none */
    PATH_NULL,      /* <> where an address is needed */
    PATH_NO_DOMAIN,
    PATH_BAD_LOCAL,
    PATH_BAD_DOMAIN,
    PATH_BAD_LITERAL,
    PATH_LONG_LOCAL,  /* over 64 bytes */
    PATH_LONG_DOMAIN, /* over 255 bytes */
    PATH_LONG_LABEL,  /* over 63 bytes */
    PATH_NOT_ASCII,   /* UTF-8 without SMTPUTF8 */
    PATH_BAD_UTF8,
    PATH_ERROR_COUNT
};

/* Takes a path off the front of *in, which is then what follows it (parameters,
 * with the blank before them). Also accepts a bare address up to the next
 * blank, as old devices send it. */
enum path_error path_parse(struct slice *in, unsigned flags, struct smtp_path *out);
/* Parses an address without <>, the whole of `address` (configuration,
 * arguments, what another process sent). */
enum path_error address_parse(struct slice address, unsigned flags, struct smtp_path *out);
/* The reply for an error; flags as given to the parser. Not for PATH_OK. */
struct refusal path_refusal(enum path_error error, unsigned flags);

/* What follows the last @ outside quotes; empty if there is none. Any bytes. */
struct slice address_domain(struct slice address);
/* What precedes it; the whole address if there is none. */
struct slice address_local(struct slice address);
/* Whether s is a host or domain name: labels of letters, digits, hyphens and
 * underscores (B68), within the limits; no trailing dot. utf8: U-labels too. */
bool domain_valid(struct slice s, bool utf8);
/* Whether s is strictly valid UTF-8 (no overlong forms, no surrogates). */
bool utf8_valid(struct slice s);
/* Whether a byte outside ASCII is in s. */
bool has_8bit(struct slice s);

#endif

/*
 * Parameters behind the path of MAIL and RCPT: SIZE (RFC 1870), BODY (RFC 6152),
 * SMTPUTF8 (RFC 6531), REQUIRETLS (RFC 8689), AUTH (RFC 4954), RET, ENVID, NOTIFY, ORCPT (RFC 3461,
 * RFC 6533). xtext.
 */
#ifndef POSTERN_SMTP_PARAMS_H
#define POSTERN_SMTP_PARAMS_H

#include "core/buf.h"
#include "core/dsn.h"
#include "core/refusal.h"

enum {
    ENVID_MAX = 100,          /* RFC 3461 4.4 */
    AUTH_PARAMETER_MAX = 500, /* RFC 4954 section 5 */
    ORCPT_MAX = 500           /* RFC 3461 4.2; type, semicolon and address */
};

enum mail_body { BODY_UNSET, BODY_7BIT, BODY_8BITMIME };

struct mail_params {
    uint32_t given; /* private: which parameters came */
    uint64_t size;  /* 0: not given */
    uint8_t body;   /* enum mail_body */
    bool smtputf8;
    bool requiretls; /* RFC 8689; the caller refuses it without TLS */
    uint8_t ret;     /* enum dsn_ret */
    uint8_t envid_len;
    char envid[ENVID_MAX]; /* decoded: printable ASCII and spaces */
};

struct rcpt_params {
    uint32_t given;
    uint8_t notify; /* enum dsn_notify bits */
    uint16_t orcpt_len;
    char orcpt[ORCPT_MAX]; /* "type;address", the address decoded (UTF-8 for type utf-8) */
};

static inline struct slice mail_envid(const struct mail_params *p)
{
    return slice_make(p->envid, p->envid_len);
}
static inline struct slice rcpt_orcpt(const struct rcpt_params *p)
{
    return slice_make(p->orcpt, p->orcpt_len);
}

/* Parses what follows the path, all of it; *out is set from scratch. 0; or -1
 * and *why: 501 5.5.4 for a bad value or a duplicate, 555 5.5.4 if unknown. A
 * size above the limit is the caller's to refuse. */
int mail_params_parse(struct slice in, struct mail_params *out, struct refusal *why);
/* smtputf8: of the transaction; raw UTF-8 in ORCPT is then allowed. */
int rcpt_params_parse(struct slice in, bool smtputf8, struct rcpt_params *out, struct refusal *why);

/* Whether a byte stands for itself in xtext. */
bool xtext_char(unsigned char c);
/* xtext (RFC 3461 4): +XX stands for a byte. Appends; 0, or -1 if `in` is
 * not xtext, or `out` is full. Any decoded byte is possible. */
int xtext_decode(struct slice in, struct buf *out);
/* Appends any bytes as xtext; -1 only if `out` is full. */
int xtext_encode(struct slice in, struct buf *out);
/* Appends "type;address" decoded from the value of ORCPT=; -1 if malformed or
 * `out` is full. Any decoded byte is possible for types other than utf-8. */
int orcpt_decode(struct slice in, bool smtputf8, struct buf *out);
/* Appends the value of ORCPT= for a decoded "type;address" (RFC 3461, RFC 6533):
 * for type utf-8, raw UTF-8 if smtputf8, else \x{...} escapes. -1 if `out` is
 * full or orcpt has no type. */
int orcpt_encode(struct slice orcpt, bool smtputf8, struct buf *out);

#endif

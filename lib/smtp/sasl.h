/* What AUTH (RFC 4954) has on its lines: base64, mechanisms' names, PLAIN's message. */
#ifndef POSTERN_SMTP_SASL_H
#define POSTERN_SMTP_SASL_H

#include "core/buf.h"

enum {
    SASL_MECHANISM_MAX = 20, /* RFC 4422 section 3.1 */
    SASL_USER_MAX = 255,     /* bytes of a user name, RFC 4616 section 2 */
    SASL_PASSWORD_MAX = 1024 /* more than any hash takes */
};

/* What a mechanism is or does; Dovecot says so of each, options ask for it. Bits. */
enum sasl_trait {
    SASL_PLAINTEXT = 1,
    SASL_ANONYMOUS = 2,
    SASL_ACTIVE = 4,
    SASL_DICTIONARY = 8,
    SASL_FORWARD_SECRECY = 16,
    SASL_MUTUAL_AUTH = 32
};

/* Decodes base64 without tolerance: no blanks, padding where it belongs, no bits left
 * over (RFC 4648 section 3.5). The number of bytes in `out`, or -1: malformed, or more
 * than `size`. */
long base64_decode(struct slice text, char *out, size_t size);
/* Appends; -1 if it does not fit. */
int base64_encode(struct slice in, struct buf *out);

/* 1 to 20 capitals, digits, hyphens and underscores. */
bool sasl_is_mechanism(struct slice name);

/* A message of PLAIN: authzid NUL user NUL password; borrows from it. */
struct sasl_plain {
    struct slice authzid, user, password;
};
/* 0, or -1: not of this form, an empty or overlong part, a NUL in the password. */
int sasl_plain_parse(struct slice message, struct sasl_plain *out);

#endif

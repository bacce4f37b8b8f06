/* What a server offers in its EHLO (or LHLO) reply. Unknown keywords are
 * ignored; the number of lines is capped by the reply parser (B47). */
#ifndef POSTERN_SMTP_EHLO_H
#define POSTERN_SMTP_EHLO_H

#include "smtp/reply.h"

/* EHLO_KEYWORD(enumerator, bit, keyword) */
#define EHLO_KEYWORDS                                                                              \
    EHLO_KEYWORD(EHLO_PIPELINING, 0, "PIPELINING")                                                 \
    EHLO_KEYWORD(EHLO_SIZE, 1, "SIZE")                                                             \
    EHLO_KEYWORD(EHLO_8BITMIME, 2, "8BITMIME")                                                     \
    EHLO_KEYWORD(EHLO_SMTPUTF8, 3, "SMTPUTF8")                                                     \
    EHLO_KEYWORD(EHLO_ENHANCEDSTATUSCODES, 4, "ENHANCEDSTATUSCODES")                               \
    EHLO_KEYWORD(EHLO_DSN, 5, "DSN")                                                               \
    EHLO_KEYWORD(EHLO_CHUNKING, 6, "CHUNKING")                                                     \
    EHLO_KEYWORD(EHLO_STARTTLS, 7, "STARTTLS")                                                     \
    EHLO_KEYWORD(EHLO_AUTH, 8, "AUTH")                                                             \
    EHLO_KEYWORD(EHLO_LIMITS, 9, "LIMITS")                                                         \
    EHLO_KEYWORD(EHLO_BINARYMIME, 10, "BINARYMIME")                                                \
    EHLO_KEYWORD(EHLO_REQUIRETLS, 11, "REQUIRETLS")

enum ehlo_feature {
#define EHLO_KEYWORD(enumerator, bit, keyword) enumerator = 1 << bit,
    EHLO_KEYWORDS
#undef EHLO_KEYWORD
};

enum ehlo_auth { EHLO_AUTH_PLAIN = 1, EHLO_AUTH_LOGIN = 2, EHLO_AUTH_CRAM_MD5 = 4 };

struct ehlo {
    uint32_t features; /* enum ehlo_feature */
    uint32_t auth;     /* enum ehlo_auth */
    uint64_t size;     /* SIZE: largest message; 0: not said */
    uint64_t mail_max; /* LIMITS MAILMAX (RFC 9422): transactions in a session; 0: not said */
    uint64_t rcpt_max; /* LIMITS RCPTMAX */
    uint64_t rcpt_domain_max;
};

/* Reads a complete 250 reply; *out is set from scratch. */
void ehlo_parse(const struct smtp_reply *r, struct ehlo *out);

#endif

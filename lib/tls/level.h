/*
 * How well a connection to a server must be protected, from what Postfix calls
 * smtp_tls_security_level; the words are its own.
 */
#ifndef POSTERN_TLS_LEVEL_H
#define POSTERN_TLS_LEVEL_H

#include "core/slice.h"

enum tls_level {
    TLS_LEVEL_NONE,      /* never TLS */
    TLS_LEVEL_MAY,       /* TLS where the server offers it, else clear text */
    TLS_LEVEL_ENCRYPT,   /* TLS, whoever the server is */
    TLS_LEVEL_DANE,      /* as its TLSA records say; where there are none: may */
    TLS_LEVEL_DANE_ONLY, /* as its TLSA records say; where there are none: mail waits */
    TLS_LEVEL_VERIFY,    /* a certificate that CAs vouch for, with one of the names */
    TLS_LEVEL_SECURE,    /* the same with names that DNS cannot have forged */
    TLS_LEVEL_FORBIDDEN, /* this server must not be used: resolve says why */
    TLS_LEVELS
};

/* Where a requirement comes from. */
enum tls_origin {
    TLS_ORIGIN_CONFIG, /* smtp_tls_security_level */
    TLS_ORIGIN_TABLE,  /* smtp_tls_policy_maps */
    TLS_ORIGIN_DANE,   /* the server's TLSA records (RFC 7672) */
    TLS_ORIGIN_STS,    /* the domain's MTA-STS policy (RFC 8461) */
    TLS_ORIGINS
};

/* The level's word, as in main.cf; "forbidden" for that one. */
const char *tls_level_name(enum tls_level level);
/* The level of a word of main.cf, or -1. TLS_LEVEL_FORBIDDEN has none. */
int tls_level_parse(struct slice word);
/* "main.cf", "smtp_tls_policy_maps", "DANE", "MTA-STS". */
const char *tls_origin_name(enum tls_origin origin);

#endif

/*
 * The value of an entry of smtp_tls_policy_maps, in Postfix's syntax:
 *
 *   none | may | encrypt | dane | dane-only | verify | secure
 *   encrypt protocols=>=TLSv1.3 ciphers=high
 *   secure match=example.com:.example.com:nexthop:hostname
 *   verify servername=hostname
 *
 * Attributes are separated by white space or commas, names in match by colons.
 */
#ifndef POSTERN_TLS_POLICY_H
#define POSTERN_TLS_POLICY_H

#include "core/err.h"
#include "tls/level.h"

enum {
    TLS_POLICY_TEXT_MAX = 1024, /* bytes of a value */
    TLS_NAMES_MAX = 16,         /* names in one match list */
    TLS_NAME_LEN_MAX = 254      /* ".example.com": a domain and a dot */
};

enum tls_cipher_grade { TLS_CIPHERS_DEFAULT, TLS_CIPHERS_MEDIUM, TLS_CIPHERS_HIGH };

/* Slices borrow from the text; empty: not given. */
struct tls_policy {
    enum tls_level level;
    struct slice match;      /* checked names, separated by colons */
    struct slice protocols;  /* tls_protocols_parse takes it */
    struct slice ciphers;    /* "medium" or "high" */
    struct slice servername; /* a host name, "hostname" or "nexthop" */
};

/* 0; or -1 and *e with what is wrong and what may be written. */
int tls_policy_parse(struct slice text, struct tls_policy *out, struct err *e);
/* Checks a list of names that a certificate may have, separated by colons, commas
 * or white space: hostname, nexthop, dot-nexthop, host names, .domains. Not empty. */
int tls_match_check(struct slice list, struct err *e);
/* The next name of such a list. */
bool tls_match_next(struct slice *list, struct slice *name);
/* The grade of a word, or -1 and *e. Postfix's lower grades do not exist. */
int tls_cipher_grade(struct slice word, struct err *e);
/* Whether this is a host name that may be sent as SNI or compared with a
 * certificate: letters, digits, hyphens, underscores, dots. */
bool tls_is_host_name(struct slice name);

#endif

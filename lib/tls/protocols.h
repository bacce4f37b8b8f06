/*
 * Which versions of TLS may be used, as Postfix's *_tls_protocols parameters say
 * it: ">=TLSv1.2", "<=TLSv1.3", "TLSv1.2, TLSv1.3", "!SSLv3, !TLSv1". What is
 * older than TLS 1.2 is never used, whatever is written (RFC 8996).
 */
#ifndef POSTERN_TLS_PROTOCOLS_H
#define POSTERN_TLS_PROTOCOLS_H

#include "core/err.h"
#include "core/slice.h"

/* In the order of their age; the protocols that are never used come first. */
enum tls_version { TLS_VERSION_OLD, TLS_VERSION_1_2, TLS_VERSION_1_3 };

struct tls_protocols {
    enum tls_version lowest, highest; /* TLS_VERSION_1_2 or TLS_VERSION_1_3 */
};

/* Elements are separated by white space, commas or colons. 0; or -1 and *e for
 * unknown words, and if nothing is left that may be used. An empty text allows
 * both. */
int tls_protocols_parse(struct slice text, struct tls_protocols *out, struct err *e);

#endif

/* Whether bytes are what a server signs in a TLS handshake. Pure. */
#ifndef POSTERN_KEYD_HANDSHAKE_H
#define POSTERN_KEYD_HANDSHAKE_H

#include "core/slice.h"

/* How a SignatureScheme (RFC 8446 section 4.2.3) signs. */
struct handshake_scheme {
    const char *digest; /* "SHA256" */
    bool rsa, pss;
};

/* Looks a scheme up; false: it is not one that we sign with. */
bool handshake_scheme(uint16_t number, struct handshake_scheme *out);
/* True if `content` is what a server signs in TLS 1.3 (RFC 8446 section 4.4.3) or,
 * with an elliptic curve, in TLS 1.2 (RFC 8422 section 5.4), and the scheme may
 * sign it. Nothing else can have this form: no certificate, no other protocol's
 * message, not what a client signs. */
bool handshake_is_servers(uint16_t scheme, struct slice content);

#endif

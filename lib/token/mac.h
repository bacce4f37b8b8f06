/* HMAC-SHA-256 (RFC 2104) for what every login and every message asks for. */
#ifndef POSTERN_TOKEN_MAC_H
#define POSTERN_TOKEN_MAC_H

#include "core/slice.h"

enum { MAC_BYTES = 32 };

/* For the loop's thread only: it uses one context again and again, because finding the
 * algorithm costs OpenSSL several times what computing it does. */
void mac_sha256(const unsigned char key[static MAC_BYTES], struct slice text,
                unsigned char out[static MAC_BYTES]);

#endif

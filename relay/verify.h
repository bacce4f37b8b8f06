/* Whether the server at the other end of a finished handshake is who it should be. */
#ifndef POSTERN_RELAY_VERIFY_H
#define POSTERN_RELAY_VERIFY_H

#include "relay/rules.h"
#include "tls/result.h"

struct verification {
    uint8_t peer; /* enum tls_peer_status */
    enum tls_result result;
    const char *why; /* what is wrong, a constant text; "" if nothing is */
};

/* Looks at the certificate of the session's connection. Whether a failure matters
 * is the caller's to say. */
void verify_server(struct session *s, const struct tls_need *need, struct verification *out);

#endif

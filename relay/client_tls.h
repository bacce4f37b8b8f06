/*
 * What connections with TLS share: contexts, the certificate authorities, sessions
 * that may be resumed, and which servers' TLS did not work.
 */
#ifndef POSTERN_RELAY_CLIENT_TLS_H
#define POSTERN_RELAY_CLIENT_TLS_H

#include "core/list.h"
#include "core/map.h"
#include "io/tls.h"
#include "relay/rules.h"
#include "tls/protocols.h"

enum {
    TLS_SESSIONS_MAX = 5000,               /* that may be resumed; the oldest go */
    TLS_FAILED_MAX = 10000,                /* servers whose TLS failed; the oldest go */
    TLS_AUTHORITIES_MAX = 8 * 1024 * 1024, /* bytes of PEM */
    TLS_CONTEXTS = 2 * (TLS_VERSION_1_3 + 1) * (TLS_VERSION_1_3 + 1)
};

struct config;
struct session;

struct client_tls {
    struct buf authorities; /* PEM */
    bool complained;        /* that there are none, or that they cannot be read */
    struct tls_context *contexts[TLS_CONTEXTS]; /* by versions and ciphers; made when needed */
    struct map sessions;                        /* of struct tls_saved */
    struct list oldest_sessions;
    struct map failed; /* of struct tls_failure */
    struct list oldest_failed;
};

void client_tls_init(struct client_tls *c);
void client_tls_free(struct client_tls *c);
/* Takes over the authorities; connections that are made from now on use them, and
 * no session that was verified with the old ones is resumed. */
void client_tls_authorities(struct client_tls *c, struct buf *pem);
/* A connection that begins its handshake with s's server as `need` says, or NULL
 * with *e set. */
struct tls *client_tls_new(struct client_tls *c, const struct config *config, struct session *s,
                           const struct tls_need *need, struct err *e);

/* ---- sessions ---- */

/* OpenSSL's callback for new sessions, of every context. */
void tls_sessions_install(SSL_CTX *native);
/* Lets the connection resume a session that an earlier one for the same rules had
 * with this server; s remembers what was known of the server then. */
void tls_sessions_offer(struct client_tls *c, struct session *s, struct tls *tls);
/* The server of s has passed its checks: its sessions may be resumed, the one that
 * has come already and those that will. */
void tls_sessions_accept(struct session *s);
/* s ends. */
void tls_sessions_drop(struct session *s);
void tls_sessions_clear(struct client_tls *c);

/* ---- servers whose TLS did not work ---- */

/* TLS with this server failed: clear text for `seconds`. */
void tls_failed_note(struct client_tls *c, struct slice server, int64_t seconds);
bool tls_failed_lately(struct client_tls *c, struct slice server);

#endif

/*
 * TLS without sockets: ciphertext goes in and out as bytes, so that any event
 * loop can carry it. A connection (struct tls) belongs to a context (struct
 * tls_context), which has the certificates and rules of one listener or client.
 *
 *     bytes came in:   tls_handshake until it says TLS_OK, then tls_decrypt
 *     to send:         tls_encrypt
 *     after each call: send tls_output, and tell tls_sent how much of it left
 *
 * TLS 1.2 and newer (RFC 5246, RFC 8446; RFC 8996), no compression, no
 * renegotiation, no early data; a server does no key exchange by RSA, which would
 * need the key to decrypt. One thread only. A private key may be
 * in another process: then the handshake stops at TLS_SIGN, and goes on after
 * tls_signed.
 */
#ifndef POSTERN_IO_TLS_H
#define POSTERN_IO_TLS_H

#include <openssl/ssl.h>

#include "core/buf.h"
#include "core/err.h"

enum {
    TLS_NAME_MAX = 255,                   /* of a host in SNI (RFC 6066) */
    TLS_OUT_HIGH = 64 * 1024,             /* tls_encrypt takes nothing beyond this much output */
    TLS_OUT_MAX = 192 * 1024,             /* a handshake that would send more fails */
    TLS_RECORD_MAX = 16 * 1024 + 5 + 256, /* on the wire; a connection keeps less than one */
    TLS_SIGNED_MAX = 512,                 /* bytes that are signed in a handshake */
    TLS_SIGNATURE_MAX = 1024,             /* RSA of 8192 bits */
    TLS_PEER_CERTIFICATES = 48 * 1024,    /* bytes of a peer's chain; longer ones fail (B71) */
    TLS_DEPTH_MAX = 9, /* authorities in a chain; deeper ones do not verify (B71) */
    TLS_TICKET_KEYS = 4
};

/* What a call came to. */
enum tls_status {
    TLS_OK,     /* done */
    TLS_MORE,   /* all input is used, more is needed */
    TLS_SIGN,   /* a signature is needed: tls_wanted_signature, tls_signed, tls_handshake */
    TLS_CLOSED, /* the other side said that it sends no more (close_notify) */
    TLS_BROKEN  /* see tls_error; what is in tls_output (an alert) may still be sent */
};

/* Sets OpenSSL up, once in a process, before any other use of it: without its
 * configuration file, with our provider of keys that are elsewhere.
 * tls_context_new does it too. */
void tls_library(void);

/* ---- contexts --------------------------------------------------------------- */

struct tls_context;

struct tls_settings {
    bool server;
    int min_version, max_version; /* TLS1_2_VERSION ...; 0: from TLS 1.2, to the newest */
    const char *ciphers;          /* OpenSSL's list for TLS 1.2; NULL: all that authenticate */
    const char *groups;           /* key exchange, OpenSSL's list; NULL: its default */
    int security_level;           /* OpenSSL's, 0 to 5 */
    bool ask_certificate;         /* a server asks for the client's; any is taken, see tls_peer */
    bool require_certificate;     /* ... and ends the handshake if there is none that verifies */
    struct slice authorities;     /* PEM certificates that peers are verified with; may be empty */
    struct slice session_context; /* a server's: sessions of another one are not resumed (B73),
                                   * nor of another name in SNI (RFC 6066); at most 32 bytes */
    long session_seconds;         /* how long a session may be resumed; 0: never */
};

/* Where a private key is. Either its PEM text, or the number by which the caller
 * knows the key that it has somewhere else. */
struct tls_key {
    struct slice pem; /* empty: elsewhere */
    uint32_t number;
};

/* NULL on an error. The caller frees with tls_context_free; connections keep it
 * alive. */
struct tls_context *tls_context_new(const struct tls_settings *settings, struct err *e);
void tls_context_free(struct tls_context *c);
/* Adds a certificate with its chain (PEM, own certificate first) and its key. A
 * server may have one of RSA and one of ECDSA for each name. `name` empty: for
 * all names that have none of their own, and to verify ourselves to a server;
 * ".example.com": for all names below. The key must fit the certificate. */
int tls_context_add(struct tls_context *c, struct slice name, struct slice chain,
                    const struct tls_key *key, struct err *e);

/* Keys of session tickets, the newest first, which encrypts; older ones are still
 * understood. Without any no tickets are given. */
struct tls_ticket_key {
    unsigned char name[16], cipher[32], mac[32];
};
void tls_context_tickets(struct tls_context *c, const struct tls_ticket_key *keys, size_t count);
/* For what only one side needs (DANE, a client's sessions). */
SSL_CTX *tls_context_native(struct tls_context *c);

/* ---- connections --------------------------------------------------------------- */

struct tls;

/* `host` (a client's): asked for in SNI unless empty. Never NULL. */
struct tls *tls_new(struct tls_context *c, struct slice host);
/* May be called in any state. */
void tls_free(struct tls *t);
/* Whose connection it is: for callbacks of OpenSSL. */
void tls_set_owner(struct tls *t, void *owner);
void *tls_owner(const struct tls *t);
struct tls *tls_of(const SSL *ssl);
SSL *tls_native(struct tls *t);

/* Goes on with the handshake; takes what it uses from the front of *in. A client
 * begins with empty input. What is left of *in at TLS_OK is for tls_decrypt. */
enum tls_status tls_handshake(struct tls *t, struct slice *in);
bool tls_established(const struct tls *t);
/* Takes ciphertext from the front of *in and writes up to `room` bytes of what it
 * says to out. TLS_OK: there may be more, call again; *got may be positive with
 * any status. */
enum tls_status tls_decrypt(struct tls *t, struct slice *in, char *out, size_t room, size_t *got);
/* Encrypts from the front of *plain into the output, until that is TLS_OUT_HIGH
 * long. TLS_OK (look at what is left of *plain) or TLS_BROKEN. */
enum tls_status tls_encrypt(struct tls *t, struct slice *plain);
/* Says that nothing more will be sent (close_notify). */
void tls_shutdown(struct tls *t);
/* Ciphertext to be sent. */
struct slice tls_output(const struct tls *t);
/* The first n bytes of it were sent. */
void tls_sent(struct tls *t, size_t n);
/* Why it is TLS_BROKEN: plain words, no peer text; "" if nothing is known. */
const char *tls_error(const struct tls *t);
/* The alert that the peer sent, such as "unknown CA"; "" if none. */
const char *tls_alert(const struct tls *t);

/* ---- keys elsewhere --------------------------------------------------------------- */

/* What is to be signed: the content as the handshake defines it, not its hash
 * (RFC 8446 section 4.4.3, RFC 5246 section 7.4.3), and how, as a SignatureScheme
 * (RFC 8446 section 4.2.3). */
struct tls_signing {
    uint32_t key;
    uint16_t scheme;
    struct slice content; /* valid until tls_signed or tls_free */
};
/* After TLS_SIGN. */
struct tls_signing tls_wanted_signature(const struct tls *t);
/* The answer; an empty slice says that there is none, and the handshake will fail.
 * Then call tls_handshake. */
void tls_signed(struct tls *t, struct slice signature);

/* ---- what is known ----------------------------------------------------------------- */

/* The connection, in Postfix's words; constant strings or "". */
struct tls_facts {
    const char *protocol, *cipher; /* "TLSv1.3", "TLS_AES_256_GCM_SHA384" */
    int bits, algorithm_bits;
    const char *key_exchange;     /* "X25519", "ECDHE (P-256)" */
    const char *signature;        /* of the server: "ECDSA", "RSA-PSS" */
    const char *signature_digest; /* "SHA256" */
    int signature_bits;           /* of the server's key, 0: not known (a resumed session) */
    bool resumed;
};
void tls_facts(const struct tls *t, struct tls_facts *out);
/* "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)" */
void tls_describe(const struct tls_facts *f, struct buf *out);
/* " key-exchange X25519 server-signature ECDSA (256 bits) server-digest SHA256", as
 * far as it is known; nothing for a resumed session. */
void tls_describe_more(const struct tls_facts *f, struct buf *out);

/* What a connection is known by to both ends, and to nobody between (channel binding). */
enum { TLS_EXPORTER_BYTES = 32, TLS_ENDPOINT_MAX = 64 };
/* tls-exporter (RFC 9266). False: not with this connection, which is not of TLS 1.3. */
bool tls_exporter(const struct tls *t, unsigned char out[static TLS_EXPORTER_BYTES]);
/* tls-server-end-point (RFC 5929 section 4): the digest of a server's own certificate;
 * its length. 0: there is none (Ed25519), or a resumed session of a server that may have
 * been made with another certificate. */
size_t tls_endpoint(const struct tls *t, unsigned char out[static TLS_ENDPOINT_MAX]);

/* The other side's certificate. Names are as the certificate has them: escape
 * them before they get into a log. */
struct tls_peer {
    bool present, verified;
    const char *problem;                                      /* why it does not verify, or "" */
    char subject[TLS_NAME_MAX + 1], issuer[TLS_NAME_MAX + 1]; /* common names; "" if none, or if
                                                               * there is a NUL in it */
    char fingerprint[3 * 32], key_fingerprint[3 * 32];        /* SHA-256 as "AA:BB:...": of the
                                                               * certificate, of its public key */
};
void tls_peer(const struct tls *t, struct tls_peer *out);

#endif

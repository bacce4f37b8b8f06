/* What the parts of the TLS layer share; inside lib/io only. */
#ifndef POSTERN_IO_TLS_PRIVATE_H
#define POSTERN_IO_TLS_PRIVATE_H

#include "core/map.h"
#include "io/tls.h"

enum tls_sign_state { SIGN_NONE, SIGN_WANTED, SIGN_ANSWERED };

struct tls {
    SSL *ssl;
    struct tls_context *context; /* counted */
    void *owner;
    struct slice in; /* ciphertext of the call under way */
    struct buf out;
    bool established, broken;
    bool chain_too_long; /* the peer's */
    uint8_t sign_state;  /* enum tls_sign_state */
    uint8_t alert;       /* that came in, see tls_alert */
    struct tls_signing signing;
    struct slice signature; /* while tls_handshake runs: the answer */
    char *answer;           /* between tls_signed and that; or NULL */
    char *error;            /* or NULL */
};

/* A name of the server with its certificates. */
struct tls_identity {
    char *name;
    SSL_CTX *native;
};

struct tls_context {
    SSL_CTX *native; /* the default identity, and what all have in common */
    struct tls_settings settings;
    unsigned char session_context[SSL_MAX_SID_CTX_LENGTH];
    char *ciphers, *groups;
    struct map names; /* of struct tls_identity */
    struct tls_ticket_key tickets[TLS_TICKET_KEYS];
    size_t ticket_count;
    unsigned references;
};

/* ---- tls_key.c ---- */
/* A key that is elsewhere, as a pair to this public one; NULL on an error. */
EVP_PKEY *tls_key_elsewhere(const EVP_PKEY *public_key, uint32_t number);
/* The connection whose handshake runs now: a signature is for it. */
void tls_key_current(struct tls *t);

/* ---- tls_ticket.c ---- */
/* The callback of tickets for this context. */
void tls_tickets_install(struct tls_context *c, SSL_CTX *native);

/* One more user of the context; tls_context_free takes it off. */
struct tls_context *tls_context_use(struct tls_context *c);

/* ---- tls_error.c ---- */
/* Empties OpenSSL's queue of errors and puts the first into *e, behind `context`
 * unless that is NULL; returns -1. */
int tls_library_error(struct err *e, const char *context);

#endif

/*
 * SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), the server's side. With
 * -PLUS the client proves that its TLS connection ends here (channel binding).
 * Pure but for the random nonce. Messages come and go without their base64.
 */
#ifndef POSTERN_QUOTA_SCRAM_H
#define POSTERN_QUOTA_SCRAM_H

#include "core/buf.h"
#include "quota/hash.h"

enum {
    SCRAM_DIGEST = 32,
    SCRAM_SALT = 16,
    SCRAM_SALT_MAX = 64,
    SCRAM_USER_MAX = 255,
    SCRAM_MESSAGE_MAX = 2048,
    SCRAM_BINDING_MAX =
        1200, /* the GS2 header with a name of "=2C" only, and 64 bytes, in base64 */
    SCRAM_BINDING_DATA_MAX = 64, /* bytes of what a connection is known by */
    SCRAM_TEXT_MAX = 320         /* of keys as text */
};

/* What is kept instead of the password. */
struct scram_keys {
    uint32_t iterations;
    uint8_t salt_len;
    unsigned char salt[SCRAM_SALT_MAX], stored[SCRAM_DIGEST], server[SCRAM_DIGEST];
};
/* From a password with a new salt: slow. 0 or -1. */
int scram_make(struct slice password, uint32_t iterations, struct scram_keys *out);
/* The same with this salt. */
int scram_make_with(struct slice password, uint32_t iterations,
                    const unsigned char salt[static SCRAM_SALT], struct scram_keys *out);
/* Whether the keys are of this password: slow. Users may have nothing else. */
enum hash_verdict scram_verify(const struct scram_keys *k, struct slice password);
/* "SCRAM-SHA-256$4096:salt$StoredKey:ServerKey" in base64; 0 or -1. */
int scram_parse(struct slice text, struct scram_keys *out);
void scram_print(const struct scram_keys *k, char out[static SCRAM_TEXT_MAX + 1]);
/* Keys for a user that there is not, always the same for the same secret: an
 * attacker learns nothing from the challenge. No proof fits them. */
void scram_fake(struct slice secret, struct slice user, uint32_t iterations,
                struct scram_keys *out);

/* What the client's TLS connection is known by. Empty: not to be had. */
struct scram_binding {
    bool offered;          /* SCRAM-SHA-256-PLUS was announced */
    bool plus;             /* ... and is what the client has chosen */
    struct slice exporter; /* tls-exporter (RFC 9266) */
    struct slice endpoint; /* tls-server-end-point (RFC 5929 section 4) */
};

/* One exchange. */
struct scram {
    char user[SCRAM_USER_MAX + 1];
    char authorization[SCRAM_USER_MAX + 1]; /* whom the client wants to act as; "": user */
    struct buf bare;                        /* client-first-message-bare */
    struct buf challenge;                   /* server-first-message */
    char binding[SCRAM_BINDING_MAX];        /* base64, as c= must have it: the GS2 header, then what
                                             * the connection is known by */
    const char *problem; /* what is wrong, for the log; NULL: nothing, or the proof */
    size_t nonce_at;     /* in challenge: behind "r=" */
    size_t nonce_len;
    struct scram_keys keys;
};
void scram_init(struct scram *s);
/* Wipes and frees. */
void scram_free(struct scram *s);
/* The client's first message; s->user is the name, and s->authorization, which the caller has
 * to look at. 0, or -1 with s->problem: malformed; it wants a binding that is not to be had; or it
 * would have used one, had it seen that it is offered, so somebody has changed what it saw (RFC
 * 5802 section 6). */
int scram_first(struct scram *s, struct slice message, const struct scram_binding *binding);
/* The answer is s->challenge. `nonce` is printable and without ','; NULL: random. */
int scram_challenge(struct scram *s, const struct scram_keys *keys, const char *nonce);
/* The client's final message. 0: it knows the password, and *out is the server's
 * final message; -1: not. */
int scram_final(struct scram *s, struct slice message, struct buf *out);

#endif

/*
 * TLS of this process and of its sessions: STARTTLS (RFC 3207) and TLS from the
 * first byte (RFC 8314). Certificates come from master, signatures from keyd.
 */
#ifndef POSTERN_SMTPD_SECURE_H
#define POSTERN_SMTPD_SECURE_H

#include "conf/config.h"
#include "io/tls.h"

struct session;

enum { BUNDLE_MAX = 128 << 20 /* bytes of certificates that master may send */ };

struct secure {
    bool offered;                /* there is TLS: by STARTTLS, or from the first byte */
    bool announced;              /* EHLO says STARTTLS */
    bool required;               /* smtpd_tls_security_level = encrypt, or smtpd_tls_wrappermode */
    bool immediate;              /* smtpd_tls_wrappermode */
    bool has_keys;               /* smtpd_tls_key_process = smtpd: keyd need not sign */
    struct tls_context *context; /* NULL: no certificates have come yet */
    struct tls_ticket_key tickets[TLS_TICKET_KEYS];
    size_t ticket_count;
    char *input; /* what was read and is not decrypted yet: INPUT_SLICE bytes; made when needed */
};

/* A client's certificate. Names are escaped already. */
struct certificate {
    bool verified;
    uint8_t standing;                /* enum certificate_standing (identity.h) */
    char *refused;                   /* CERTIFICATE_REFUSED: why, escaped */
    void (*then)(struct session *s); /* when quota has said whose it is */
    char *subject, *issuer;          /* common names */
    char fingerprint[3 * 32], key_fingerprint[3 * 32];
};

void secure_configure(struct secure *sec, const struct config *config);
void secure_free(struct secure *sec);
/* The certificates in fd (ipc_tls), which stays the caller's; on an error the old
 * ones stay in use. `service`: sessions are resumed by the same service only. */
int secure_certificates(struct secure *sec, const struct config *config, const char *service,
                        int fd, struct err *e);
/* Keys of session tickets, as in ipc_tls_tickets. */
int secure_tickets(struct secure *sec, struct slice keys, struct err *e);

/* Whether a handshake could succeed now: there are certificates, and keyd. */
bool secure_ready(const struct session *s);
/* From now on the session's bytes are those of a handshake (INPUT_TLS). */
void secure_begin(struct session *s);
/* Goes on with the handshake; takes what it uses from *in. When it stops for a
 * signature the session waits. Failures are logged. */
enum tls_status secure_handshake(struct session *s, struct slice *in);
/* The handshake is done: logs it, and forgets what the client said before (B11). */
void secure_established(struct session *s);
/* The client's certificate permits relaying. */
bool secure_may_relay(const struct session *s);
/* XCLIENT: the certificate was that of another client. */
void secure_forget_certificate(struct session *s);
/* Says goodbye (close_notify), if the socket takes it, and frees. */
void secure_close(struct session *s);

/* Appends the comment of Received, folded, or nothing. */
void secure_received(const struct session *s, struct buf *out);
/* Whether the session's bytes are encrypted. */
bool secure_is_on(const struct session *s);
/* What the session's TLS connection is known by; empty without TLS. */
struct secure_binding {
    unsigned char exporter[TLS_EXPORTER_BYTES], endpoint[TLS_ENDPOINT_MAX];
    size_t exporter_len, endpoint_len;
};
void secure_binding(const struct session *s, struct secure_binding *out);

#endif

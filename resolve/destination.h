/*
 * A next hop, as relayhost and transport_maps write it, or as it follows from a
 * recipient's domain.
 *
 *   example.com  example.com:587       the MX hosts of a domain
 *   [mail.example.com]  [mail...]:587  that host, no MX lookup
 *   [192.0.2.1]:25  [IPv6:2001:db8::1] that address
 *   LMTP: inet:host:port, host:port, [host]:port (never MX), unix:/path
 *
 * Several, separated by commas or blanks, are tried in this order.
 */
#ifndef POSTERN_RESOLVE_DESTINATION_H
#define POSTERN_RESOLVE_DESTINATION_H

#include "core/buf.h"
#include "core/err.h"
#include "resolve/domain.h"

enum { LMTP_PORT = 24 }; /* what LMTP usually has (RFC 2033 leaves it open) */
enum destination_kind { DESTINATION_MX, DESTINATION_HOST, DESTINATION_ADDRESS, DESTINATION_UNIX };

struct destination {
    uint8_t kind;    /* enum destination_kind */
    bool configured; /* the operator named it: private addresses are meant */
    bool lmtp;
    uint8_t address_len; /* DESTINATION_ADDRESS: 4 or 16 */
    uint16_t port;
    uint8_t facts; /* enum tls_wanted_fact bits: what else is to be found out */
    uint8_t address[16];
    struct domain name; /* host or domain; the path of DESTINATION_UNIX */
};

struct destination_defaults {
    bool lmtp;
    bool no_mx;    /* disable_dns_lookups */
    uint16_t port; /* where none is written */
};

/* Parses a list of next hops; returns how many (1..DESTINATIONS_MAX), or -1 and
 * *e. All are `configured`. */
int destination_parse(struct slice text, const struct destination_defaults *defaults,
                      struct destination out[DESTINATIONS_MAX], struct err *e);
/* The destination of a recipient's domain, address literals "[192.0.2.1]",
 * "[IPv6:...]" included; 0, or -1 if it is neither. */
int destination_of_domain(struct slice domain, const struct destination_defaults *defaults,
                          struct destination *out);
/* Appends the text that is equal for equal destinations, and only for those. */
void destination_key(const struct destination *d, struct buf *out);
/* "[host]", "[192.0.2.1]:587", "example.com": as it is written in tables. */
void destination_print(const struct destination *d, uint16_t usual_port, struct buf *out);

#endif

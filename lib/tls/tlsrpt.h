/* The TXT record at _smtp._tls.DOMAIN that says where reports about TLS are
 * wanted (RFC 8460 section 3): "v=TLSRPTv1; rua=mailto:tls@example.com,https://example.com/tls". */
#ifndef POSTERN_TLS_TLSRPT_H
#define POSTERN_TLS_TLSRPT_H

#include "core/buf.h"

enum {
    TLSRPT_MAILBOXES_MAX = 4, /* of one domain; the rest gets no reports */
    TLSRPT_MAILBOX_MAX = 254, /* bytes of an address */
    TLSRPT_URLS_MAX = 2,
    TLSRPT_URL_MAX = 255 /* bytes of a URL */
};

struct tlsrpt_record {
    unsigned count, url_count;
    char mailbox[TLSRPT_MAILBOXES_MAX][TLSRPT_MAILBOX_MAX + 1];
    char url[TLSRPT_URLS_MAX][TLSRPT_URL_MAX + 1]; /* "https://host[:port][/path]" */
};

/* Parts of such a URL; host and path borrow from it, an empty path stands for "/". */
struct tlsrpt_url {
    struct slice host, path;
    uint16_t port;
};
/* 0; or -1: not https, no plain host name, a fragment, or bytes that need encoding. */
int tlsrpt_url_parse(struct slice text, struct tlsrpt_url *out);

/* 0; or -1: no such record. Addresses are decoded and safe in SMTP commands. */
int tlsrpt_record_parse(struct slice text, struct tlsrpt_record *out);

#endif

/* The TXT record at _smtp._tls.DOMAIN that says where reports about TLS are
 * wanted (RFC 8460 section 3): "v=TLSRPTv1; rua=mailto:tls@example.com". */
#ifndef POSTERN_TLS_TLSRPT_H
#define POSTERN_TLS_TLSRPT_H

#include "core/buf.h"

enum {
    TLSRPT_MAILBOXES_MAX = 4, /* of one domain; the rest gets no reports */
    TLSRPT_MAILBOX_MAX = 254  /* bytes of an address */
};

struct tlsrpt_record {
    unsigned count; /* 0: only places that we do not report to (https) */
    char mailbox[TLSRPT_MAILBOXES_MAX][TLSRPT_MAILBOX_MAX + 1];
};

/* 0; or -1: no such record. Addresses are decoded and safe in SMTP commands. */
int tlsrpt_record_parse(struct slice text, struct tlsrpt_record *out);

#endif

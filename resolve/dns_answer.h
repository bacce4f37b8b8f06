/* The answer section of a DNS message (RFC 1035 4.1), read strictly. */
#ifndef POSTERN_RESOLVE_DNS_ANSWER_H
#define POSTERN_RESOLVE_DNS_ANSWER_H

#include "core/buf.h"
#include "resolve/domain.h"

enum dns_type {
    DNS_TYPE_A = 1,
    DNS_TYPE_CNAME = 5,
    DNS_TYPE_SOA = 6,
    DNS_TYPE_PTR = 12,
    DNS_TYPE_MX = 15,
    DNS_TYPE_TXT = 16,
    DNS_TYPE_AAAA = 28,
    DNS_TYPE_TLSA = 52
};

enum dns_result {
    DNS_FOUND,    /* records are there, count > 0 */
    DNS_NODATA,   /* the name exists, without records of this type */
    DNS_NXDOMAIN, /* the name does not exist */
    DNS_FAILED    /* SERVFAIL, no answer, nothing but unreadable records: nothing is known */
};

struct dns_record {
    uint16_t preference;
    uint8_t address_len; /* 4, 16, or 0 for an MX or PTR record */
    uint8_t address[16];
    struct domain host; /* MX: empty text for the root, "no mail" (RFC 7505); PTR; CNAME */
    struct slice data;  /* TXT, TLSA: as they are in the message, which they borrow from */
};

struct dns_answer {
    enum dns_result result;
    bool secure;  /* validated by DNSSEC: what is said, that there is nothing included */
    uint32_t ttl; /* seconds, least of what the answer rests on */
    size_t count;
    size_t dropped; /* records of this type that were unreadable (B58, B68) */
    const struct dns_record *records;
    struct domain owner; /* of A and AAAA records: the name that bears them, which is another than
                          * was asked about if that is an alias; empty: no host name, or none */
};

/* Reads the answer to a question for `type` out of a message into records[max]. What cannot be read
 * as a message at all gives DNS_FAILED. */
void dns_answer_parse(struct slice message, enum dns_type type, struct dns_record *records,
                      size_t max, struct dns_answer *out);

/* Appends the text of a TXT record, its strings joined (RFC 1035 3.3.14). 0; or -1 if
 * it is malformed or `out` is full. */
int dns_txt(struct slice data, struct buf *out);

#endif

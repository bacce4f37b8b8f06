/* TLSA records (RFC 6698), as RFC 7672 uses them for mail. */
#ifndef POSTERN_TLS_TLSA_H
#define POSTERN_TLS_TLSA_H

#include "core/slice.h"

enum {
    TLSA_DATA_MAX = 4096, /* a whole certificate (matching type 0); a larger one is not usable */
    TLSA_RECORDS_MAX = 32 /* usable records of one server; the rest is dropped */
};

enum tlsa_usage { TLSA_USAGE_TA = 2, TLSA_USAGE_EE = 3 };
enum tlsa_matching { TLSA_FULL, TLSA_SHA256, TLSA_SHA512 };

struct tlsa {
    uint8_t usage, selector, matching;
    struct slice data; /* borrowed */
};

/* Reads a record's data (wire form). 0; or -1 if it is too short to be one (B58). */
int tlsa_parse(struct slice rdata, struct tlsa *out);
/* Whether, as far as its length tells, mail can be protected by it: DANE-TA(2) or DANE-EE(3), a
 * selector and matching type that are known, data of the length that belongs to it (RFC 7672 3.1).
 * PKIX-TA and PKIX-EE are not usable with SMTP. */
bool tlsa_usable(const struct tlsa *t);

#endif

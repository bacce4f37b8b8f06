/*
 * MTA-STS (RFC 8461): the TXT record that says that a domain has a policy, and
 * the policy that its web server hands out.
 */
#ifndef POSTERN_TLS_MTA_STS_H
#define POSTERN_TLS_MTA_STS_H

#include "core/buf.h"
#include "core/err.h"

enum {
    MTA_STS_ID_MAX = 32,            /* RFC 8461 3.1 */
    MTA_STS_POLICY_MAX = 64 * 1024, /* bytes of a policy (RFC 8461 3.3) */
    MTA_STS_MX_MAX = 100,           /* mx patterns of a policy */
    MTA_STS_MX_BYTES = 8 * 1024,    /* of all patterns */
    MTA_STS_AGE_MAX = 31557600      /* s: a year (RFC 8461 3.2) */
};

enum mta_sts_mode { MTA_STS_NONE, MTA_STS_TESTING, MTA_STS_ENFORCE };

struct mta_sts_policy {
    enum mta_sts_mode mode;
    uint32_t max_age; /* s */
    struct buf mx;    /* patterns in lower case, each followed by a space; buf_free it */
};

/* "v=STSv1; id=20160831085700Z;". 0 and the id; or -1: no such record. */
int mta_sts_record_parse(struct slice text, char id[MTA_STS_ID_MAX + 1]);
/* A policy's text. 0; or -1 and *e, and nothing to free. */
int mta_sts_policy_parse(struct slice text, struct mta_sts_policy *out, struct err *e);
/* Whether one of the patterns ("mx.example.com *.example.net ") is this host, in
 * any case of letters; "*" stands for exactly one label (RFC 8461 4.1). */
bool mta_sts_mx_matches(struct slice patterns, struct slice host);
/* "none", "testing", "enforce". */
const char *mta_sts_mode_name(enum mta_sts_mode mode);

#endif

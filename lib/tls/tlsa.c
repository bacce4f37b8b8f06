#include "tls/tlsa.h"

enum { HEAD = 3 };

int tlsa_parse(struct slice rdata, struct tlsa *out)
{
    if (rdata.len <= HEAD)
        return -1;
    *out = (struct tlsa){.usage = (uint8_t)rdata.ptr[0],
                         .selector = (uint8_t)rdata.ptr[1],
                         .matching = (uint8_t)rdata.ptr[2],
                         .data = slice_from(rdata, HEAD)};
    return 0;
}

bool tlsa_usable(const struct tlsa *t)
{
    if ((t->usage != TLSA_USAGE_TA && t->usage != TLSA_USAGE_EE) || t->selector > 1)
        return false;
    switch (t->matching) {
    case TLSA_FULL:
        return t->data.len <= TLSA_DATA_MAX;
    case TLSA_SHA256:
        return t->data.len == 32;
    case TLSA_SHA512:
        return t->data.len == 64;
    default:
        return false;
    }
}

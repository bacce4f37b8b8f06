/* libraries: postern_domain */
/* Names of senders' domains: any bytes have an organisation, whose own it is, within the bounds. */
#include <stdint.h>
#include <stdlib.h>

#include "domain/organisation.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[DOMAIN_NAME_MAX + 1], again[DOMAIN_NAME_MAX + 1], whole[DOMAIN_NAME_MAX + 1];
    struct slice text = slice_make(data, size);
    struct slice of = domain_organisation(text, name);
    if (of.len > DOMAIN_NAME_MAX || !slice_eq(domain_organisation(of, again), of))
        abort();
    if (!slice_eq(of, SLICE(DOMAIN_NO_NAME)) && !slice_ends(domain_spelled(text, whole), of))
        abort();
    return 0;
}

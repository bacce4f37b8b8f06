/* libraries: resolve_parts */
/* What resolve does with a DNS message: the first byte chooses the type. Every
 * name that comes out must be one that domain_parse takes unchanged. */
#include <stdlib.h>

#include "resolve/dns_answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum dns_type types[] = {DNS_TYPE_MX, DNS_TYPE_A, DNS_TYPE_AAAA, DNS_TYPE_PTR};
    static struct dns_record records[DNS_RECORDS_MAX];
    struct dns_answer a;
    if (size < 1)
        return 0;
    enum dns_type type = types[data[0] % 4];
    dns_answer_parse(slice_make(data + 1, size - 1), type, records, DNS_RECORDS_MAX, &a);
    if ((a.result == DNS_FOUND && a.count == 0) || a.count > DNS_RECORDS_MAX)
        abort();
    for (size_t i = 0; i < a.count && a.result == DNS_FOUND; i++) {
        struct domain again;
        const struct dns_record *r = &a.records[i];
        bool named = type == DNS_TYPE_PTR || (type == DNS_TYPE_MX && r->host.text[0]);
        if (named && (domain_parse(domain_slice(&r->host), &again) < 0 ||
                      !slice_eq(domain_slice(&again), domain_slice(&r->host))))
            abort();
        if (type != DNS_TYPE_MX && type != DNS_TYPE_PTR && r->address_len != 4 &&
            r->address_len != 16)
            abort();
    }
    return 0;
}

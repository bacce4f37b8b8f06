/* libraries: postern_conf */
/* Lists of restrictions: they end, and every server that they name is one. */
#include "conf/endpoint.h"
#include "conf/restrictions.h"
#include "core/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice list = slice_make(data, size);
    struct restriction r;
    struct err e;
    int rc;
    while ((rc = restriction_next(&list, &r, &e)) == 1) {
        struct endpoint endpoint;
        if (r.kind != RESTRICTION_SERVICE)
            continue;
        if (endpoint_parse(r.endpoint, "", &endpoint, &e) < 0)
            panic("a server that is none");
        if (endpoint.len == 0 || endpoint.len > sizeof endpoint.address || r.timeout < 0)
            panic("%zu bytes of address", endpoint.len);
    }
    if (rc == 0 && list.len)
        panic("something is left over");
    return 0;
}

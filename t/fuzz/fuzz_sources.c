/* libraries: postern_core postern_sources */
/* sources.conf: any bytes are taken or refused with an error; what is taken can be reckoned
 * with for any day. */
#include <stdint.h>
#include <stdlib.h>

#include "sources/sources.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t days[] = {INT64_MIN, -1, 0, 1, 29, 30, 365, 366, INT64_MAX};
    struct err e = {0, ""};
    struct sources_conf *c = sources_conf_parse(slice_make(data, size), "sources.conf", &e);
    if (!c) {
        if (!e.text[0])
            abort();
        return 0;
    }
    for (size_t i = 0; i < c->count; i++)
        for (size_t k = 0; k < sizeof days / sizeof days[0]; k++) {
            const struct source_ramp *r = source_ramp_for(&c->sources[i], SLICE("gmail"));
            uint64_t n = source_allowance(r, days[k]);
            if (n == 0 || (r->daily_cap && n > r->daily_cap))
                abort();
        }
    for (size_t i = 0; i < c->pool_count; i++) {
        const struct pool_conf *p = &c->pools[i];
        int steps = 0;
        for (size_t k = 0; k < p->count; k++)
            if (p->members[k] >= c->count || p->weights[k] < k + 1)
                abort();
        for (int at = (int)i; at >= 0; at = c->pools[at].overflow)
            if (steps++ > SOURCES_OVERFLOW_MAX)
                abort();
        if (sources_pool(c, slice_str(p->name)) != p)
            abort();
    }
    if (!sources_pool_for(c, slice_make(data, size), slice_make(data, size), slice_make(data, size),
                          slice_make(data, size)))
        abort();
    sources_conf_free(c);
    return 0;
}

/* libraries: postern_smtp */
/* A PROXY header: any split gives the same result, and a prefix of a good header
 * is never refused. */
#include "core/mem.h"
#include "smtp/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_make(data, size);
    struct proxy_header whole, part;
    size_t used, at;
    enum proxy_status status = proxy_parse(in, &whole, &used);
    if (status == PROXY_DONE && (used == 0 || used > size || used > PROXY_HEADER_MAX))
        panic("%zu of %zu bytes used", used, size);
    if (status == PROXY_MORE && size >= PROXY_HEADER_MAX)
        panic("it goes on without end");
    for (size_t n = 0; n < size && n <= PROXY_HEADER_MAX; n++) {
        enum proxy_status s = proxy_parse(slice_first(in, n), &part, &at);
        if (s == PROXY_BAD && status != PROXY_BAD)
            panic("refused too early, after %zu bytes", n);
        if (s == PROXY_DONE && (status != PROXY_DONE || at != used || n < used))
            panic("taken too early, after %zu bytes", n);
        if (s == PROXY_DONE && memcmp(&whole, &part, sizeof whole) != 0)
            panic("the split changes the header");
    }
    return 0;
}

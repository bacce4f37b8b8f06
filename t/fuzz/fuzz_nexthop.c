/* libraries: resolve_parts */
/* Next hops and domains: what is taken must be printable, and be the same when
 * what was printed is read again. */
#include <stdlib.h>

#include "resolve/destination.h"

static void check(const struct destination *d, const struct destination_defaults *defaults)
{
    struct destination again[DESTINATIONS_MAX];
    struct buf text = BUF_INIT(1024), key = BUF_INIT(1024), other = BUF_INIT(1024);
    struct err e;
    destination_print(d, defaults->port, &text);
    destination_key(d, &key);
    /* a path may hold the separators of a list */
    if (d->kind != DESTINATION_UNIX) {
        if (destination_parse(buf_slice(&text), defaults, again, &e) != 1)
            abort();
        again[0].configured = d->configured;
        destination_key(&again[0], &other);
        if (!slice_eq(buf_slice(&key), buf_slice(&other)))
            abort();
    }
    buf_free(&text);
    buf_free(&key);
    buf_free(&other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct destination d[DESTINATIONS_MAX];
    struct err e;
    if (size < 1)
        return 0;
    struct destination_defaults defaults = {.lmtp = data[0] & 1, .no_mx = data[0] & 2, .port = 25};
    struct slice text = slice_make(data + 1, size - 1);
    int n = destination_parse(text, &defaults, d, &e);
    for (int i = 0; i < n; i++)
        check(&d[i], &defaults);
    if (!defaults.no_mx && destination_of_domain(text, &defaults, &d[0]) == 0)
        check(&d[0], &defaults);
    return 0;
}

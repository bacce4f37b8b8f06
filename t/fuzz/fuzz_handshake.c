/* libraries: keyd_parts postern_core */
/* What smtpd asks keyd to sign: no read past the end, and whatever is taken has one
 * of the two forms. Input: the scheme in two bytes, the content. */
#include "core/mem.h"
#include "keyd/handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    uint16_t scheme = (uint16_t)(data[0] << 8 | data[1]);
    char *copy = xmalloc(size - 1); /* so that reading further is noticed */
    memcpy(copy, data + 2, size - 2);
    struct handshake_scheme s;
    if (handshake_is_servers(scheme, slice_make(copy, size - 2))) {
        bool tls13 = copy[0] == ' ' && memmem(copy, size - 2, "server", 6);
        if (!handshake_scheme(scheme, &s) || (!tls13 && copy[64] != 3))
            panic("taken");
    }
    free(copy);
    return 0;
}

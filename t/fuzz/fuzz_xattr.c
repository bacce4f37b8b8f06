/* libraries: postern_smtp */
/* Attributes of XCLIENT and XFORWARD: it ends, and values are printable. */
#include "core/mem.h"
#include "smtp/xattr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_make(data, size);
    struct xattr a;
    struct proxy_endpoint endpoint;
    uint16_t port;
    bool esmtp;
    size_t left = size;
    while (xattr_next(&in, &a) == 1) {
        if (in.len >= left)
            panic("no progress");
        left = in.len;
        if (a.name >= XATTR_COUNT || !xattr_text(a.name) || a.len > XATTR_VALUE_MAX ||
            strlen(a.value) != a.len || (!a.known && a.len))
            panic("a value that is none");
        for (size_t i = 0; i < a.len; i++)
            if (a.value[i] < ' ' || a.value[i] > '~')
                panic("byte %d in a value", a.value[i]);
        xattr_address(&a, &endpoint);
        xattr_port(&a, &port);
        xattr_protocol(&a, &esmtp);
    }
    return 0;
}

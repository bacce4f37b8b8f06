/* libraries: postern_smtp */
/* What decodes comes out again when it is encoded, and PLAIN's parts lie in its
 * message, one behind the other. */
#include "core/mem.h"
#include "smtp/sasl.h"

static void check_plain(struct slice message)
{
    struct sasl_plain p;
    if (sasl_plain_parse(message, &p) < 0)
        return;
    if (p.authzid.ptr != message.ptr || p.user.ptr != p.authzid.ptr + p.authzid.len + 1 ||
        p.password.ptr != p.user.ptr + p.user.len + 1 ||
        p.password.ptr + p.password.len != message.ptr + message.len)
        panic("parts that are not the message's");
    if (slice_chr(p.user, '\0') < p.user.len || slice_chr(p.password, '\0') < p.password.len)
        panic("a NUL in a part");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char out[65536];
    struct slice text = slice_make(data, size);
    struct buf again = BUF_INIT(2 * sizeof out);
    (void)sasl_is_mechanism(text);
    check_plain(text);
    long len = base64_decode(text, out, sizeof out);
    if (len >= 0) {
        if (base64_encode(slice_make(out, (size_t)len), &again) < 0 ||
            !slice_eq(buf_slice(&again), text))
            panic("%zu bytes of base64 do not come out again", size);
        check_plain(slice_make(out, (size_t)len));
    }
    buf_free(&again);
    return 0;
}

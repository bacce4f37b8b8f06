/* libraries: postern_core postern_smtp */
/* Paths: what is accepted is within the limits, holds no control bytes, and
 * parses to itself. Input: a byte of flags, the path and what follows. */
#include "core/mem.h"
#include "smtp/address.h"

static void check(const struct smtp_path *p, unsigned flags)
{
    struct slice address = path_address(p), domain = path_domain(p);
    struct smtp_path again;
    if (path_local(p).len > ADDRESS_LOCAL_MAX || domain.len > ADDRESS_DOMAIN_MAX)
        panic("limits");
    for (size_t i = 0; i < address.len; i++)
        if ((unsigned char)address.ptr[i] < 0x20 || address.ptr[i] == 0x7f)
            panic("control byte");
    if (p->utf8 != has_8bit(address) || (p->utf8 && !(flags & PATH_UTF8)))
        panic("utf8");
    if (address_parse(address, flags, &again) != PATH_OK ||
        !slice_eq(path_address(&again), address) || again.local_len != p->local_len)
        panic("not canonical");
    if (!slice_eq(address_domain(address), domain))
        panic("another domain");
    if (domain.len && !p->literal && !domain_valid(domain, p->utf8))
        panic("domain");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    unsigned flags = data[0] & 7;
    struct slice in = slice_make(data + 1, size - 1), rest = in;
    struct smtp_path p;
    enum path_error error = path_parse(&rest, flags, &p);
    if (error == PATH_OK) {
        if (rest.len > in.len || (rest.len && rest.ptr[0] != ' '))
            panic("rest");
        check(&p, flags);
    } else if (p.len || path_refusal(error, flags).code < 500 || rest.len != in.len) {
        panic("an error that left something");
    }
    address_domain(in);
    address_local(in);
    return 0;
}

/* libraries: postern_mail postern_smtp */
/* Lists of addresses in a header: whatever the input, the walk ends, nothing of an
 * address that comes out is longer than the input, and one that the SMTP parser takes
 * comes out of its own text again. */
#include "core/mem.h"
#include "mail/address_list.h"
#include "smtp/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = slice_make(data, size);
    struct buf address = BUF_INIT(4096), again = BUF_INIT(4096);
    struct smtp_path path;
    size_t before = rest.len + 1;
    while (rest.len < before && address_list_next(&rest, &address) == 1) {
        before = rest.len + 1;
        if (address.len == 0 || address.len > size)
            panic("an address of %zu bytes", address.len);
        if (address_parse(buf_slice(&address), PATH_RECIPIENT | PATH_UTF8, &path) != PATH_OK)
            continue;
        struct slice text = path_address(&path);
        if (address_list_next(&text, &again) != 1 ||
            !slice_eq(buf_slice(&again), path_address(&path)))
            panic("not the same again");
    }
    buf_free(&address);
    buf_free(&again);
    return 0;
}

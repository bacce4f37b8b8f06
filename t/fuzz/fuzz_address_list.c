/* libraries: postern_mail postern_smtp */
/* Lists of addresses in a header: whatever the input, the walk ends, nothing of an
 * address that comes out is longer than the input, and one that the SMTP parser takes
 * comes out of its own text again. */
#include "core/mem.h"
#include "mail/address_list.h"
#include "smtp/address.h"

/* With the names' addresses there are all of the others, in the same order, as far as both
 * can be read. */
static void check_named(struct slice list)
{
    struct slice rest = list;
    struct buf plain = BUF_INIT(4096), named = BUF_INIT(4096);
    while (address_list_next(&rest, &plain) == 1) {
        int rc;
        while ((rc = address_list_named(&list, &named)) == 1 &&
               (list.ptr != rest.ptr || !slice_eq(buf_slice(&plain), buf_slice(&named))))
            if (list.len < rest.len)
                panic("an address is left out");
        if (rc != 1)
            panic("what can be read cannot be read with its names");
    }
    buf_free(&plain);
    buf_free(&named);
}

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
    check_named(slice_make(data, size));
    buf_free(&address);
    buf_free(&again);
    return 0;
}

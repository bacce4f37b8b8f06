#include "core/csv.h"

int csv_add(struct buf *out, struct slice text, bool last)
{
    int rc = buf_addc(out, '"');
    if (text.len && slice_chr(SLICE("=+-@"), text.ptr[0]) < 4)
        rc |= buf_addc(out, '\'');
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '"')
            rc |= buf_addc(out, '"');
        rc |= buf_addc(out, (unsigned char)c < ' ' || c == 127 ? ' ' : c);
    }
    return rc | buf_addstr(out, last ? "\"\r\n" : "\",");
}

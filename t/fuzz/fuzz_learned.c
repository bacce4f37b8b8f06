/* libraries: postern_learned postern_core */
/* What was learned, as a file or an operator gives it: it is taken or refused, and what
 * was taken is written so that the same is read again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "learned/learned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct learned l, again;
    struct err e;
    struct buf first = BUF_INIT(64 * 1024), second = BUF_INIT(64 * 1024);
    if (learned_parse(slice_make((const char *)data, size), &l, &e) < 0)
        return 0;
    if (l.window > LEARNED_COUNT_MAX || l.rate < 0 || strlen(l.key) > LEARNED_NAME_MAX)
        abort();
    learned_encode(&l, &first);
    if (first.len <= LEARNED_LINE_MAX) {
        if (learned_parse(buf_slice(&first), &again, &e) < 0)
            abort();
        learned_encode(&again, &second);
        if (second.len > first.len + 64)
            abort();
        learned_free(&again);
    }
    learned_free(&l);
    buf_free(&first);
    buf_free(&second);
    return 0;
}

/* libraries: postern_ipc */
/* Any packet decodes or is refused; what decodes encodes to the same bytes. */
#include <stdlib.h>

#include "core/mem.h"
#include "ipc/ipc.h"

static void check(const struct ipc_frame *f)
{
    static struct buf again = {NULL, 0, 0, 2 * IPC_FRAME_MAX}, text = {NULL, 0, 0, 1 << 20};
    buf_clear(&again);
    buf_clear(&text);
    ipc_print(&text, f);
    switch (f->number) {
#define FIELD(type, name)
#define IPC_RECORD(name, fields)
#define IPC_MESSAGE(name, number, fd, fields)                                                      \
    case number: {                                                                                 \
        struct name m;                                                                             \
        if (name##_decode(f->body, &m) < 0)                                                        \
            return;                                                                                \
        name##_encode(&again, &m);                                                                 \
        break;                                                                                     \
    }
#include "ipc/messages.def"
#undef FIELD
#undef IPC_RECORD
#undef IPC_MESSAGE
    default:
        return;
    }
    if (!slice_eq(slice_from(buf_slice(&again), IPC_HEADER), f->body))
        abort();
}

static void walk_lists(struct slice body)
{
    struct ipc_cursor c;
#define FIELD(type, name)
#define IPC_MESSAGE(name, number, fd, fields)
#define IPC_RECORD(name, fields)                                                                   \
    {                                                                                              \
        struct name r;                                                                             \
        c = ipc_list_cursor(body);                                                                 \
        while (name##_next(&c, &r))                                                                \
            ;                                                                                      \
    }
#include "ipc/messages.def"
#undef FIELD
#undef IPC_RECORD
#undef IPC_MESSAGE
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice packet = slice_make(data, size);
    struct ipc_frame f;
    while (ipc_frame_next(&packet, &f) == 1) {
        check(&f);
        walk_lists(f.body);
    }
    return 0;
}

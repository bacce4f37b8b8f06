#include "ipc/ipc.h"

#include "core/mem.h"

/* ---- writing ------------------------------------------------------------- */

static void put_number(struct buf *b, uint64_t n, int size)
{
    char raw[8];
    for (int i = 0; i < size; i++)
        raw[i] = (char)(n >> (8 * i));
    if (buf_add(b, raw, (size_t)size) < 0)
        panic("frame buffer limit");
}

static void put_u8(struct buf *b, uint8_t n)
{
    put_number(b, n, 1);
}
static void put_u16(struct buf *b, uint16_t n)
{
    put_number(b, n, 2);
}
static void put_u32(struct buf *b, uint32_t n)
{
    put_number(b, n, 4);
}
static void put_u64(struct buf *b, uint64_t n)
{
    put_number(b, n, 8);
}
static void put_i64(struct buf *b, int64_t n)
{
    put_number(b, (uint64_t)n, 8);
}
static void put_bytes(struct buf *b, struct slice s)
{
    put_u32(b, (uint32_t)s.len);
    if (buf_adds(b, s) < 0)
        panic("frame buffer limit");
}
#define put_list put_bytes

static size_t begin(struct buf *b, uint16_t number)
{
    size_t at = b->len;
    put_u32(b, 0);
    put_u16(b, number);
    put_u16(b, 0);
    return at;
}

static void finish(struct buf *b, size_t at)
{
    size_t len = b->len - at - IPC_HEADER;
    if (len + IPC_HEADER > IPC_FRAME_MAX)
        panic("frame of %zu bytes", len);
    for (int i = 0; i < 4; i++)
        b->data[at + (size_t)i] = (char)(len >> (8 * i));
}

/* ---- reading ------------------------------------------------------------- */

static uint64_t get_number(struct ipc_cursor *c, size_t size)
{
    uint64_t n = 0;
    if (c->failed || c->rest.len < size) {
        c->failed = true;
        return 0;
    }
    for (size_t i = 0; i < size; i++)
        n |= (uint64_t)(unsigned char)c->rest.ptr[i] << (8 * i);
    c->rest = slice_from(c->rest, size);
    return n;
}

static void get_u8(struct ipc_cursor *c, uint8_t *n)
{
    *n = (uint8_t)get_number(c, 1);
}
static void get_u16(struct ipc_cursor *c, uint16_t *n)
{
    *n = (uint16_t)get_number(c, 2);
}
static void get_u32(struct ipc_cursor *c, uint32_t *n)
{
    *n = (uint32_t)get_number(c, 4);
}
static void get_u64(struct ipc_cursor *c, uint64_t *n)
{
    *n = get_number(c, 8);
}
static void get_i64(struct ipc_cursor *c, int64_t *n)
{
    *n = (int64_t)get_number(c, 8);
}
static void get_bytes(struct ipc_cursor *c, struct slice *s)
{
    uint64_t len = get_number(c, 4);
    if (c->failed || len > c->rest.len) {
        c->failed = true;
        *s = (struct slice){NULL, 0};
        return;
    }
    *s = slice_first(c->rest, len);
    c->rest = slice_from(c->rest, len);
}
#define get_list get_bytes

/* ---- from the table ------------------------------------------------------ */

#define IPC_RECORD(name, fields)                                                                   \
    void name##_add(struct buf *b, const struct name *m)                                           \
    {                                                                                              \
        fields                                                                                     \
    }
#define IPC_MESSAGE(name, number, fd, fields)                                                      \
    void name##_encode(struct buf *b, const struct name *m)                                        \
    {                                                                                              \
        size_t at = begin(b, number);                                                              \
        fields finish(b, at);                                                                      \
    }
#define FIELD(type, name) put_##type(b, m->name);
#include "ipc/messages.def"
#undef FIELD
#undef IPC_RECORD
#undef IPC_MESSAGE

#define IPC_RECORD(name, fields)                                                                   \
    bool name##_next(struct ipc_cursor *c, struct name *m)                                         \
    {                                                                                              \
        if (c->failed || c->rest.len == 0)                                                         \
            return false;                                                                          \
        fields return !c->failed;                                                                  \
    }
#define IPC_MESSAGE(name, number, fd, fields)                                                      \
    int name##_decode(struct slice body, struct name *m)                                           \
    {                                                                                              \
        struct ipc_cursor cursor = {body, false}, *c = &cursor;                                    \
        fields return c->failed || c->rest.len ? -1 : 0;                                           \
    }
#define FIELD(type, name) get_##type(c, &m->name);
#include "ipc/messages.def"
#undef FIELD
#undef IPC_RECORD
#undef IPC_MESSAGE

/* ---- frames -------------------------------------------------------------- */

int ipc_frame_next(struct slice *packet, struct ipc_frame *f)
{
    struct ipc_cursor c = {*packet, false};
    uint32_t len;
    uint16_t flags;
    if (packet->len == 0)
        return 0;
    get_u32(&c, &len);
    get_u16(&c, &f->number);
    get_u16(&c, &flags);
    if (c.failed || len > IPC_FRAME_MAX - IPC_HEADER || len > c.rest.len ||
        (flags & ~IPC_FLAG_FD) != 0)
        return -1;
    f->has_fd = flags & IPC_FLAG_FD;
    f->body = slice_first(c.rest, len);
    *packet = slice_from(c.rest, len);
    return 1;
}

static const struct {
    const char *name;
    enum ipc_fd_rule rule;
} table[256] = {
#define FIELD(type, name)
#define IPC_RECORD(name, fields)
#define IPC_MESSAGE(name, number, fd, fields) [number] = {#name, fd},
#include "ipc/messages.def"
#undef FIELD
#undef IPC_RECORD
#undef IPC_MESSAGE
};

bool ipc_known(uint16_t number, enum ipc_fd_rule *rule)
{
    if (number >= 256 || !table[number].name)
        return false;
    *rule = table[number].rule;
    return true;
}

const char *ipc_name(uint16_t number)
{
    return number < 256 && table[number].name ? table[number].name : "unknown";
}

/* ---- printing ------------------------------------------------------------ */

enum { PRINT_BYTES_MAX = 64 };

static void show_number(struct buf *b, const char *name, uint64_t n)
{
    buf_printf(b, " %s=%llu", name, (unsigned long long)n);
}
#define show_u8 show_number
#define show_u16 show_number
#define show_u32 show_number
#define show_u64 show_number
static void show_i64(struct buf *b, const char *name, int64_t n)
{
    buf_printf(b, " %s=%lld", name, (long long)n);
}
static void show_bytes(struct buf *b, const char *name, struct slice s)
{
    buf_printf(b, " %s=\"", name);
    buf_add_escaped(b, s, PRINT_BYTES_MAX);
    buf_addc(b, '"');
}
static void show_list(struct buf *b, const char *name, struct slice s)
{
    buf_printf(b, " %s=[%zu bytes]", name, s.len);
}

void ipc_print(struct buf *b, const struct ipc_frame *f)
{
    buf_addstr(b, ipc_name(f->number));
    switch (f->number) {
#define FIELD(type, name) show_##type(b, #name, m.name);
#define IPC_RECORD(name, fields)
#define IPC_MESSAGE(name, number, fd, fields)                                                      \
    case number: {                                                                                 \
        struct name m;                                                                             \
        if (name##_decode(f->body, &m) == 0) {                                                     \
            fields return;                                                                         \
        }                                                                                          \
        break;                                                                                     \
    }
#include "ipc/messages.def"
#undef FIELD
#undef IPC_RECORD
#undef IPC_MESSAGE
    default:
        break;
    }
    buf_printf(b, " malformed, %zu bytes", f->body.len);
}

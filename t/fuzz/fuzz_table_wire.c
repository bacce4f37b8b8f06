/* libraries: postern_tables */
/* Replies of tables that are servers: any split gives the same reply; a value
 * decodes; what is asked can be read back. The first byte chooses the protocol. */
#include "core/mem.h"
#include "tables/wire.h"

typedef enum table_reply_status reader(struct slice in, struct table_reply *out);

static void check_splits(reader *read, struct slice in)
{
    struct table_reply whole, part;
    enum table_reply_status status = read(in, &whole);
    if (status == TABLE_REPLY_MORE && in.len >= TABLE_REPLY_MAX)
        panic("it goes on without end");
    if (status == TABLE_REPLY_DONE && (whole.used == 0 || whole.used > in.len))
        panic("%zu of %zu bytes used", whole.used, in.len);
    for (size_t n = 0; n < in.len && n < 300; n++) {
        enum table_reply_status s = read(slice_first(in, n), &part);
        if (s == TABLE_REPLY_DONE &&
            (status != TABLE_REPLY_DONE || part.used != whole.used || part.result != whole.result))
            panic("the split changes the reply");
        if (s == TABLE_REPLY_BAD && status != TABLE_REPLY_BAD)
            panic("refused too early");
    }
}

static void check_value(struct slice in)
{
    struct table_reply r;
    struct buf value = BUF_INIT(TCP_TABLE_LINE_MAX);
    if (tcp_table_reply(in, &r) == TABLE_REPLY_DONE && r.result == TABLE_FOUND &&
        tcp_table_decode(r.text, &value) < 0)
        panic("a value grows when it is decoded");
    buf_free(&value);
}

/* A key comes back from the request, and the request is one line or netstring. */
static void check_request(struct slice key)
{
    struct buf request = BUF_INIT(TABLE_REPLY_MAX), again = BUF_INIT(TCP_TABLE_LINE_MAX);
    if (tcp_table_request(key, &request) == 0) {
        struct slice line = buf_slice(&request);
        if (slice_chr(line, '\n') != line.len - 1 || line.len > TCP_TABLE_LINE_MAX)
            panic("a request is not one line");
        line = slice_first(slice_from(line, 4), line.len - 5);
        if (tcp_table_decode(line, &again) < 0 || !slice_eq(buf_slice(&again), key))
            panic("a key changes on its way");
    }
    buf_clear(&request);
    if (socketmap_request(SLICE("n"), key, &request) == 0 && request.data[request.len - 1] != ',')
        panic("a request is no netstring");
    buf_free(&request);
    buf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct slice in = slice_make(data + 1, size - 1);
    check_splits(data[0] & 1 ? socketmap_reply : tcp_table_reply, in);
    check_value(in);
    check_request(in);
    return 0;
}

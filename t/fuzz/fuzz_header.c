/* libraries: postern_core postern_mail */
/* Headers: the scanner does not depend on the split, and agrees with the walk.
 * Input: a byte that seeds the split, the content. */
#include "core/mem.h"
#include "mail/header.h"

static struct header_scan run(struct slice in, size_t step, const struct header_limits *limits)
{
    struct header_scan h;
    header_scan_init(&h, limits);
    for (; in.len; in = slice_from(in, step))
        header_scan_feed(&h, slice_first(in, step));
    header_scan_end(&h);
    if (!h.done)
        panic("not done");
    return h;
}

static void check_walk(struct slice in, const struct header_scan *h)
{
    struct slice rest = in;
    struct header_field f;
    uint32_t received = 0, from = 0;
    struct buf out = BUF_INIT(1 << 20);
    if (header_length(in) != h->size)
        panic("the header ends at %zu and at %zu", header_length(in), (size_t)h->size);
    while (header_next(&rest, &f)) {
        received += slice_caseeq(f.name, SLICE("received"));
        from += slice_caseeq(f.name, SLICE("from"));
        buf_clear(&out);
        header_unfold(f.body, &out);
        if (slice_chr(buf_slice(&out), '\n') < out.len)
            panic("a line end in an unfolded body");
    }
    if (received != h->count[HEADER_RECEIVED] || from != h->count[HEADER_FROM])
        panic("counts differ");
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct header_limits wide = {UINT64_MAX / 2, UINT32_MAX, UINT32_MAX};
    static const struct header_limits narrow = {.size = 200, .lines = 10, .hops = 3};
    if (size < 1)
        return 0;
    struct slice in = slice_make(data + 1, size - 1);
    const struct header_limits *limits = data[0] & 1 ? &wide : &narrow;
    struct header_scan a = run(in, SIZE_MAX, limits);
    struct header_scan b = run(in, 1u + data[0] / 2 % 20, limits);
    if (a.problem == HEADER_OK || b.problem == HEADER_OK) {
        if (a.problem != b.problem || a.size != b.size || a.no_blank_line != b.no_blank_line ||
            memcmp(a.count, b.count, sizeof a.count) != 0 || a.message_id_len != b.message_id_len)
            panic("the split changes the result");
    }
    if (a.problem == HEADER_OK)
        check_walk(in, &a);
    return 0;
}

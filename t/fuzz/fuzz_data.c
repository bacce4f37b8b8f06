/* libraries: postern_core postern_smtp */
/*
 * Content: the end is where a plain search finds CRLF.CRLF; the result does not
 * depend on the split; what comes out survives stuffing and being read again.
 * Input: a byte of options, a byte that seeds the split, the stream.
 */
#include "core/mem.h"
#include "smtp/data.h"
#include "smtp/stuff.h"

enum { LINE_LIMIT = 200, SIZE_LIMIT = 3000, OUT_MAX = 1 << 20 };

struct result {
    struct data_machine m;
    struct buf content;
    size_t consumed;
    enum data_status status;
};

static struct result run(struct slice in, enum data_framing framing, enum data_mode mode,
                         unsigned seed)
{
    struct result r = {.content = BUF_INIT(OUT_MAX), .status = DATA_MORE};
    struct buf out = BUF_INIT(seed ? DATA_ROOM_MIN + seed : OUT_MAX);
    data_init(&r.m, framing, mode, SIZE_LIMIT, LINE_LIMIT);
    while (in.len && r.status != DATA_END) {
        size_t taken, step = seed ? 1 + seed % 13 : in.len;
        seed = seed ? seed * 5 % 251 + 1 : 0;
        r.status = data_feed(&r.m, slice_first(in, step), &taken, &out);
        if (taken == 0 && r.status != DATA_END)
            panic("no progress");
        if (r.m.discard)
            buf_clear(&out);
        buf_adds(&r.content, buf_slice(&out));
        buf_clear(&out);
        r.consumed += taken;
        in = slice_from(in, taken);
    }
    if (framing == DATA_BDAT)
        data_finish(&r.m, &r.content);
    buf_free(&out);
    return r;
}

static void check_end(struct slice in, const struct result *r)
{
    struct buf with = BUF_INIT(OUT_MAX);
    buf_addstr(&with, "\r\n");
    buf_adds(&with, in);
    const char *end = memmem(with.data, with.len, "\r\n.\r\n", 5);
    size_t expected = end ? (size_t)(end - with.data) + 3 : in.len;
    if (r->consumed != expected || (r->status == DATA_END) != (end != NULL))
        panic("ends at %zu, not at %zu", r->consumed, expected);
    buf_free(&with);
}

/* What the client sent is all of the content but its own line ends, each of a byte at least;
 * a last one may be ours. */
static void check_sent(const struct data_machine *m)
{
    if (m->sent > m->size || m->size - m->sent > m->size / 2 + 2)
        panic("%llu of %llu bytes are the client's", (unsigned long long)m->sent,
              (unsigned long long)m->size);
    if (!(m->flags & (DATA_BARE_LF | DATA_BARE_CR)) && m->size - m->sent > 2)
        panic("more than a line end is ours");
    if ((m->sent > SIZE_LIMIT) != ((m->flags & DATA_TOO_BIG) != 0))
        panic("the limit is not on what the client sent");
}

/* A machine that rejects everything unusual must get the same content back. */
static void check_again(struct slice content)
{
    struct stuffer s;
    struct buf wire = BUF_INIT(OUT_MAX);
    struct slice rest = content;
    stuff_init(&s);
    stuff_copy(&s, &rest, &wire);
    buf_adds(&wire, stuff_end(&s));
    struct result again = run(buf_slice(&wire), DATA_DOTS, DATA_REJECT, 0);
    if (again.status != DATA_END || again.consumed != wire.len || data_refusal(&again.m) ||
        !slice_eq(buf_slice(&again.content), content))
        panic("content changes when it is sent on");
    buf_free(&wire);
    buf_free(&again.content);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    enum data_framing framing = data[0] & 1 ? DATA_BDAT : DATA_DOTS;
    enum data_mode mode = data[0] & 2 ? DATA_REJECT : DATA_NORMALIZE;
    struct slice in = slice_make(data + 2, size - 2);
    struct result whole = run(in, framing, mode, 0);
    struct result split = run(in, framing, mode, 1u + data[1]);
    if (whole.consumed != split.consumed || whole.status != split.status ||
        whole.m.flags != split.m.flags || whole.m.size != split.m.size ||
        whole.m.sent != split.m.sent || whole.m.longest != split.m.longest ||
        whole.m.discard != split.m.discard)
        panic("the split changes the result");
    if (!whole.m.discard && !slice_eq(buf_slice(&whole.content), buf_slice(&split.content)))
        panic("the split changes the content");
    if (framing == DATA_DOTS)
        check_end(in, &whole);
    else if (whole.m.sent != in.len)
        panic("of %zu bytes %llu count", in.len, (unsigned long long)whole.m.sent);
    check_sent(&whole.m);
    bool complete = whole.status == DATA_END || framing == DATA_BDAT;
    if (!whole.m.discard && complete) {
        if (whole.content.len != whole.m.size)
            panic("size is wrong");
        check_again(buf_slice(&whole.content));
    }
    buf_free(&whole.content);
    buf_free(&split.content);
    return 0;
}

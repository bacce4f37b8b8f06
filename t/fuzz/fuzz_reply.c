/* libraries: postern_core postern_smtp */
/* Replies and EHLO: bounded, and the same however the stream is split. Input: a
 * byte of options and split, the stream. */
#include "core/mem.h"
#include "smtp/ehlo.h"

static enum reply_status run(struct smtp_reply *r, struct slice in, size_t step, size_t *consumed)
{
    enum reply_status status = REPLY_MORE;
    *consumed = 0;
    while (in.len && status == REPLY_MORE) {
        size_t taken;
        status = reply_feed(r, slice_first(in, step), &taken);
        if (taken == 0 && status == REPLY_MORE)
            panic("no progress");
        *consumed += taken;
        in = slice_from(in, taken);
    }
    return status;
}

static void check_done(const struct smtp_reply *r)
{
    struct buf text = BUF_INIT(100);
    struct slice rest = buf_slice(&r->text), line;
    struct ehlo e;
    unsigned lines = 0;
    if (r->code < 200 || r->code > 599 || r->lines < 1 || r->lines > REPLY_LINES_MAX)
        panic("code %d, %d lines", r->code, r->lines);
    while (reply_line(&rest, &line))
        lines++;
    if (lines != r->lines)
        panic("%u lines, not %u", lines, r->lines);
    if (r->enhanced[0] && r->enhanced[0] != '0' + r->code / 100)
        panic("enhanced code");
    reply_text(r, &text, 100);
    ehlo_parse(r, &e);
    buf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct slice in = slice_make(data + 1, size - 1);
    struct smtp_reply whole, split;
    size_t a, b;
    reply_init(&whole);
    reply_init(&split);
    whole.utf8 = split.utf8 = data[0] & 1;
    for (;;) { /* a server's replies one after another */
        enum reply_status status = run(&whole, in, SIZE_MAX, &a);
        if (status != run(&split, in, 1u + data[0] / 2 % 20, &b) || a != b ||
            whole.code != split.code || whole.lines != split.lines ||
            !slice_eq(buf_slice(&whole.text), buf_slice(&split.text)) ||
            strcmp(whole.enhanced, split.enhanced) != 0)
            panic("the split changes the reply");
        if (whole.text.len > REPLY_BYTES_MAX)
            panic("too long");
        if (status != REPLY_DONE)
            break;
        check_done(&whole);
        in = slice_from(in, a);
        reply_reset(&whole);
        reply_reset(&split);
    }
    reply_free(&whole);
    reply_free(&split);
    return 0;
}

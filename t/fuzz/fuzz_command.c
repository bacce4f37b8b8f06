/* libraries: postern_core postern_smtp */
/*
 * Command lines: the same lines are found however the stream is split; the
 * parser takes any line. Input: a byte that seeds the split, the stream.
 */
#include "core/buf.h"
#include "core/mem.h"
#include "smtp/command.h"

enum { LIMIT = 40, LOG_MAX = 1 << 20 };

static void parse(struct slice line)
{
    struct smtp_command c;
    uint64_t size;
    bool last;
    if (command_parse(line, &c) < 0)
        return;
    if (c.name.len + c.argument.len > line.len || !command_name(c.verb))
        panic("a command larger than its line");
    struct slice path = c.argument;
    command_keyword(&path, SLICE("FROM:"));
    command_keyword(&path, SLICE("TO:"));
    command_bdat(c.argument, &size, &last);
    if (command_helo_valid(c.argument) && c.argument.len > HELO_MAX)
        panic("a long name is taken");
}

/* Writes what is found; shows the reader at most `window` bytes more each time. */
static void read_lines(struct slice in, size_t window, struct buf *found)
{
    struct line_reader r;
    struct slice line;
    size_t seen = 0, consumed;
    line_init(&r, LIMIT);
    while (in.len) {
        seen = seen + window < in.len ? seen + window : in.len;
        enum line_status status = line_next(&r, slice_first(in, seen), &consumed, &line);
        if (status == LINE_READY) {
            buf_addc(found, 'L');
            buf_adds(found, line);
            buf_addc(found, '\n');
            parse(line);
        } else if (status == LINE_TOO_LONG) {
            buf_addc(found, 'T');
        } else if (status == LINE_MORE && consumed == 0 && seen == in.len) {
            return;
        } else if (status == LINE_MORE && consumed == 0 && seen >= LIMIT) {
            panic("stuck");
        }
        in = slice_from(in, consumed);
        seen -= consumed;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct slice in = slice_make(data + 1, size - 1);
    struct buf whole = BUF_INIT(LOG_MAX), split = BUF_INIT(LOG_MAX);
    read_lines(in, in.len, &whole);
    read_lines(in, 1u + data[0] % 50, &split);
    if (!slice_eq(buf_slice(&whole), buf_slice(&split)))
        panic("the split changes the lines");
    buf_free(&whole);
    buf_free(&split);
    return 0;
}

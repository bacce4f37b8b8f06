/* libraries: postern_smtp */
/* Lines of a Dovecot server: what is read lies within the line, and what we write is
 * one line each. */
#include "core/mem.h"
#include "smtp/dovecot_auth.h"

static void inside(struct slice part, struct slice whole)
{
    if (part.len && (part.ptr < whole.ptr || part.ptr + part.len > whole.ptr + whole.len))
        panic("a part that is not the line's");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = slice_make(data, size);
    struct buf out = BUF_INIT(1 << 20);
    while (rest.len) {
        struct slice line = slice_cut(&rest, '\n');
        struct dovecot_line l;
        if (dovecot_parse(line, &l) < 0)
            continue;
        inside(l.name, line);
        inside(l.data, line);
        if (l.user_len > DOVECOT_TEXT_MAX || l.reason_len > DOVECOT_TEXT_MAX)
            panic("a text that is too long");
        if (sasl_is_mechanism(l.name)) {
            struct dovecot_request r = {.number = l.number, .mechanism = l.name};
            buf_clear(&out);
            if (dovecot_request(&r, &out) < 0 || slice_chr(buf_slice(&out), '\n') != out.len - 1)
                panic("a request of more than a line");
        }
    }
    buf_free(&out);
    return 0;
}

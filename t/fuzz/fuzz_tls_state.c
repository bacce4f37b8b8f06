/* libraries: resolve_parts */
/* What resolve wrote down about TLS, read back as if a stranger had written it:
 * what is taken comes out in a form that is taken again, and is the same. */
#include "core/mem.h"
#include "resolve/sts_private.h"
#include "resolve/tlsrpt.h"

static void policies(struct slice in, struct buf *out)
{
    struct sts all = {.changed = false};
    sts_init(&all);
    sts_read(&all, in);
    if (all.domains.count > STS_DOMAINS_MAX)
        panic("%zu domains", all.domains.count);
    sts_write(&all, out);
    sts_free_domains(&all);
}

static void counters(struct slice in, struct buf *out)
{
    struct tlsrpt all;
    tlsrpt_init(&all);
    tlsrpt_read(&all, in);
    tlsrpt_write(&all, out);
    tlsrpt_free(&all);
}

static size_t lines(struct slice s)
{
    size_t n = 0;
    while (s.len) {
        (void)slice_cut(&s, '\n');
        n++;
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf first = BUF_INIT(STATE_MAX), second = BUF_INIT(STATE_MAX);
    counters(slice_make(data, size), &first);
    counters(buf_slice(&first), &second);
    if (!slice_eq(buf_slice(&first), buf_slice(&second)))
        panic("counters change when they are read back");
    buf_clear(&first);
    buf_clear(&second);
    policies(slice_make(data, size), &first);
    policies(buf_slice(&first), &second);
    if (lines(buf_slice(&first)) < lines(buf_slice(&second)))
        panic("policies grow when they are read back");
    buf_free(&first);
    buf_free(&second);
    return 0;
}

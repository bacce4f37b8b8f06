/* Several files in one text, for a process that may not open any: for each a line
 * "LENGTH NAME", then so many bytes. */
#include "rules/bundle.h"

#include <stdlib.h>

#include "core/mem.h"

int rules_bundle_add(struct buf *out, const char *name, struct slice text)
{
    if (strchr(name, '\n'))
        return -1;
    return buf_printf(out, "%zu %s\n", text.len, name) == 0 ? buf_adds(out, text) : -1;
}

/* Takes the next file off the front: 1; 0: at the end; -1: malformed. */
static int next_file(struct slice *rest, struct slice *name, struct slice *text)
{
    uint64_t len;
    if (rest->len == 0)
        return 0;
    if (slice_chr(*rest, '\n') == rest->len)
        return -1;
    struct slice line = slice_cut(rest, '\n');
    if (slice_u64(slice_cut(&line, ' '), &len) < 0 || line.len == 0 || len > rest->len)
        return -1;
    *name = line;
    *text = slice_first(*rest, len);
    *rest = slice_from(*rest, len);
    return 1;
}

static int read_bundled(const char *wanted, struct buf *out, void *arg, struct err *e)
{
    struct slice rest = *(const struct slice *)arg, name, text;
    while (next_file(&rest, &name, &text) == 1)
        if (slice_eq(name, slice_str(wanted)))
            return buf_adds(out, text) < 0 ? err_set(e, "%s: too long", wanted) : 0;
    return err_set(e, "%s: not among the files that were handed over", wanted);
}

struct rules *rules_bundle_load(struct slice bundle, struct err *e)
{
    struct slice rest = bundle, name, text;
    if (next_file(&rest, &name, &text) != 1) {
        err_set(e, "malformed bundle of rules");
        return NULL;
    }
    char *first = slice_dup(name);
    struct rules *r = rules_load(first, read_bundled, &bundle, e);
    free(first);
    return r;
}

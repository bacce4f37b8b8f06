/* libraries: postern_conf postern_core */
/* Changes of a main.cf's text: what was set is set, once; what was removed is gone; other
 * parameters are as they were; and doing it again changes nothing. The input is a list of
 * changes, a line each ("=name=value", "-name", "#name"), an empty line, and the text. */
#include <stdlib.h>

#include "conf/cf_edit.h"
#include "conf/cf_lines.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CHANGES_MAX = 8, TEXT_MAX = 1 << 20 };

static size_t read_changes(struct slice *in, struct cf_change *changes)
{
    size_t count = 0;
    struct err e;
    while (in->len) {
        struct slice line = slice_first(*in, slice_chr(*in, '\n'));
        *in = slice_from(*in, line.len + 1);
        if (line.len == 0)
            break;
        enum cf_change_kind kind = line.ptr[0] == '='   ? CF_SET
                                   : line.ptr[0] == '-' ? CF_REMOVE
                                                        : CF_COMMENT;
        if (count < CHANGES_MAX &&
            cf_change_parse(&changes[count], kind, slice_from(line, 1), &e) == 0)
            count++;
    }
    return count;
}

static struct slice name_of(struct slice line)
{
    size_t n = 0;
    while (n < line.len && line.ptr[n] != '=' && line.ptr[n] != ' ' && line.ptr[n] != '\t')
        n++;
    return slice_first(line, n);
}

static const struct cf_change *last_of(const struct cf_change *changes, size_t count,
                                       struct slice name)
{
    const struct cf_change *found = NULL;
    for (size_t i = 0; i < count; i++)
        if (slice_eq(changes[i].name, name))
            found = &changes[i];
    return found;
}

/* Lines of the result: none of what was removed, of what was set exactly one. Texts that
 * begin with white space, or have bytes that no main.cf may have, are not read further. */
static void check_lines(struct slice text, const struct cf_change *changes, size_t count)
{
    unsigned seen[CHANGES_MAX] = {0};
    struct cf_reader r;
    struct slice line;
    struct err e;
    int more;
    cf_open(&r, "main.cf", text);
    while ((more = cf_next(&r, &line, &e)) > 0) {
        const struct cf_change *c = last_of(changes, count, name_of(line));
        if (c && c->kind != CF_SET)
            abort();
        if (c && ++seen[c - changes] > 1)
            abort();
    }
    cf_close(&r);
    for (size_t i = 0; more == 0 && i < count; i++)
        if (changes[i].kind == CF_SET && last_of(changes, count, changes[i].name) == &changes[i] &&
            seen[i] != 1)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = slice_make(data, size);
    struct cf_change changes[CHANGES_MAX];
    struct err e;
    size_t count = read_changes(&text, changes);
    struct buf once = BUF_INIT(TEXT_MAX), twice = BUF_INIT(TEXT_MAX);
    if (cf_edit(text, changes, count, &once, &e) == 0) {
        check_lines(buf_slice(&once), changes, count);
        if (cf_edit(buf_slice(&once), changes, count, &twice, &e) < 0 ||
            !slice_eq(buf_slice(&once), buf_slice(&twice)))
            abort();
    }
    buf_free(&once);
    buf_free(&twice);
    return 0;
}

/* texthash: and inline:, both a hash in memory. */
#include "core/log.h"
#include "core/mem.h"
#include "tables/table_private.h"

struct entry {
    struct slice key, value; /* in the same allocation */
};

static struct slice entry_key(const void *value)
{
    return ((const struct entry *)value)->key;
}

static struct map *entries_of(struct table *t)
{
    if (!t->private_) {
        t->private_ = xcalloc(1, sizeof(struct map));
        map_init(t->private_, entry_key);
    }
    return t->private_;
}

static void close_hash(struct table *t)
{
    if (!t->private_)
        return;
    map_clear(t->private_, free);
    map_free(t->private_);
    xfree(&t->private_);
}

static enum table_result lookup_hash(struct table *t, struct slice key, struct buf *value,
                                     struct err *e)
{
    const struct entry *found = map_get(t->private_, key);
    if (!found)
        return TABLE_NOT_FOUND;
    if (buf_adds(value, found->value) < 0) {
        err_set(e, "%s: value too long", t->spec);
        return TABLE_ERROR;
    }
    return TABLE_FOUND;
}

/* False if the key is there already. */
static bool add(struct table *t, struct slice key, struct slice value)
{
    struct map *m = entries_of(t);
    struct entry *n = xmalloc(sizeof *n + key.len + value.len);
    char *text = (char *)(n + 1);
    memcpy(text, key.ptr, key.len);
    table_fold(text, key.len);
    if (value.len)
        memcpy(text + key.len, value.ptr, value.len);
    n->key = slice_make(text, key.len);
    n->value = slice_make(text + key.len, value.len);
    if (map_get(m, n->key)) {
        free(n);
        return false;
    }
    map_put(m, n);
    table_note_key(t, n->key);
    return true;
}

/* A key ends at white space, unless that is inside double quotes as in
 * "first last"@example.com. */
static struct slice cut_key(struct slice *line)
{
    bool quoted = false;
    size_t n = 0;
    for (; n < line->len; n++) {
        char c = line->ptr[n];
        if (c == '"')
            quoted = !quoted;
        else if (c == '\\' && quoted && n + 1 < line->len)
            n++;
        else if (!quoted && (c == ' ' || c == '\t'))
            break;
    }
    struct slice key = slice_first(*line, n);
    *line = slice_trim(slice_from(*line, n));
    return key;
}

static int open_texthash(struct table *t, int fd, struct err *e)
{
    struct buf content;
    struct table_lines lines;
    entries_of(t);
    int rc = table_read_file(t, fd, &content, e);
    table_lines_init(&lines, t, buf_slice(&content));
    while (rc == 0 && (rc = table_lines_next(&lines, e)) == 1) {
        struct slice value = buf_slice(&lines.text), key = cut_key(&value);
        rc = 0;
        if (value.len == 0)
            rc = err_set(e, "%s:%u: expected \"key value\", there is no value", t->path.ptr,
                         lines.line);
        else if (key.len > TABLE_KEY_MAX)
            rc = err_set(e, "%s:%u: key longer than %d bytes", t->path.ptr, lines.line,
                         TABLE_KEY_MAX);
        else if (!add(t, key, value))
            log_warning("%s:%u: key \"%s\" occurs twice, the first one counts", t->path.ptr,
                        lines.line, log_esc(key));
    }
    table_lines_free(&lines);
    buf_free(&content);
    return rc;
}

/* One "key = value" of an inline table. */
static int add_pair(struct table *t, struct slice pair, struct err *e)
{
    struct slice value = pair, key = slice_trim(slice_cut(&value, '='));
    value = slice_trim(value);
    if (key.len == 0 || value.len == 0 || key.len > TABLE_KEY_MAX)
        return err_set(e, "table %s: expected key=value, not \"%s\"", t->spec, log_esc(pair));
    if (!add(t, key, value))
        return err_set(e, "table %s: key \"%s\" occurs twice", t->spec, log_esc(key));
    return 0;
}

static int open_inline(struct table *t, int fd, struct err *e)
{
    (void)fd;
    struct slice rest = slice_trim(t->path), pair;
    entries_of(t);
    if (rest.len < 2 || rest.ptr[0] != '{' || rest.ptr[rest.len - 1] != '}')
        return err_set(e, "table %s: expected inline:{ key=value, ... }", t->spec);
    rest = slice_make(rest.ptr + 1, rest.len - 2);
    while (table_list_next(&rest, &pair)) {
        if (pair.ptr[0] == '{' && pair.len >= 2 && pair.ptr[pair.len - 1] == '}')
            pair = slice_make(pair.ptr + 1, pair.len - 2);
        if (add_pair(t, pair, e) < 0)
            return -1;
    }
    return 0;
}

const struct table_kind table_texthash = {.name = "texthash",
                                          .needs_file = true,
                                          .open = open_texthash,
                                          .lookup = lookup_hash,
                                          .close = close_hash};
const struct table_kind table_inline = {
    .name = "inline", .open = open_inline, .lookup = lookup_hash, .close = close_hash};

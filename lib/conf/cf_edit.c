#include "conf/cf_edit.h"

#include "conf/cf_lines.h"

/* ---- what is asked for ------------------------------------------------------------ */

static int check_text(struct slice text, struct err *e)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c == '\n' || c == '\r')
            return err_set(e, "-e, -X, or -# accepts no multi-line input");
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return err_set(e, "byte 0x%02x in a value is not text", c);
    }
    if (text.len && text.ptr[0] == '#')
        return err_set(e, "-e, -X, or -# accepts no comment input");
    return 0;
}

static size_t name_length(struct slice text)
{
    size_t n = 0;
    while (n < text.len && text.ptr[n] != ' ' && text.ptr[n] != '\t' && text.ptr[n] != '=')
        n++;
    return n;
}

int cf_change_parse(struct cf_change *out, enum cf_change_kind kind, struct slice text,
                    struct err *e)
{
    text = slice_trim(text);
    if (check_text(text, e) < 0)
        return -1;
    *out = (struct cf_change){.kind = kind, .name = slice_first(text, name_length(text))};
    struct slice rest = slice_trim(slice_from(text, out->name.len));
    if (kind == CF_SET && (rest.len == 0 || rest.ptr[0] != '='))
        return err_set(e, "missing '=' after attribute name: \"%.*s\"", SLICE_ARG(text));
    if (out->name.len == 0)
        return err_set(e, "missing attribute name: \"%.*s\"", SLICE_ARG(text));
    if (kind == CF_SET)
        out->value = slice_trim(slice_from(rest, 1));
    else if (rest.len)
        return err_set(e, "\"%.*s\": -X and -# take names of parameters", SLICE_ARG(text));
    return 0;
}

/* ---- the text ------------------------------------------------------------------------ */

struct edit {
    const struct cf_change *changes;
    size_t count;
    bool done[CF_CHANGES_MAX];
    struct buf *out;
    bool full;
};

static void put(struct edit *d, struct slice bytes)
{
    d->full |= buf_adds(d->out, bytes) < 0;
}

static void put_line(struct edit *d, struct slice line)
{
    put(d, line);
    put(d, SLICE("\n"));
}

static void put_parameter(struct edit *d, const struct cf_change *c)
{
    put(d, c->name);
    put(d, SLICE(" = "));
    put_line(d, c->value);
}

/* The change of this name that counts; `count`: there is none. */
static size_t find(const struct edit *d, struct slice name)
{
    for (size_t i = d->count; i-- > 0;)
        if (slice_eq(d->changes[i].name, name))
            return i;
    return d->count;
}

/* A line that is neither empty nor a comment, of a parameter that `change` is about. */
static void edit_line(struct edit *d, size_t change, struct slice line, bool first)
{
    if (change == d->count) {
        put_line(d, line);
        return;
    }
    const struct cf_change *c = &d->changes[change];
    if (c->kind == CF_COMMENT) {
        put(d, SLICE("#"));
        put_line(d, line);
    } else if (c->kind == CF_SET && first && !d->done[change]) {
        put_parameter(d, c);
        d->done[change] = true;
    }
}

int cf_edit(struct slice text, const struct cf_change *changes, size_t count, struct buf *out,
            struct err *e)
{
    struct edit d = {.changes = changes, .count = count, .out = out};
    size_t change = count;
    if (count > CF_CHANGES_MAX)
        return err_set(e, "more than %d changes at a time", CF_CHANGES_MAX);
    while (text.len) {
        struct slice line = slice_first(text, slice_chr(text, '\n')), said = slice_trim(line);
        text = slice_from(text, line.len + 1);
        bool silent = said.len == 0 || said.ptr[0] == '#';
        bool first = !silent && line.ptr[0] != ' ' && line.ptr[0] != '\t';
        if (first)
            change = find(&d, slice_first(line, name_length(line)));
        if (silent)
            put_line(&d, line);
        else
            edit_line(&d, change, line, first);
    }
    for (size_t i = 0; i < count; i++)
        if (changes[i].kind == CF_SET && !d.done[i] && find(&d, changes[i].name) == i)
            put_parameter(&d, &changes[i]);
    return d.full ? err_set(e, "the file would be larger than %zu bytes", out->max) : 0;
}

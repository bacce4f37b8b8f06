#include "mail/header.h"

#include "mail/header_name.h"

static struct slice skip_blanks(struct slice s)
{
    while (s.len && header_blank(s.ptr[0]))
        s = slice_from(s, 1);
    return s;
}

/* The length of the field's name at the front of s, and in *colon the offset
 * of its colon; 0 if there is no field. */
static size_t name_length(struct slice s, size_t *colon)
{
    size_t n = 0;
    while (n < s.len && header_name_char(s.ptr[n]))
        n++;
    *colon = s.len - skip_blanks(slice_from(s, n)).len;
    if (n > HEADER_NAME_MAX || *colon >= s.len || s.ptr[*colon] != ':')
        return 0;
    return n;
}

bool header_next(struct slice *rest, struct header_field *f)
{
    struct slice s = *rest;
    size_t colon, end = 0;
    if (slice_starts(s, SLICE("\r\n"))) {
        *rest = slice_from(s, 2);
        return false;
    }
    size_t name = name_length(s, &colon);
    if (name == 0)
        return false;
    do {
        end += slice_chr(slice_from(s, end), '\n');
        end += end < s.len;
    } while (end < s.len && header_blank(s.ptr[end]));
    f->name = slice_first(s, name);
    f->raw = slice_first(s, end);
    f->body = slice_from(f->raw, colon + 1);
    if (slice_ends(f->body, SLICE("\n")))
        f->body.len--;
    if (slice_ends(f->body, SLICE("\r")))
        f->body.len--;
    *rest = slice_from(s, end);
    return true;
}

bool header_find(struct slice content, struct slice name, struct header_field *f)
{
    while (header_next(&content, f))
        if (slice_caseeq(f->name, name))
            return true;
    return false;
}

size_t header_length(struct slice content)
{
    struct slice rest = content;
    struct header_field f;
    while (header_next(&rest, &f))
        ;
    return content.len - rest.len;
}

int header_unfold(struct slice body, struct buf *out)
{
    body = slice_trim(body);
    while (body.len) {
        size_t n = slice_chr(body, '\n');
        struct slice line = slice_first(body, n);
        if (slice_ends(line, SLICE("\r")))
            line.len--;
        if (buf_adds(out, line) < 0)
            return -1;
        body = slice_from(body, n + 1);
    }
    return 0;
}

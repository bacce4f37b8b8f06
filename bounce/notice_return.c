/* The third part: the original message, or its header. What goes out must be
 * lines that every mail server takes, whatever came in. */
#include "bounce/notice.h"
#include "mail/dsn_field.h"

/* Whether the content may be returned as it is: CRLF lines of a permitted
 * length, no NUL, no lone CR or LF. */
static bool fit_to_send(struct slice content)
{
    size_t line = 0;
    for (size_t i = 0; i < content.len; i++) {
        char c = content.ptr[i];
        if (c == '\r' && i + 1 < content.len && content.ptr[i + 1] == '\n') {
            i++;
            line = 0;
        } else if (c == '\r' || c == '\n' || c == '\0' || ++line > DSN_LINE_MAX) {
            return false;
        }
    }
    return true;
}

/* The next line without its end; false at the end of the content. */
static bool next_line(struct slice *rest, struct slice *line)
{
    if (rest->len == 0)
        return false;
    *line = slice_cut(rest, '\n');
    if (line->len && line->ptr[line->len - 1] == '\r')
        line->len--;
    return true;
}

/* One header line, its control bytes replaced, cut into continuation lines if
 * it is too long. */
static int add_header_line(struct buf *b, struct slice line, bool utf8)
{
    enum { PIECE = DSN_LINE_MAX - 1 };
    bool keep_8bit = !utf8 || dsn_is_utf8(line);
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.ptr[i];
        bool bad = (c < 0x20 && c != '\t') || c == 0x7f || (c >= 0x80 && !keep_8bit);
        bool break_here = i && i % PIECE == 0;
        if ((break_here && buf_add(b, "\r\n ", 3) < 0) || buf_addc(b, bad ? '?' : (char)c) < 0)
            return -1;
    }
    return buf_add(b, "\r\n", 2);
}

static bool add_header(const struct notice *n, struct buf *b)
{
    struct slice rest = n->request->content, line;
    while (next_line(&rest, &line) && line.len) {
        size_t before = b->len;
        if (add_header_line(b, line, n->utf8) < 0) {
            b->len = before;
            return false;
        }
    }
    return true;
}

void notice_return(struct notice *n, struct buf *out, size_t room)
{
    const struct ipc_notice_request *r = n->request;
    n->returned = RETURNED_NOTHING;
    n->too_large = false;
    if (r->content.len == 0)
        return;
    if (r->ret == RET_FULL) {
        bool whole = r->content.len >= r->size && r->content.len <= room && fit_to_send(r->content);
        if (whole && buf_adds(out, r->content) == 0) {
            if (!slice_ends(r->content, SLICE("\r\n")))
                buf_add(out, "\r\n", 2);
            n->returned = RETURNED_ALL;
            return;
        }
        n->too_large = true;
    }
    struct buf part = BUF_INIT(room);
    bool all = add_header(n, &part);
    if (part.len) {
        n->returned = all ? RETURNED_HEADER : RETURNED_HEADER_BEGINNING;
        buf_adds(out, buf_slice(&part));
    }
    buf_free(&part);
}

#include "conf/lmtp_sockets.h"

#include "conf/endpoint.h"

/* What may stand before or behind a next hop in a line of a table. */
static bool is_separator(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == ',' || c == '{' || c == '}' || c == '=';
}

static bool is_path(struct slice word)
{
    for (size_t i = 0; i < word.len; i++)
        if (word.ptr[i] <= ' ' || word.ptr[i] > '~' || word.ptr[i] == '$')
            return false;
    return word.len > 1 && word.len <= ENDPOINT_PATH_MAX && word.ptr[0] == '/';
}

/* "unix:/path" and "lmtp:unix:/path" to the path. */
static bool take_path(struct slice word, struct slice *path)
{
    static const struct slice prefixes[] = {{"lmtp:unix:", 10}, {"unix:", 5}};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (slice_starts(word, prefixes[i])) {
            *path = slice_from(word, prefixes[i].len);
            return is_path(*path);
        }
    return false;
}

bool lmtp_sockets_have(struct slice list, struct slice path)
{
    while (list.len)
        if (slice_eq(slice_cut(&list, '\n'), path))
            return true;
    return false;
}

static int collect_line(struct slice line, struct buf *list)
{
    while (line.len) {
        size_t n = 0;
        while (n < line.len && !is_separator(line.ptr[n]))
            n++;
        struct slice word = slice_first(line, n), path;
        line = slice_from(line, n + 1);
        if (!take_path(word, &path) || lmtp_sockets_have(buf_slice(list), path))
            continue;
        if (list->max - list->len < path.len + 1)
            return -1;
        (void)buf_adds(list, path);
        (void)buf_addc(list, '\n');
    }
    return 0;
}

int lmtp_sockets_collect(struct slice text, struct buf *list)
{
    while (text.len) {
        struct slice line = slice_trim(slice_cut(&text, '\n'));
        /* nearly all lines of a large table name no socket */
        if (line.len && line.ptr[0] != '#' && memmem(line.ptr, line.len, "unix:", 5) &&
            collect_line(line, list) < 0)
            return -1;
    }
    return 0;
}

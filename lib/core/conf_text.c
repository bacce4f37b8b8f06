#include "core/conf_text.h"

/* Where the comment or quoted text that begins at `at` ends: at its last byte, or `at`
 * itself if none begins there. */
static size_t skip(struct slice t, size_t at)
{
    char c = t.ptr[at], next = at + 1 < t.len ? t.ptr[at + 1] : '\0';
    if (c == '#' || (c == '/' && next == '/')) {
        while (at + 1 < t.len && t.ptr[at + 1] != '\n')
            at++;
    } else if (c == '/' && next == '*') {
        for (at += 3; at < t.len && !(t.ptr[at - 1] == '*' && t.ptr[at] == '/'); at++)
            ;
    } else if (c == '"' || c == '\'') {
        for (at++; at < t.len && t.ptr[at] != c; at++)
            at += t.ptr[at] == '\\';
    }
    return at < t.len ? at : t.len - 1;
}

static int check_bytes(struct slice text, const char *file, struct err *e)
{
    unsigned line = 1;
    for (size_t i = 0; i < text.len; i++) {
        line += text.ptr[i] == '\n';
        if (text.ptr[i] == '\0')
            return err_set(e, "%s:%u: a NUL byte", file, line);
        if (text.ptr[i] == '$')
            return err_set(e, "%s:%u: '$' has no meaning here", file, line);
    }
    return 0;
}

int conf_text_check(struct slice text, size_t max, const char *file, struct err *e)
{
    unsigned line = 1, opened = 0;
    int depth = 0;
    if (text.len > max)
        return err_set(e, "%s: is larger than %zu bytes", file, max);
    if (check_bytes(text, file, e) < 0)
        return -1;
    for (size_t i = 0; i < text.len; i++) {
        size_t end = skip(text, i);
        char c = end > i ? ' ' : text.ptr[i];
        if (c == '{' && depth++ == 0)
            opened = line;
        depth -= c == '}';
        for (; i < end; i++)
            line += text.ptr[i] == '\n';
        line += text.ptr[i] == '\n';
    }
    return depth <= 0 ? 0 : err_set(e, "%s:%u: this '{' has no '}'", file, opened);
}

void conf_text_blank(char *text)
{
    struct slice t = slice_str(text);
    for (size_t i = 0; i < t.len; i++) {
        size_t end = skip(t, i);
        bool comment = text[i] == '#' || (text[i] == '/' && end > i);
        for (size_t k = i; comment && k <= end; k++)
            if (text[k] != '\n')
                text[k] = ' ';
        i = end;
    }
}

/* $name, ${name}, ${name?text}, ${name:text} and $$ in values. */
#include <unistd.h>

#include "conf/cf_lines.h"
#include "conf/params.h"
#include "core/log.h"

enum {
    EXPAND_DEPTH_MAX = 16,        /* B87: a value that refers to itself ends here */
    EXPAND_REFERENCES_MAX = 10000 /* of one value, all depths together */
};

struct expansion {
    const struct config_private *p;
    unsigned references;
    struct err *e;
};

static int expand_text(struct expansion *x, struct slice text, struct buf *out, unsigned depth);

static const char *raw_text(const struct config_private *p, int index)
{
    return p->raw[index] ? p->raw[index] : params[index].fallback;
}

/* The system's host name, made a full one if it has no domain. */
static int system_hostname(struct expansion *x, struct buf *out, unsigned depth)
{
    char name[256] = "";
    const char *domain = raw_text(x->p, PARAM_INDEX_mydomain);
    if (gethostname(name, sizeof name - 1) < 0 || !name[0])
        return err_set(x->e, "myhostname: the system has no host name; set myhostname");
    buf_addstr(out, name);
    if (strchr(name, '.'))
        return 0;
    buf_addc(out, '.');
    if (!*domain)
        return buf_addstr(out, "localdomain");
    return expand_text(x, slice_str(domain), out, depth);
}

static int expand_param(struct expansion *x, int index, struct buf *out, unsigned depth)
{
    size_t start = out->len;
    if (depth > EXPAND_DEPTH_MAX || ++x->references > EXPAND_REFERENCES_MAX)
        return err_set(x->e, "%s refers to itself, directly or through other parameters",
                       params[index].name);
    if (expand_text(x, slice_str(raw_text(x->p, index)), out, depth) < 0)
        return -1;
    if (out->len > start)
        return 0;
    if (index == PARAM_INDEX_myhostname)
        return system_hostname(x, out, depth + 1);
    if (index == PARAM_INDEX_mydomain) {
        if (expand_param(x, PARAM_INDEX_myhostname, out, depth + 1) < 0)
            return -1;
        struct slice host = slice_from(buf_slice(out), start);
        size_t dot = slice_chr(host, '.');
        if (dot < host.len) {
            memmove(out->data + start, host.ptr + dot + 1, host.len - dot - 1);
            out->len -= dot + 1;
        }
    }
    return 0;
}

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static size_t name_length(struct slice s)
{
    size_t n = 0;
    while (n < s.len && is_name_byte(s.ptr[n]))
        n++;
    return n;
}

/* Length up to the brace that closes, or s.len if none does. */
static size_t brace_length(struct slice s)
{
    unsigned open = 1;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '{')
            open++;
        else if (s.ptr[i] == '}' && --open == 0)
            return i;
    }
    return s.len;
}

static int expand_name(struct expansion *x, struct slice name, struct buf *out, unsigned depth)
{
    int index = param_find(name);
    if (index < 0)
        return err_set(x->e, "$%s: there is no such parameter; write $$ for a dollar sign",
                       log_esc_n(name, 60));
    return expand_param(x, index, out, depth + 1);
}

/* The inside of ${...}. */
static int expand_braces(struct expansion *x, struct slice inside, struct buf *out, unsigned depth)
{
    size_t n = name_length(inside);
    struct slice name = slice_first(inside, n), rest = slice_from(inside, n);
    if (rest.len == 0)
        return expand_name(x, name, out, depth);
    if (rest.ptr[0] != '?' && rest.ptr[0] != ':')
        return err_set(x->e, "${%s}: write ${name}, ${name?text} or ${name:text}",
                       log_esc_n(inside, 60));
    struct buf value = BUF_INIT(CF_LINE_MAX);
    int rc = expand_name(x, name, &value, depth);
    bool filled = value.len > 0;
    buf_free(&value);
    if (rc < 0 || filled != (rest.ptr[0] == '?'))
        return rc;
    if (depth >= EXPAND_DEPTH_MAX)
        return err_set(x->e, "${%s}: nested too deeply", log_esc_n(inside, 60));
    return expand_text(x, slice_from(rest, 1), out, depth + 1);
}

/* Takes what follows a dollar sign off *rest. */
static int expand_dollar(struct expansion *x, struct slice *rest, struct buf *out, unsigned depth)
{
    struct slice s = *rest;
    if (s.len && s.ptr[0] == '$') {
        *rest = slice_from(s, 1);
        return buf_addc(out, '$');
    }
    if (s.len && s.ptr[0] == '{') {
        struct slice inside = slice_from(s, 1);
        size_t n = brace_length(inside);
        if (n == inside.len)
            return err_set(x->e, "${%s: the closing brace is missing", log_esc_n(inside, 60));
        *rest = slice_from(inside, n + 1);
        return expand_braces(x, slice_first(inside, n), out, depth);
    }
    size_t n = name_length(s);
    if (n == 0)
        return err_set(x->e, "a parameter's name must follow $; write $$ for a dollar sign");
    *rest = slice_from(s, n);
    return expand_name(x, slice_first(s, n), out, depth);
}

static int expand_text(struct expansion *x, struct slice text, struct buf *out, unsigned depth)
{
    while (text.len) {
        size_t n = slice_chr(text, '$');
        if (buf_adds(out, slice_first(text, n)) < 0)
            return err_set(x->e, "the value is longer than %d bytes after $names are replaced",
                           CF_LINE_MAX);
        bool dollar = n < text.len;
        text = slice_from(text, n + 1);
        if (dollar && expand_dollar(x, &text, out, depth) < 0)
            return -1;
    }
    return 0;
}

int param_expand(const struct config_private *p, int index, struct buf *out, struct err *e)
{
    struct err inner = {0, ""};
    struct expansion x = {p, 0, &inner};
    if (expand_param(&x, index, out, 0) == 0)
        return 0;
    if (!inner.text[0]) /* the last byte did not fit */
        err_set(&inner, "the value is too long");
    return err_set(e, "%s%s%s: %s", p->where[index] ? p->where[index] : "",
                   p->where[index] ? ": " : "", params[index].name, inner.text);
}

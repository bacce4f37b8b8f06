#include "core/conf_text.h"

#include "core/log.h"

enum {
    DEPTH_MAX = 8,    /* sections and lists in each other; our files have three */
    SETTINGS_MAX = 64 /* of a section; more are more than there are, which libconfuse refuses */
};

/* ---- words -------------------------------------------------------------------------- */

/* Where the comment or quoted text that begins at `at` ends: at its last byte, or `at`
 * itself if none begins there. `open`: it has no end. */
static size_t skip(struct slice t, size_t at, bool *open)
{
    char c = t.ptr[at], next = at + 1 < t.len ? t.ptr[at + 1] : '\0';
    *open = false;
    if (c == '#' || (c == '/' && next == '/')) {
        while (at + 1 < t.len && t.ptr[at + 1] != '\n')
            at++;
    } else if (c == '/' && next == '*') {
        for (at += 3; at < t.len && !(t.ptr[at - 1] == '*' && t.ptr[at] == '/'); at++)
            ;
        *open = at >= t.len;
    } else if (c == '"' || c == '\'') {
        for (at++; at < t.len && t.ptr[at] != c; at++)
            at += t.ptr[at] == '\\';
        *open = at >= t.len;
    }
    return at < t.len ? at : t.len - 1;
}

static bool is_sign(char c)
{
    return c && strchr("{}=,()+", c);
}

/* Whether text[at] begins a comment, which ends at `end`. */
static bool is_comment(struct slice t, size_t at, size_t end)
{
    return t.ptr[at] == '#' || (t.ptr[at] == '/' && end > at);
}

static void advance(struct conf_scan *s, size_t to)
{
    for (; s->at < to; s->at++)
        s->line += s->text.ptr[s->at] == '\n';
}

/* To the next word or sign; false at the end. */
static bool find_word(struct conf_scan *s)
{
    while (s->at < s->text.len) {
        bool open;
        size_t end = skip(s->text, s->at, &open);
        bool comment = is_comment(s->text, s->at, end);
        if (!comment && !char_is_space(s->text.ptr[s->at]))
            return true;
        if (comment && open)
            s->comment = s->line;
        advance(s, end + 1);
    }
    return false;
}

/* The end of a word without quotes. */
static size_t word_end(struct slice t, size_t at)
{
    bool open;
    for (; at < t.len; at++) {
        char c = t.ptr[at];
        if (char_is_space(c) || is_sign(c) || c == '"' || c == '\'' || c == '#')
            break;
        if (c == '/' && skip(t, at, &open) > at)
            break;
    }
    return at;
}

bool conf_scan_next(struct conf_scan *s, struct conf_word *out)
{
    if (!find_word(s))
        return false;
    size_t begin = s->at, end;
    char first = s->text.ptr[begin];
    *out = (struct conf_word){.line = s->line};
    if (first == '"' || first == '\'') {
        end = skip(s->text, begin++, &out->open) + 1;
        out->quote = first;
        out->text = slice_first(slice_from(s->text, begin), end - begin - !out->open);
    } else {
        out->sign = is_sign(first) ? first : '\0';
        end = out->sign ? begin + 1 : word_end(s->text, begin);
        out->text = slice_first(slice_from(s->text, begin), end - begin);
    }
    advance(s, end);
    return true;
}

bool conf_word_is(const struct conf_word *w, const char *word)
{
    return !w->sign && slice_eq(w->text, slice_str(word));
}

bool conf_sign_is(const struct conf_word *w, char sign)
{
    return w->sign == sign;
}

int conf_value_line(const char *text, int from, const char *setting, const char *value)
{
    struct conf_scan s = {.text = slice_str(text), .line = 1};
    struct conf_word w, last = {.sign = '}'};
    bool in_value = false;
    while (conf_scan_next(&s, &w)) {
        if (conf_sign_is(&w, '='))
            in_value = conf_word_is(&last, setting);
        else if (in_value && w.line >= from && conf_word_is(&w, value))
            return w.line;
        if (!conf_sign_is(&w, '+')) /* of += */
            last = w;
    }
    return 0;
}

/* ---- what is refused ------------------------------------------------------------------- */

struct setting {
    struct slice name;
    int line;
};

/* What a '{' has opened: a section, or a list. */
struct level {
    int line;
    bool list;
    unsigned count;
    struct setting settings[SETTINGS_MAX];
};

struct checking {
    const char *file;
    struct err *e;
    unsigned depth;
    struct level levels[DEPTH_MAX]; /* the first one is the file */
};

static int check_nul(struct slice text, const char *file, struct err *e)
{
    int line = 1;
    for (size_t i = 0; i < text.len; i++) {
        line += text.ptr[i] == '\n';
        if (text.ptr[i] == '\0')
            return err_set(e, "%s:%d: a NUL byte", file, line);
    }
    return 0;
}

static int check_dollar(const struct checking *c, const struct conf_word *w)
{
    int line = w->line;
    for (size_t i = 0; i < w->text.len && w->quote != '\''; i++) {
        char next = i + 1 < w->text.len ? w->text.ptr[i + 1] : '\0';
        line += w->text.ptr[i] == '\n';
        if (w->quote && w->text.ptr[i] == '\\')
            i++;
        else if (w->text.ptr[i] == '$' && (!w->quote || next == '{'))
            return err_set(c->e, "%s:%d: '$' has no meaning here; in single quotes it is itself",
                           c->file, line);
    }
    return 0;
}

static int take_setting(const struct checking *c, struct level *l, const struct conf_word *name,
                        bool adds)
{
    for (unsigned i = 0; i < l->count; i++)
        if (slice_eq(l->settings[i].name, name->text)) {
            if (adds)
                return 0;
            return err_set(c->e,
                           "%s:%d: %s is given twice: it stands in line %d, too, and only this "
                           "one would hold; take one out, or write both as one",
                           c->file, name->line, log_esc_n(name->text, 80), l->settings[i].line);
        }
    if (l->count < SETTINGS_MAX)
        l->settings[l->count++] = (struct setting){name->text, name->line};
    return 0;
}

/* A word after these two. */
static int take_word(struct checking *c, const struct conf_word *before,
                     const struct conf_word *last, const struct conf_word *w)
{
    struct level *now = &c->levels[c->depth];
    if (w->open)
        return err_set(c->e, "%s:%d: the quoted text that begins here has no end", c->file,
                       w->line);
    if (check_dollar(c, w) < 0)
        return -1;
    if (conf_sign_is(w, '{')) {
        if (c->depth + 1 == DEPTH_MAX)
            return err_set(c->e, "%s:%d: too many '{' in each other", c->file, w->line);
        struct level *next = &c->levels[++c->depth];
        next->line = w->line;
        next->list = conf_sign_is(last, '=');
        next->count = 0;
    } else if (conf_sign_is(w, '}')) {
        c->depth -= c->depth > 0;
    } else if (conf_sign_is(w, '=') && !now->list) {
        bool adds = conf_sign_is(last, '+');
        const struct conf_word *name = adds ? before : last;
        return name->sign ? 0 : take_setting(c, now, name, adds); /* libconfuse tells what is odd */
    }
    return 0;
}

int conf_text_check(struct slice text, size_t max, const char *file, struct err *e)
{
    struct checking c = {.file = file, .e = e};
    struct conf_scan s = {.text = text, .line = 1};
    struct conf_word w, last = {.sign = '}'}, before = last;
    if (text.len > max)
        return err_set(e, "%s: is larger than %zu bytes", file, max);
    if (check_nul(text, file, e) < 0)
        return -1;
    for (; conf_scan_next(&s, &w); before = last, last = w)
        if (take_word(&c, &before, &last, &w) < 0)
            return -1;
    if (s.comment)
        return err_set(e, "%s:%d: the comment that begins here has no end", file, s.comment);
    return c.depth == 0 ? 0 : err_set(e, "%s:%d: this '{' has no '}'", file, c.levels[1].line);
}

void conf_text_blank(char *text)
{
    struct slice t = slice_str(text);
    for (size_t i = 0; i < t.len; i++) {
        bool open;
        size_t end = skip(t, i, &open);
        bool comment = is_comment(t, i, end);
        for (size_t k = i; comment && k <= end; k++)
            if (text[k] != '\n')
                text[k] = ' ';
        i = end;
    }
}

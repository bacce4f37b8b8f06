/* Lines of a providers.conf, which libconfuse does not tell, or tells wrongly. */
#include "rules/lines.h"

#include <string.h>

enum { OPEN_MAX = 16 }; /* sections in sections whose lines are known; there are two at most */

/* Where the quoted string or comment that begins at text[at] ends; at + 1 if none does. */
static size_t quote_end(const char *text, size_t at)
{
    char quote = text[at];
    if (quote == '\'' || quote == '"') {
        for (at++; text[at] && text[at] != quote; at++)
            if (text[at] == '\\' && text[at + 1])
                at++;
        return text[at] ? at + 1 : at;
    }
    if (quote == '#' || (quote == '/' && text[at + 1] == '/'))
        return at + strcspn(text + at, "\n");
    if (quote == '/' && text[at + 1] == '*') {
        const char *end = strstr(text + at + 2, "*/");
        return end ? (size_t)(end - text) + 2 : at + strlen(text + at);
    }
    return at + 1;
}

void rules_strip_comments(char *text)
{
    for (size_t at = 0, end; text[at]; at = end) {
        end = quote_end(text, at);
        bool comment = text[at] == '#' || (text[at] == '/' && end > at + 1);
        for (size_t i = at; comment && i < end; i++)
            if (text[i] != '\n')
                text[i] = ' ';
    }
}

/* ---- words ------------------------------------------------------------------------- */

/* A word, a string without its quotes, or one of the signs; empty at the end. */
struct token {
    struct slice text;
    int line;
    bool sign;
};

struct scan {
    const char *text;
    size_t at;
    int line;
};

static void advance(struct scan *s, size_t to)
{
    for (; s->at < to; s->at++)
        s->line += s->text[s->at] == '\n';
}

static bool next_token(struct scan *s, struct token *out)
{
    static const char space[] = " \t\r\n\v\f", signs[] = "{}=,()+",
                      ends[] = " \t\r\n\v\f{}=,()+\"'";
    advance(s, s->at + strspn(s->text + s->at, space));
    char first = s->text[s->at];
    if (!first)
        return false;
    size_t begin = s->at, end = begin + 1;
    *out = (struct token){.line = s->line, .sign = strchr(signs, first)};
    if (first == '"' || first == '\'') {
        end = quote_end(s->text, begin++);
        size_t last = end > begin && s->text[end - 1] == first ? end - 1 : end;
        out->text = slice_make(s->text + begin, last - begin);
    } else {
        if (!out->sign)
            end = begin + strcspn(s->text + begin, ends);
        out->text = slice_make(s->text + begin, end - begin);
    }
    advance(s, end);
    return true;
}

static bool is_sign(const struct token *t, char sign)
{
    return t->sign && t->text.len == 1 && t->text.ptr[0] == sign;
}

static bool is_word(const struct token *t, const char *word)
{
    return !t->sign && slice_eq(t->text, slice_str(word));
}

/* ---- sections ----------------------------------------------------------------------- */

struct sections {
    cfg_t *in[OPEN_MAX]; /* from the whole file inwards; NULL: none that is known */
    int lines[OPEN_MAX];
    unsigned depth;
    unsigned seen[5]; /* of each kind, in the file */
    unsigned sources; /* seen in the section that is open */
};

static cfg_t *nth(cfg_t *in, const char *kind, unsigned n)
{
    return in && n < cfg_size(in, kind) ? cfg_getnsec(in, kind, n) : NULL;
}

/* The section that opens with these two words, `default {` or `site "mx.example.com" {`. */
static cfg_t *opened(struct sections *s, const struct token *before, const struct token *last,
                     int *line)
{
    static const char *const kinds[] = {"provider", "site", "domain", "rule"};
    cfg_t *in = s->in[s->depth];
    *line = last->line;
    if (s->depth == 1 && is_word(before, "source")) {
        *line = before->line;
        return nth(in, "source", s->sources++);
    }
    if (s->depth != 0)
        return NULL;
    s->sources = 0;
    for (unsigned k = 0; k < 4; k++)
        if (is_word(before, kinds[k])) {
            *line = before->line;
            return nth(in, kinds[k], s->seen[k]++);
        }
    return is_word(last, "default") ? nth(in, "default", s->seen[4]++) : NULL;
}

int rules_set_lines(cfg_t *top, const char *text)
{
    struct sections s = {.in = {top}};
    struct scan scan = {.text = text, .line = 1};
    struct token before = {.sign = true}, last = {.sign = true}, t;
    while (next_token(&scan, &t)) {
        if (is_sign(&t, '{') && s.depth + 1 < OPEN_MAX) {
            int line = last.line;
            bool list = is_sign(&last, '=');
            cfg_t *section = list ? NULL : opened(&s, &before, &last, &line);
            if (section)
                section->line = line;
            s.in[++s.depth] = section;
            s.lines[s.depth] = line;
        } else if (is_sign(&t, '}') && s.depth > 0) {
            s.depth--;
        }
        before = last;
        last = t;
    }
    return s.depth > 0 ? s.lines[s.depth] : 0;
}

int rules_include_line(const char *text, const char *name)
{
    struct scan scan = {.text = text, .line = 1};
    struct token t;
    bool included = false;
    while (next_token(&scan, &t)) {
        if (is_word(&t, "include"))
            included = true;
        else if (included && is_word(&t, name))
            return t.line;
        else if (is_sign(&t, '}'))
            included = false;
    }
    return 0;
}

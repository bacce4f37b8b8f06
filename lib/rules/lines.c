/* The lines in which sections begin. */
#include "rules/lines.h"

#include "core/conf_text.h"

enum { OPEN_MAX = 16 }; /* sections in sections whose lines are known; there are two at most */

struct sections {
    cfg_t *in[OPEN_MAX]; /* from the whole file inwards; NULL: none that is known */
    unsigned depth;
    unsigned seen[5]; /* of each kind, in the file */
    unsigned sources; /* seen in the section that is open */
};

static cfg_t *nth(cfg_t *in, const char *kind, unsigned n)
{
    return in && n < cfg_size(in, kind) ? cfg_getnsec(in, kind, n) : NULL;
}

/* The section that opens with these two words, `default {` or `site "mx.example.com" {`. */
static cfg_t *opened(struct sections *s, const struct conf_word *before,
                     const struct conf_word *last, int *line)
{
    static const char *const kinds[] = {"provider", "site", "domain", "rule"};
    cfg_t *in = s->in[s->depth];
    *line = last->line;
    if (s->depth == 1 && conf_word_is(before, "source")) {
        *line = before->line;
        return nth(in, "source", s->sources++);
    }
    if (s->depth != 0)
        return NULL;
    s->sources = 0;
    for (unsigned k = 0; k < 4; k++)
        if (conf_word_is(before, kinds[k])) {
            *line = before->line;
            return nth(in, kinds[k], s->seen[k]++);
        }
    return conf_word_is(last, "default") ? nth(in, "default", s->seen[4]++) : NULL;
}

void rules_set_lines(cfg_t *top, const char *text)
{
    struct sections s = {.in = {top}};
    struct conf_scan scan = {.text = slice_str(text), .line = 1};
    struct conf_word before = {.sign = '}'}, last = before, w;
    for (; conf_scan_next(&scan, &w); before = last, last = w) {
        if (conf_sign_is(&w, '{') && s.depth + 1 < OPEN_MAX) {
            int line;
            cfg_t *section = conf_sign_is(&last, '=') ? NULL : opened(&s, &before, &last, &line);
            if (section)
                section->line = line;
            s.in[++s.depth] = section;
        } else if (conf_sign_is(&w, '}') && s.depth > 0) {
            s.depth--;
        }
    }
}

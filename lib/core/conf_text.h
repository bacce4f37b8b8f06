/*
 * Texts for libconfuse: what it would misread, or take in silence, is refused or blanked before
 * it sees them, so that every error has the right line.
 */
#ifndef POSTERN_CORE_CONF_TEXT_H
#define POSTERN_CORE_CONF_TEXT_H

#include "core/err.h"
#include "core/slice.h"

/*
 * Refuses a text that
 * - is longer than `max` bytes, or has NUL bytes;
 * - has a section, a list, a quoted text or a comment that does not end (libconfuse takes the end
 *   of the file for the end of a section);
 * - gives one setting twice in a section, in which case the last one alone would hold; += adds to
 *   a list that was given before;
 * - has a '$' outside of quotes, or before '{' in double quotes, where libconfuse would put in a
 *   variable of the environment.
 * `file` is for the error. 0, or -1 with *e ("file:line: what").
 */
int conf_text_check(struct slice text, size_t max, const char *file, struct err *e);
/* Puts blanks in the place of comments, of which libconfuse miscounts the lines. */
void conf_text_blank(char *text);

/* ---- word by word ------------------------------------------------------------------ */

struct conf_word {
    struct slice text; /* of the text that is read; without quotes, escapes as they are */
    int line;          /* in which it begins */
    char sign;         /* one of { } = , ( ) +; else '\0' */
    char quote;        /* ' or "; else '\0' */
    bool open;         /* a quoted text without its end */
};
struct conf_scan {
    struct slice text;
    size_t at;
    int line;    /* begins with 1 */
    int comment; /* the line of a comment without an end; 0: none */
};

/* The next word or sign, comments left out; false at the end. */
bool conf_scan_next(struct conf_scan *s, struct conf_word *out);
/* Whether it is this word, quoted or not; whether it is this sign. */
bool conf_word_is(const struct conf_word *w, const char *word);
bool conf_sign_is(const struct conf_word *w, char sign);

/* The line in which the value stands that a setting from line `from` on has, or has in its list;
 * 0: not found, as it may be where a value has escapes. */
int conf_value_line(const char *text, int from, const char *setting, const char *value);

#endif

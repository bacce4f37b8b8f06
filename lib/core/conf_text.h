/*
 * Texts for libconfuse: what it would misread is refused or blanked before it sees
 * them, so that every error has the right line.
 */
#ifndef POSTERN_CORE_CONF_TEXT_H
#define POSTERN_CORE_CONF_TEXT_H

#include "core/err.h"
#include "core/slice.h"

/* Refuses a text that is longer than `max` bytes, has NUL bytes, a '$' (libconfuse would
 * put the environment's values in), or a '{' without its '}' (libconfuse takes the end of
 * the file for the end of a section). `file` is for the error. 0 or -1. */
int conf_text_check(struct slice text, size_t max, const char *file, struct err *e);
/* Puts blanks in the place of comments, of which libconfuse miscounts the lines. */
void conf_text_blank(char *text);

#endif

/* Lines of a providers.conf, which libconfuse does not tell, or tells wrongly: for read.c. */
#ifndef POSTERN_RULES_LINES_H
#define POSTERN_RULES_LINES_H

#include <confuse.h>

#include "core/slice.h"

/* Blanks comments, because libconfuse counts their lines wrongly. The functions below want a
 * text without comments. */
void rules_strip_comments(char *text);
/* Gives the sections that were read the lines in which they begin; libconfuse says where they
 * end. With top NULL it only looks. Returns the line of the section (or list) that is open at
 * the end of the text; 0: none. */
int rules_set_lines(cfg_t *top, const char *text);
/* The line that includes this file; 0: not found, as it may be where a name has escapes. */
int rules_include_line(const char *text, const char *name);

#endif

/* Lines of a providers.conf that libconfuse does not tell: for the files of lib/rules alone. */
#ifndef POSTERN_RULES_LINES_H
#define POSTERN_RULES_LINES_H

#include <confuse.h>

/* Gives the sections that were read the lines in which they begin; libconfuse says where they
 * end. `text`: from which top was read. */
void rules_set_lines(cfg_t *top, const char *text);

#endif

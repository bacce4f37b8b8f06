/* What a field's name is made of (RFC 5322 2.2), for the files of this folder. */
#ifndef POSTERN_MAIL_HEADER_NAME_H
#define POSTERN_MAIL_HEADER_NAME_H

#include <stdbool.h>

static inline bool header_name_char(char c)
{
    return c > ' ' && c < 0x7f && c != ':';
}

static inline bool header_blank(char c)
{
    return c == ' ' || c == '\t';
}

#endif

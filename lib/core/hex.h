/* Hexadecimal digits, for parsers. */
#ifndef POSTERN_CORE_HEX_H
#define POSTERN_CORE_HEX_H

/* The value of a digit of either case, or -1. */
static inline int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

#endif

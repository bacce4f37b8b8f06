#include "core/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, const char *format, ...)
{
    va_list args;
    if (!e)
        return -1;
    va_start(args, format);
    vsnprintf(e->text, sizeof e->text, format, args);
    va_end(args);
    e->number = 0;
    return -1;
}

int err_sys(struct err *e, const char *format, ...)
{
    int number = errno;
    va_list args;
    if (!e)
        return -1;
    va_start(args, format);
    vsnprintf(e->text, sizeof e->text, format, args);
    va_end(args);
    size_t n = strlen(e->text);
    snprintf(e->text + n, sizeof e->text - n, ": %s", strerror(number));
    e->number = number;
    return -1;
}

int err_prefix(struct err *e, const char *format, ...)
{
    char head[ERR_TEXT_MAX], rest[ERR_TEXT_MAX];
    va_list args;
    if (!e)
        return -1;
    va_start(args, format);
    vsnprintf(head, sizeof head, format, args);
    va_end(args);
    memcpy(rest, e->text, sizeof rest);
    snprintf(e->text, sizeof e->text, "%.250s: %.250s", head, rest);
    return -1;
}

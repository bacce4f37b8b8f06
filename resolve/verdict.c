#include "resolve/verdict.h"

#include <stdarg.h>
#include <stdio.h>

void verdict_set(struct verdict *v, unsigned code, const char *enhanced, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    v->code = (uint16_t)code;
    snprintf(v->enhanced, sizeof v->enhanced, "%s", enhanced);
    vsnprintf(v->text, sizeof v->text, format, args);
    va_end(args);
}

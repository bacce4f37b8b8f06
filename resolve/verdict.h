/* A "no": what the sender of the mail will read. */
#ifndef POSTERN_RESOLVE_VERDICT_H
#define POSTERN_RESOLVE_VERDICT_H

#include <stdint.h>

struct verdict {
    uint16_t code;     /* 0: no refusal */
    char enhanced[10]; /* RFC 3463 */
    char text[480];
};

/* Sets all three; a text that is too long is cut. */
void verdict_set(struct verdict *v, unsigned code, const char *enhanced, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif

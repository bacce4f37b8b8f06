/* A "no" to a peer, as a reply says it: made where the cause is known, sent by
 * whoever holds the session. Texts are constants, without peer bytes. */
#ifndef POSTERN_CORE_REFUSAL_H
#define POSTERN_CORE_REFUSAL_H

#include <stdint.h>

struct refusal {
    uint16_t code;        /* 550; 0: no refusal */
    const char *enhanced; /* "5.5.2" (RFC 3463) */
    const char *text;
};

#endif

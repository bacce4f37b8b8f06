/*
 * Which mail of accounts is let into the queue: that for which quota has reserved room
 * (token/token.h). qmgr makes the key when it starts and tells quota on each new channel. Which
 * ones were used is known by their numbers: those of a quota that was restarted end when the
 * first one of the new quota is used (then the client is told to try again), all end with qmgr.
 */
#ifndef POSTERN_QMGR_TOKENS_H
#define POSTERN_QMGR_TOKENS_H

#include "core/refusal.h"
#include "ipc/ipc.h"
#include "token/token.h"

struct qmgr;

enum {
    /* Numbers that are remembered: at 3,000 messages a second all of the last TOKEN_SECONDS. A
     * token that is older than so many others is refused as one that is too old. */
    TOKEN_WINDOW = 1 << 21
};

/* Part of struct qmgr. */
struct tokens {
    unsigned char key[TOKEN_KEY];
    uint64_t channels; /* that quota had: each has numbers of its own */
    uint64_t top;      /* the highest number that was used */
    uint64_t *used;    /* a bit for each number of the window; NULL until quota is there */
    int64_t began;     /* monotonic: since when there is this key */
    /* lines about those that are not good: an honest one does not hide an alarm */
    struct token_lines {
        int64_t said;    /* monotonic: the last one */
        uint64_t unsaid; /* tokens that had none since */
    } warnings, alarms;
};

enum token_verdict {
    TOKEN_GOOD,
    TOKEN_LATE,     /* it does not hold any longer */
    TOKEN_FALSE,    /* quota has not made it for this message, or with an earlier key */
    TOKEN_AGAIN,    /* it was used before */
    TOKEN_NOT_HELD, /* quota wants the message held, and COMMIT does not */
    TOKEN_NOBODY    /* it is nobody's mail, and that smtpd has none */
};

void tokens_init(struct tokens *t);
/* Tells quota the key and from which number on it counts; first on each channel. */
void tokens_connected(struct qmgr *q);
/* Whether this COMMIT is what quota has reserved; if so the token is used up. `now` is
 * monotonic. */
enum token_verdict tokens_check(struct tokens *t, const struct ipc_commit *in, int64_t now);
/* The same as the answer to it: NULL if it may be taken. Nobody's mail may, unless all mail of
 * this smtpd is of accounts (owners_only). Logs what an honest smtpd does not do. `from` is the
 * smtpd's name. */
const struct refusal *tokens_refuse(struct qmgr *q, const char *from, bool owners_only,
                                    const struct ipc_commit *in);

#endif

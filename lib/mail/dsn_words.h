/*
 * What an enhanced status code (RFC 3463 and the IANA registry that continues
 * it) means, in words for the people who get a notice.
 */
#ifndef POSTERN_MAIL_DSN_WORDS_H
#define POSTERN_MAIL_DSN_WORDS_H

#include "core/slice.h"

struct dsn_words {
    const char *code;     /* subject.detail, without the class: "1.1" */
    const char *happened; /* a whole sentence */
    const char *advice;   /* what the sender can do: a whole sentence */
};

/* class "." subject "." detail with class 2, 4 or 5 and numbers of at most three
 * digits (RFC 3463 section 2). */
bool dsn_status_valid(struct slice status);
/* The words for a status: those of its code, else those of its subject ("1.0"),
 * else general ones; also for an invalid or empty status. Never NULL. */
const struct dsn_words *dsn_explain(struct slice status);

#endif

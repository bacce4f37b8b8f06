/*
 * What was learned about a destination from one source address, as a JSON object in one
 * line: what is kept over restarts, exported and imported. No I/O here.
 */
#ifndef POSTERN_LEARNED_LEARNED_H
#define POSTERN_LEARNED_LEARNED_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/err.h"

enum {
    LEARNED_LINE_MAX = 8192, /* bytes of an object */
    LEARNED_NAME_MAX = 1024, /* of key and name */
    LEARNED_SOURCE_MAX = 48, /* of a source address in text form */
    LEARNED_REASON_MAX = 300,
    LEARNED_RULE_MAX = 200,
    LEARNED_SAID_MAX = 600,
    LEARNED_COUNT_MAX = 1000000
};

/* Limits that it may have: see qmgr/shaper.h. 0: not known. Times are microseconds. */
struct learned {
    char *key;    /* what the other side sees as one destination */
    char *name;   /* for people, and where the key has changed */
    char *source; /* text form, or "" */
    int64_t when; /* wall: it was true then */
    double rate, rate_failed;
    double connection_rate, connection_rate_failed;
    uint32_t window, window_failed, messages;
    bool blind;               /* rate_failed was not measured */
    int64_t period, shut_for; /* of a volume for each hour or day */
    int64_t grey_refused, grey_passed, grey_first;
    int64_t suspended_until; /* wall */
    bool by_hand;
    bool blocked;      /* the source is blocked there: others take over */
    bool unreachable;  /* nobody answered */
    char *reason;      /* of a suspension by hand; or NULL */
    char *rule, *said; /* of one that is not: the rule's name; the refusal, printable. Or NULL */
};

/* Appends the object, without a line end. */
void learned_encode(const struct learned *l, struct buf *out);
/* Reads one: everything is within the limits above, or *e says what is wrong. On success
 * the strings are the caller's (learned_free). 0 or -1. */
int learned_parse(struct slice line, struct learned *l, struct err *e);
void learned_free(struct learned *l);

#endif

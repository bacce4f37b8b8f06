/*
 * What lets a message of an account into the queue: quota gives it out when it has reserved
 * room for the message (RESERVED), smtpd hands it on (COMMIT), and qmgr, which made the key,
 * sees by it that what is committed is what was reserved. smtpd has not the key, so one that
 * was taken over can neither make a token nor use one for another message.
 *
 * A token is good for one COMMIT: it has a number that qmgr marks as used (qmgr/tokens.h).
 */
#ifndef POSTERN_TOKEN_TOKEN_H
#define POSTERN_TOKEN_TOKEN_H

#include "core/slice.h"

enum {
    TOKEN_KEY = 32, /* bytes */
    TOKEN_MAC = 16,
    TOKEN_BYTES = 1 + 4 + 8 + TOKEN_MAC,
    TOKEN_OWNER_MAX = 255, /* of what it speaks of: */
    TOKEN_SENDER_MAX = 1024,
    TOKEN_SECONDS =
        540 /* then it does not hold any longer; quota keeps the room longer than that */
};

/* What it speaks of: all that a message is charged by, and whose mail it says it is. */
struct token_claim {
    struct slice id;     /* of the message */
    struct slice owner;  /* "account/user", or "account" */
    struct slice sender; /* of the envelope: quota has seen that the owner may use it */
    uint32_t recipients;
    uint64_t size; /* that is charged */
};

/* What it says itself. */
struct token {
    uint8_t hold;    /* enum message_flag that COMMIT must have: MESSAGE_HOLD, MESSAGE_HOLD_RATE */
    uint32_t at;     /* seconds of CLOCK_MONOTONIC, which all processes of a machine share */
    uint64_t serial; /* no other token of the same key has it */
};

/* 0, or -1 if a text of the claim is longer than it may be. */
int token_make(const unsigned char key[static TOKEN_KEY], const struct token_claim *claim,
               const struct token *t, char out[static TOKEN_BYTES]);
/* 0 if `text` was made with this key for this claim: *t is what it says. -1: it was not. */
int token_read(const unsigned char key[static TOKEN_KEY], const struct token_claim *claim,
               struct slice text, struct token *t);

#endif

/*
 * Password hashes: what crypt(3) knows (yescrypt, bcrypt, SHA-512 and so on) and
 * PBKDF2 in the spellings that passlib, Django and Dovecot export. Slow by design: for threads.
 */
#ifndef POSTERN_QUOTA_HASH_H
#define POSTERN_QUOTA_HASH_H

#include "core/slice.h"

enum {
    PASSWORD_MAX = 511, /* bytes, as crypt(3) takes */
    HASH_TEXT_MAX = 511
};

enum hash_verdict { HASH_MATCH, HASH_MISMATCH, HASH_UNUSABLE };

/* A NUL in the password matches nothing. */
enum hash_verdict hash_verify(const char *stored, struct slice password);
/* A new yescrypt hash, NUL-terminated; 0 or -1. */
int hash_make(struct slice password, char out[static HASH_TEXT_MAX + 1]);
/* Whether hash_verify knows this kind of hash; a Dovecot prefix such as
 * {SHA512-CRYPT} is taken off *text. */
bool hash_known(struct slice *text);

#endif

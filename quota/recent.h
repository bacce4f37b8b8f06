/*
 * Passwords that were right a moment ago, so that a client that logs in for each
 * message does not cost a hash each time. What is remembered is a digest under a key
 * of this process: a copy of its memory is no list of passwords. One for each user,
 * bounded in number and time.
 */
#ifndef POSTERN_QUOTA_RECENT_H
#define POSTERN_QUOTA_RECENT_H

#include "core/list.h"
#include "core/map.h"

enum { RECENT_DIGEST = 32 };

struct recent {
    struct map users;
    struct list ages; /* oldest first */
    unsigned char key[RECENT_DIGEST];
    uint64_t changes; /* how often something was forgotten because it changed */
};

/* 0 or -1: no random numbers. */
int recent_init(struct recent *r);
void recent_free(struct recent *r); /* wipes */
void recent_digest(const struct recent *r, const char *login, struct slice password,
                   unsigned char out[static RECENT_DIGEST]);
/* Times are monotonic, as clock_mono has them. */
bool recent_knows(struct recent *r, const char *login,
                  const unsigned char digest[static RECENT_DIGEST], int64_t now);
/* `changes` is what it was when the password was compared: what was compared with an
 * older hash is not remembered. `limit`: users at most. */
void recent_add(struct recent *r, const char *login,
                const unsigned char digest[static RECENT_DIGEST], uint64_t changes, int64_t until,
                size_t limit);
/* The user's password was changed, or the user deleted. */
void recent_forget(struct recent *r, const char *login);

#endif

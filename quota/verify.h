/* Threads that hash: passwords to be verified, and new ones. Jobs are taken in
 * order, their ends told on the loop. */
#ifndef POSTERN_QUOTA_VERIFY_H
#define POSTERN_QUOTA_VERIFY_H

#include <event2/event.h>

#include "core/err.h"
#include "core/list.h"
#include "quota/hash.h"
#include "quota/scram.h"

struct verify;

struct verify_job {
    struct list link;
    char password[PASSWORD_MAX + 1]; /* wiped when it is done */
    size_t password_len;
    bool make; /* a new hash; otherwise `hash` is compared with */
    /* SCRAM keys of the password as well: of a new one, or of one that matches. 0: none. */
    uint32_t scram_iterations;
    bool salted; /* with this salt */
    unsigned char scram_salt[SCRAM_SALT];
    char hash[HASH_TEXT_MAX + 1];
    char scram[SCRAM_TEXT_MAX + 1];                  /* empty: none were made */
    enum hash_verdict verdict;                       /* of make: HASH_MATCH when it was made */
    void (*done)(struct verify_job *job, void *arg); /* frees the job */
    void *arg;
};

struct verify *verify_new(struct event_base *base, unsigned threads, struct err *e);
/* Ends the threads; what they have not begun is dropped. */
void verify_free(struct verify *v);
/* Takes a job; false if `limit` are waiting. */
bool verify_add(struct verify *v, struct verify_job *job, size_t limit);
size_t verify_waiting(const struct verify *v);

#endif

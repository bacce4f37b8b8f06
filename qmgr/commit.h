/*
 * A message on its way into the spool, from smtpd or a notice of our own: checks
 * what came, builds the message and its spool form, and hands it to the store.
 */
#ifndef POSTERN_QMGR_COMMIT_H
#define POSTERN_QMGR_COMMIT_H

#include "core/refusal.h"
#include "qmgr/qmgr.h"

enum commit_state {
    COMMIT_GATHERING,  /* recipients came, COMMIT did not yet */
    COMMIT_OPENING,    /* a large message's file is being made */
    COMMIT_OPEN,       /* its file is being written by smtpd */
    COMMIT_COMMITTING, /* at the store */
    COMMIT_ABORTED     /* given up while the store was at it */
};

struct commit {
    struct list link; /* of its smtpd, or in the free list */
    struct store_commit c;
    struct qmgr *q;
    struct smtpd *smtpd; /* NULL: a notice, or the channel is gone */
    struct message *m;   /* reserves the ID; NULL while gathering */
    struct body *body;
    struct buf gathered; /* encoded ipc_rcpt records of ipc_commit_rcpts */
    struct buf scratch;  /* spool form: recipients, client, message-id */
    uint64_t tag;
    size_t charged; /* bytes of credit it takes */
    uint32_t gathered_count;
    int large_fd;
    uint8_t state;
    /* a notice's end */
    void (*done)(const char *error, void *arg);
    void *arg;
};

struct commit *commit_new(struct qmgr *q);
/* Frees it (the struct is kept for reuse) and what it still owns, except m. */
void commit_release(struct commit *c);

/* Why nothing can be taken in this state of the spool; NULL: it can. */
const struct refusal *commit_state_refusal(int spool_state);
extern const struct refusal refusal_id_in_use;

/* Checks a COMMIT against its limits. -1: the peer broke the rules (*e). */
int commit_check(const struct commit *c, const struct ipc_commit *in, struct err *e);
/* Builds message, envelope and spool form. c->m exists. */
int commit_build(struct commit *c, const struct ipc_commit *in, struct err *e);
/* Hands c to the store; `done` is called on the loop. */
void commit_submit(struct commit *c,
                   void (*done)(struct store_commit *, const char *, int, void *));

#endif

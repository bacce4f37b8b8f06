/*
 * smtpd's channels: COMMITs to the spool, answers and credits; and committing what is not from
 * smtpd.
 */
#ifndef POSTERN_QMGR_INTAKE_H
#define POSTERN_QMGR_INTAKE_H

#include "qmgr/qmgr.h"

void intake_peer(struct qmgr *q, unsigned slot, unsigned pid, int fd);
/* Where mynetworks_account is empty now, sessions of the smtpd processes that there are may hear
 * from quota that their mail is nobody's, and stay with that when it is set again. */
void intake_reload(struct qmgr *q);
/* Tells every smtpd what the state is, if it changed. */
void intake_state(struct qmgr *q);
int intake_current_state(const struct qmgr *q);

/* Commits a notice under `id`; on success it is in the queue when done is called. */
void intake_commit_notice(struct qmgr *q, const struct id *id, const struct message *about,
                          struct slice recipient, uint32_t flags, struct slice content,
                          void (*done)(const char *error, void *arg), void *arg);
/* Commits a report of our own to a stranger: a message with the null sender. */
void intake_commit_report(struct qmgr *q, struct slice recipient, struct slice content,
                          void (*done)(const char *error, void *arg), void *arg);

/* The same for a message that is about none and nobody's. Never takes the place of a file that
 * has this ID. flags: also MESSAGE_LETTER. */
void intake_commit_own(struct qmgr *q, const struct id *id, struct slice recipient, uint32_t flags,
                       struct slice content, void (*done)(const char *error, void *arg), void *arg);

#endif

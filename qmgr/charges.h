/* What quota is told and asked: charges, and the source pools of accounts. Part of qmgr.h. */
#ifndef POSTERN_QMGR_CHARGES_H
#define POSTERN_QMGR_CHARGES_H

#include "qmgr/qmgr.h"

/* ---- charges.c --------------------------------------------------------------------------- */

void charges_init(struct qmgr *q);
void charges_peer(struct qmgr *q, int fd);
/* A message became durable, or was found by the scan with what its status bytes say. added:
 * bytes of its body that the client did not send. */
void charges_committed(struct qmgr *q, struct message *m, uint64_t added);
void charges_found(struct qmgr *q, struct message *m, const struct store_found *found);
/* Recipients' ways ended. */
void charges_over(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                  enum spool_status status);
/* It goes without having been delivered to those that are left. Its file has to stay until that
 * is known (charges_known). */
void charges_lost(struct qmgr *q, struct message *m);
/* Whether quota has, durably, what it cannot find out without m's file. */
bool charges_known(const struct qmgr *q, const struct message *m);
/* The same; if not, m is settled again when it does. */
bool charges_wait(struct qmgr *q, struct message *m);
void charges_turn(struct qmgr *q);

/* ---- pools.c ----------------------------------------------------------------------------- */

void pools_init(struct qmgr *q);
/* The source pool of m's account, as far as it is known: empty: the default one. Valid
 * until the next call. */
struct slice pools_name(struct qmgr *q, const struct message *m);
/* Whether m has to wait for it; then it is planned anew when the answer comes, and its
 * wait ends at pools_due (0: it does not wait). */
bool pools_wait(struct qmgr *q, struct message *m);
int64_t pools_due(struct qmgr *q, const struct message *m);
void pools_connected(struct qmgr *q); /* quota's channel is new */
/* What quota said last of an account: deliveries at a time and recipients a second at one
 * destination; 0: no limit. */
void pools_limits(const struct qmgr *q, struct slice account, uint32_t *connections, double *rate);
/* Asks again about accounts with mail in line, if something may have changed. */
void pools_turn(struct qmgr *q);
int64_t pools_next_due(const struct qmgr *q);
int pools_answer(struct qmgr *q, struct slice body, struct err *e);

#endif

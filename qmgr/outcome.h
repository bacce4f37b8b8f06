/* What a delivery comes to: outcomes of recipients, when they are tried again, and the
 * notices about them. Part of qmgr.h. */
#ifndef POSTERN_QMGR_OUTCOME_H
#define POSTERN_QMGR_OUTCOME_H

#include "qmgr/qmgr.h"

/* ---- outcome.c, retry.c -------------------------------------------------------------- */

/* What a job (or the lack of one) came to, for log lines. */
struct attempt {
    const struct site *site; /* or NULL */
    struct slice host, address, tls;
    struct slice source; /* our address, as text; empty: the system chose it */
    uint8_t tls_status;  /* enum tls_peer_status */
    uint16_t port;
    uint32_t use_count;
    int64_t sent; /* monotonic: handed to relay; 0: now */
    uint64_t wait_us, connect_us, transfer_us;
    bool dsn_taken_over, lmtp;
    /* for the event log: what rules made of it */
    uint64_t delivery;       /* number; 0: nothing was tried */
    const struct rule *rule; /* that matched the reply, or NULL */
    uint32_t judged; /* the recipient + 1 whose reply the shaper goes by; 0: none of these */
    bool acts;       /* that one's rule does; else it only counts */
};

void outcome_sent(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                  struct answer *a, const struct attempt *t);
/* not_before: earliest next attempt (monotonic), 0: by back-off; record: make
 * it durable (a real attempt) or not (the site was suspended). */
void outcome_deferred(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                      struct answer *a, const struct attempt *t, int64_t not_before, bool record);
void outcome_failed(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                    struct answer *a, const struct attempt *t);
/* Fails without an attempt: expiry. */
void outcome_expired(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count);

/* Microseconds to wait after `attempts` attempts, with jitter. */
int64_t retry_backoff(const struct config *c, unsigned attempts);
/* Evenly distributed from 0 to below span. */
int64_t retry_jitter(int64_t span);
/* Since it arrived; microseconds. */
int64_t retry_age(const struct qmgr *q, const struct message *m);
/* Whether its lifetime is over. That begins anew when a message is released or undeleted: what
 * was not tried, for the account's rate or by the operator's word, gets all of its attempts. */
bool retry_expired(const struct qmgr *q, const struct message *m);
/* Whether it is older than the delay warning time, time on hold included. */
bool retry_is_late(const struct qmgr *q, const struct message *m);
/* When a recipient that waits would expire, wall microseconds. */
int64_t retry_until(const struct qmgr *q, const struct message *m);

/* ---- notices.c -------------------------------------------------------------------------- */

void notices_init(struct qmgr *q);
void notices_peer(struct qmgr *q, int fd);
/* Starts the notices that m owes, if none is under way. True if one is under way. */
bool notices_start(struct qmgr *q, struct message *m);
void notices_turn(struct qmgr *q);
/* Whether m is a notice of ours. */
bool notices_is_one(const struct message *m);
/* When the scan is over, before a notice that it found is delivered: recipients
 * of m whose notice is in the queue, made before a crash, are done (F10). The
 * caller settles m. */
void notices_found(struct qmgr *q, struct message *m);
/* Whether anybody hears of a failure of m: its sender, or for a notice whoever
 * gets double bounces. */
bool notices_has_reader(const struct qmgr *q, const struct message *m);

#endif

/*
 * A mail transaction: all that MAIL, RCPT and the content have said, and where
 * qmgr's part of it stands. It ends in one place, tx_reset, whatever ends it:
 * RSET, EHLO, a refusal, the answer of qmgr, a lost connection (B19).
 */
#ifndef POSTERN_SMTPD_TRANSACTION_H
#define POSTERN_SMTPD_TRANSACTION_H

#include "core/buf.h"
#include "core/id.h"
#include "smtp/address.h"
#include "smtp/params.h"
#include "smtpd/link.h"

struct content;
struct check_run;
struct forward;
struct gate;
struct session;

struct transaction {
    struct id id;    /* text is empty between transactions */
    int64_t arrival; /* wall microseconds */
    struct buf sender, envid;
    struct buf rcpts; /* encoded ipc_rcpt records, as COMMIT carries them */
    uint32_t rcpt_count;
    uint32_t refused;        /* RCPTs that were not accepted */
    uint32_t flags;          /* enum message_flag */
    uint8_t ret;             /* enum dsn_ret */
    uint64_t size;           /* MAIL's SIZE; 0: not given */
    struct forward *forward; /* what XFORWARD said before MAIL; or NULL */
    struct buf prepend;      /* header lines that policy servers add */
    struct check_run *run;   /* see restrictions.h; or NULL */
    struct gate *gate;       /* of an account; or NULL */
    struct content *content;
    struct link_message at_qmgr;
};

void tx_init(struct transaction *tx);
/* MAIL was accepted. */
void tx_begin(struct transaction *tx, const struct smtp_path *sender, const struct mail_params *p);
/* RCPT was accepted; 0, or -1 when there is no room for one more. */
int tx_add_recipient(struct session *s, struct slice address, const struct rcpt_params *p);
/* The only recipient's address; empty if there are more or none. */
struct slice tx_single_recipient(const struct transaction *tx);
/* Ends the session's transaction: qmgr forgets what it has of it, nothing of it
 * is left here, and the next one may begin. */
void tx_reset(struct session *s);
/* Whether nothing of a transaction is left; the tests' oracle. */
bool tx_is_clean(const struct transaction *tx);

#endif

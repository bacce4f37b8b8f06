/*
 * Alerts: what rules with `alert = true` matched. Each event (a rule at a destination) is
 * told once an hour: a warning in the log, and a mail to error_notice_recipient, if there is
 * one. Alerts that come within half a minute make one mail, and there are at most
 * ALERTS_MAILS_HOUR of these an hour.
 */
#ifndef POSTERN_QMGR_ALERTS_H
#define POSTERN_QMGR_ALERTS_H

#include "qmgr/qmgr.h"

enum {
    ALERTS_MAX = 1000,            /* events that are known; the oldest is forgotten */
    ALERTS_PERIOD_SECONDS = 3600, /* an event is told again so long after it was told */
    ALERTS_GATHER_SECONDS = 30,
    ALERTS_MAILS_HOUR = 10,
    ALERTS_TEXT_MAX = 32 * 1024 /* bytes of a mail */
};

struct rule;

void alerts_init(struct qmgr *q);
/* The reply matched the rule. */
void alerts_raise(struct qmgr *q, const struct lane *l, const struct rule *rule,
                  const struct ipc_outcome *o);
/* The pattern of a rule is too costly for a reply: it is skipped. */
void alerts_costly(struct qmgr *q, const struct rule *rule);
/* Mails what has been gathered, when it is time; each turn. */
void alerts_turn(struct qmgr *q);
/* When that is; INT64_MAX: there is nothing to mail. */
int64_t alerts_next_due(const struct qmgr *q);

#endif

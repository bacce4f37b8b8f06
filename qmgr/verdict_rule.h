/* What a rule makes of a reply: for verdict.c, which has the replies without one as well. */
#ifndef POSTERN_QMGR_VERDICT_RULE_H
#define POSTERN_QMGR_VERDICT_RULE_H

#include "qmgr/qmgr.h"
#include "rules/rules.h"

/* The rule that matches, or NULL: our own words match none. */
const struct rule *verdict_find_rule(struct qmgr *q, const struct lane *l,
                                     const struct ipc_outcome *o);
/* Counts an attempt, for rules that act on a fraction of them. */
void verdict_count(struct qmgr *q, const struct job *j);
/* The rule's meaning, into the report. False: it was counted, and does not act yet. */
bool verdict_by_rule(struct qmgr *q, const struct job *j, const struct rule *rule,
                     const struct ipc_outcome *o, struct shaper_report *r);

#endif

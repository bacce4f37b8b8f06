/*
 * What the result of a delivery says of the destination, and of each recipient, by the rules of
 * providers.conf.
 */
#ifndef POSTERN_QMGR_VERDICT_H
#define POSTERN_QMGR_VERDICT_H

#include "qmgr/qmgr.h"

/* What a result says of the destination. */
struct verdict {
    struct shaper_report report;
    const struct rule *rule; /* that said so, or NULL */
    bool acts;               /* it does; else it was counted (after, fraction) */
    bool failed;             /* `worst` is there: an outcome that was no success */
    struct ipc_outcome worst;
    uint32_t again; /* the first of the job's recipients that had got a refusal in words that no
                     * rule knows (odd.h), or UINT32_MAX */
};
void verdict_of(struct qmgr *q, struct job *j, const struct ipc_result *in, struct verdict *out);
/* What becomes of a recipient. */
struct fate {
    int64_t after;   /* microseconds until it is tried again; 0: as usual; -1: as soon as
                      * the lane allows */
    int64_t since;   /* the first refusal of this kind in a row */
    bool greylisted; /* as in struct answer */
    bool odd;
    const struct rule *rule; /* that matched its reply, or NULL */
};
/* What rules make of a recipient's outcome: may change o->status. */
void verdict_recipient(struct qmgr *q, const struct job *j, const struct verdict *v,
                       struct ipc_outcome *o, struct fate *fate);
/* Until when to try this job is known to be in vain, because it is greylisted; 0: it is not. */
int64_t verdict_in_vain(const struct qmgr *q, const struct lane *l, const struct job *j);
/* Whether it goes before others: it was refused before, and its time has come. */
bool verdict_goes_first(const struct job *j);

#endif

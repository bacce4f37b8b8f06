/*
 * What is used, and what may still be: the arithmetic of plans. Pure: the caller
 * keeps the numbers and says what time it is.
 *
 * What is sent beyond the plan's volume in a period is first taken from grants
 * (packages that were bought, credits), those first that end first; the rest is
 * overage. What is refunded goes the other way: overage shrinks first, then the
 * grants get back what they gave in that period, latest end first, and no more than
 * what is refunded.
 *
 * The running period is reckoned as a whole by the plan that the account has now. One
 * that is over stays reckoned by the plan that it had then, which its usage remembers:
 * a refund that comes late neither bills it anew nor touches what was bought since.
 */
#ifndef POSTERN_PLAN_CHARGE_H
#define POSTERN_PLAN_CHARGE_H

#include "plan/period.h"

/* Volume in the two units that plans count. */
struct volume {
    uint64_t messages, bytes;
};

/* What of a plan a period is billed by. */
struct plan_terms {
    char plan[PLAN_NAME_MAX + 1]; /* its name; empty: they are not known */
    uint64_t messages, bytes;     /* 0: unlimited */
    uint64_t overage_block;       /* messages or bytes; 0: none */
    bool overage_bytes;
};

/* What a period has of one grant. */
struct plan_taken {
    uint64_t grant; /* its ID */
    uint64_t amount;
    uint8_t unit; /* enum grant_unit */
};
enum { PLAN_TAKEN_MAX = 16 }; /* grants of one period; what further ones gave has no name */

/* What an account used in one period. */
struct plan_usage {
    struct period period;
    struct plan_terms terms;
    struct volume charged; /* reserved and delivered */
    struct volume delivered, refunded;
    struct volume granted; /* of charged: taken from grants */
    uint32_t alerts;       /* bit i: alert_percents[i] was told */
    uint8_t reported;      /* the last multiple of report_percent that was told */
    bool over_told;        /* that overage has begun */
    uint64_t told_of;      /* the volume that all this was told of: plan_capacity */
    struct plan_taken taken[PLAN_TAKEN_MAX]; /* of granted, in the order in which it began */
    unsigned taken_count;
};

enum grant_unit { GRANT_MESSAGES, GRANT_BYTES };
struct grant {
    uint64_t id; /* microseconds since 1970: when it was made */
    uint64_t amount, used;
    int64_t from, until; /* seconds; until is not in it */
    uint8_t unit;        /* enum grant_unit */
    bool bought;         /* what is left of it at the end may be credited */
};

/* What a message to so many recipients is charged. */
struct volume plan_cost(const struct plan *p, uint64_t size, uint64_t recipients);
/* Messages (or bytes) that grants still have at this time. */
uint64_t plan_granted_left(const struct grant *grants, size_t count, uint8_t unit, int64_t now);

enum plan_verdict {
    PLAN_ROOM,    /* all of it is within the plan or grants */
    PLAN_OVERAGE, /* taken, beyond them */
    PLAN_FULL     /* not taken: at_limit = block */
};
/* Whether `cost` may be taken beside what is charged and what is `pending`
 * (reserved in memory only). */
enum plan_verdict plan_check(const struct plan *p, const struct plan_usage *u,
                             const struct grant *grants, size_t count, struct volume pending,
                             struct volume cost, int64_t now);
/* How many messages fit that cost `each`, at most `max`; max if nothing limits. */
uint64_t plan_fit(const struct plan *p, const struct plan_usage *u, const struct grant *grants,
                  size_t count, struct volume pending, struct volume each, uint64_t max,
                  int64_t now);
/* The usage is billed by this plan from now on. True if it was not. */
bool plan_bill_by(const struct plan *p, struct plan_usage *u);
/* What the usage is billed by; where it does not say so (records of before) by this plan. */
struct plan_terms plan_terms_of(const struct plan_usage *u, const struct plan *p);
/* Charges, whatever the limits say: the mail is in the spool. The period is the running one. */
void plan_charge(const struct plan *p, struct plan_usage *u, struct grant *grants, size_t count,
                 struct volume cost, int64_t now);
/* Some of what was charged was delivered, or goes back. The period may be over: a refund is
 * reckoned by plan_terms_of. */
void plan_delivered(struct plan_usage *u, struct volume cost);
void plan_refund(const struct plan *p, struct plan_usage *u, struct grant *grants, size_t count,
                 struct volume cost);

/* What was used beyond plan and grants. */
struct volume plan_overage(const struct plan_terms *t, const struct plan_usage *u);
/* The same in blocks that are begun, of messages or bytes as the block is; 0 without blocks. */
uint64_t plan_overage_blocks(const struct plan_terms *t, const struct plan_usage *u);
/* A number that stands for the volume of plan and grants and for the percents that the owner is
 * told at: it differs when one of them does. Never 0. */
uint64_t plan_capacity(const struct plan *p, const struct grant *grants, size_t count, int64_t now);
/* The volume may have changed since the owner was told last (an upgrade, a package): alerts and
 * reports that are ahead again count as not told. What was told of the same volume stays told,
 * though a refund has lowered what is used. Before a charge. */
void plan_told_anew(const struct plan *p, struct plan_usage *u, const struct grant *grants,
                    size_t count, int64_t now);
/* Percent of the plan and its grants that is used, of the unit that is used most,
 * rounded down; 0 without limits. */
unsigned plan_percent(const struct plan *p, const struct plan_usage *u, const struct grant *grants,
                      size_t count, int64_t now);
/* What of a bought grant that ends is credited: whole units. */
uint64_t plan_credit(const struct plan *p, const struct grant *g);
/* Sorts by end, then by ID: the order in which grants are used. */
void plan_sort_grants(struct grant *grants, size_t count);

#endif

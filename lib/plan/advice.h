/* What of plans.conf is right, and does not do what it seems to. */
#ifndef POSTERN_PLAN_ADVICE_H
#define POSTERN_PLAN_ADVICE_H

#include "plan/plan.h"

/* Calls `found` with a sentence, which is valid during the call, for each setting that has no
 * effect beside the plan's others, or beside message_size_limit (bytes; 0: there is none). `file`
 * goes into the sentences. */
void plans_advise(const struct plans *plans, const char *file, uint64_t message_size_limit,
                  void (*found)(const char *sentence, void *arg), void *arg);

#endif

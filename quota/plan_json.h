/* A plan by the names of its settings. */
#ifndef POSTERN_QUOTA_PLAN_JSON_H
#define POSTERN_QUOTA_PLAN_JSON_H

#include <jansson.h>

#include "plan/plan.h"

/* All that the plan says, "plan" being its name. A new reference. */
json_t *plan_json(const struct plan *p);

#endif

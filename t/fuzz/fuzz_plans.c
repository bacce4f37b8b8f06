/* libraries: postern_core postern_plan */
/* plans.conf, and rules of time zones: any bytes are taken or refused with an error. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "plan/charge.h"

static int lookup(const char *name, char *out, size_t size, void *arg)
{
    (void)arg; /* the name stands for the rule, so that both parsers get any text */
    return snprintf(out, size, "%s", name) < (int)size ? 0 : -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plans plans;
    struct err e = {0, ""};
    if (plans_parse(slice_make(data, size), "plans.conf", lookup, NULL, &plans, &e) < 0) {
        if (!e.text[0])
            abort();
        return 0;
    }
    for (size_t i = 0; i < plans.count; i++) {
        struct period p = plan_period_at(&plans.list[i], 1700000000, 1800000000);
        if (p.start > 1800000000 || p.end <= 1800000000)
            abort();
        struct plan_usage u = {.period = p};
        plan_charge(&plans.list[i], &u, NULL, 0, plan_cost(&plans.list[i], 5000, 3), 1800000000);
    }
    plans_free(&plans);
    return 0;
}

/* Plans from the text of their options, for the tests of lib/plan. */
#ifndef POSTERN_PLAN_WORLD_H
#define POSTERN_PLAN_WORLD_H

#include <stdio.h>
#include <stdlib.h>

#include "core/mem.h"
#include "plan/charge.h"
#include "unit.h"

static inline int zones(const char *name, char *out, size_t size, void *arg)
{
    static const struct {
        const char *name, *rule;
    } known[] = {{"UTC", "UTC0"},
                 {"Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"},
                 {"America/New_York", "EST5EDT,M3.2.0,M11.1.0"},
                 {"Australia/Sydney", "AEST-10AEDT,M10.1.0,M4.1.0/3"},
                 {"Asia/Kolkata", "IST-5:30"},
                 {"America/Nuuk", "<-02>2<-01>,M3.5.0/-1,M10.5.0/0"}};
    (void)arg;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, name) == 0) {
            snprintf(out, size, "%s", known[i].rule);
            return 0;
        }
    return -1;
}

static inline struct plan parsed(const char *options)
{
    struct plans all;
    struct err e = {0, ""};
    char *text = xasprintf("plan p {\n%s\n}\n", options);
    if (plans_parse(slice_str(text), "plans.conf", zones, NULL, &all, &e) < 0)
        fail_msg("%s", e.text);
    free(text);
    assert_int_equal(all.count, 1);
    struct plan p = all.list[0];
    plans_free(&all);
    return p;
}

static const int64_t now = 1774782000; /* 2026-03-29 13:00 CEST */

static inline struct plan_usage fresh(const struct plan *p)
{
    return (struct plan_usage){.period = plan_period_at(p, 0, now)};
}

static inline void print(char out[64], const struct plan *p, int64_t t)
{
    struct buf b = BUF_INIT(64);
    plan_print_time(&b, p, t);
    snprintf(out, 64, "%.*s", SLICE_ARG(buf_slice(&b)));
    buf_free(&b);
}

#endif

/* libraries: postern_core postern_plan */
/* Random charges and refunds: the books are kept. */
#include "plan_world.h"

static uint64_t used_of(const struct grant *g, size_t n, uint8_t unit)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        if (g[i].unit == unit)
            sum += g[i].used;
    return sum;
}

/* Up to five, in the order in which they are used; how many. */
static size_t random_grants(struct grant g[static 5])
{
    size_t n = (size_t)random() % 6;
    for (size_t i = 0; i < n; i++)
        g[i] = (struct grant){.id = i,
                              .amount = (uint64_t)random() % 200,
                              .unit = random() % 2 ? GRANT_MESSAGES : GRANT_BYTES,
                              .from = now - 5,
                              .until = now + random() % 100};
    plan_sort_grants(g, n);
    return n;
}

/* Random charges and refunds: nothing is lost, invented, or used twice. */
static void test_random_sequences_keep_the_books(void **state)
{
    (void)state;
    srandom(42);
    for (int round = 0; round < 300; round++) {
        struct plan p = parsed("at_limit = block\nbyte_minimum = 10KB\noverage = block:10");
        p.messages = (uint64_t)random() % 300;
        p.bytes = random() % 2 ? (uint64_t)random() % 5000000 : 0;
        p.at_limit = (uint8_t)(random() % 3);
        struct plan_usage u = fresh(&p);
        struct grant g[5];
        struct volume open[400], sum = {0, 0};
        size_t n = random_grants(g), opened = 0;
        int64_t t = now;
        for (int step = 0; step < 400; step++, t += random() % 2) {
            if (opened && random() % 3 == 0) {
                size_t k = (size_t)random() % opened;
                sum.messages -= open[k].messages;
                sum.bytes -= open[k].bytes;
                plan_refund(&p, &u, g, n, open[k]);
                open[k] = open[--opened];
            } else {
                struct volume v =
                    plan_cost(&p, (uint64_t)random() % 40000, 1 + (uint64_t)random() % 4);
                enum plan_verdict verdict = plan_check(&p, &u, g, n, (struct volume){0, 0}, v, t);
                uint64_t fit = plan_fit(&p, &u, g, n, (struct volume){0, 0},
                                        plan_cost(&p, v.bytes / v.messages, 1), 100, t);
                if (p.at_limit == AT_LIMIT_BLOCK)
                    assert_int_equal(fit >= v.messages, verdict == PLAN_ROOM);
                if (verdict == PLAN_FULL)
                    continue;
                struct volume before = plan_overage(&u.terms, &u);
                plan_charge(&p, &u, g, n, v, t);
                struct volume after = plan_overage(&u.terms, &u);
                if (verdict == PLAN_ROOM &&
                    (after.messages > before.messages || after.bytes > before.bytes))
                    fail_msg("room was promised");
                sum.messages += v.messages;
                sum.bytes += v.bytes;
                open[opened++] = v;
            }
            assert_int_equal(u.charged.messages, sum.messages);
            assert_int_equal(u.charged.bytes, sum.bytes);
            assert_int_equal(u.granted.messages, used_of(g, n, GRANT_MESSAGES));
            assert_int_equal(u.granted.bytes, used_of(g, n, GRANT_BYTES));
            for (size_t i = 0; i < n; i++)
                assert_true(g[i].used <= g[i].amount);
            uint64_t over = p.messages && sum.messages > p.messages ? sum.messages - p.messages : 0;
            assert_int_equal(plan_overage(&u.terms, &u).messages + u.granted.messages, over);
            if (p.at_limit == AT_LIMIT_BLOCK)
                assert_true(opened == 0 || plan_percent(&p, &u, g, n, t) <= 100 || t > now);
        }
        while (opened) /* all given back: as if nothing had been */
            plan_refund(&p, &u, g, n, open[--opened]);
        assert_int_equal(u.charged.messages, 0);
        assert_int_equal(used_of(g, n, GRANT_MESSAGES) + used_of(g, n, GRANT_BYTES), 0);
    }
}

/* ---- the plan changes between a charge and its refund ---------------------------------- */

struct life {
    struct plan plans[3];
    struct plan_usage periods[3];
    struct grant grants[8];
    size_t grant_count;
    struct {
        struct volume cost;
        unsigned period;
    } open[300];
    size_t opened;
};

static void life_charge(struct life *l, unsigned period, int64_t t)
{
    const struct plan *p = &l->plans[random() % 3];
    struct volume v = {1 + (uint64_t)random() % 4, 0};
    v.bytes = v.messages * ((uint64_t)random() % 5000);
    plan_charge(p, &l->periods[period], l->grants, l->grant_count, v, t);
    l->open[l->opened].cost = v;
    l->open[l->opened++].period = period;
}

/* A refund, under whatever plan the account has by now. */
static void life_refund(struct life *l, unsigned running)
{
    size_t k = (size_t)random() % l->opened;
    unsigned period = l->open[k].period;
    struct volume cost = l->open[k].cost;
    struct plan_usage *u = &l->periods[period], before = *u;
    struct grant grants[8];
    uint64_t back[2] = {0, 0};
    memcpy(grants, l->grants, sizeof grants);
    plan_refund(&l->plans[random() % 3], u, l->grants, l->grant_count, cost);
    for (size_t i = 0; i < l->grant_count; i++) {
        const struct grant *g = &l->grants[i];
        assert_true(g->used <= grants[i].used); /* a refund never takes */
        back[g->unit] += grants[i].used - g->used;
        if (g->from >= u->period.end) /* bought since: as it was */
            assert_int_equal(g->used, grants[i].used);
    }
    assert_true(back[GRANT_MESSAGES] <= cost.messages && back[GRANT_BYTES] <= cost.bytes);
    assert_int_equal(before.granted.messages - u->granted.messages, back[GRANT_MESSAGES]);
    assert_int_equal(before.granted.bytes - u->granted.bytes, back[GRANT_BYTES]);
    assert_string_equal(before.terms.plan, u->terms.plan); /* billed as it was */
    assert_int_equal(before.terms.messages, u->terms.messages);
    if (period < running) {
        struct volume was = plan_overage(&before.terms, &before), is = plan_overage(&u->terms, u);
        assert_true(is.messages <= was.messages && is.bytes <= was.bytes);
    }
    l->open[k] = l->open[--l->opened];
}

static void life_check(const struct life *l)
{
    uint64_t messages = 0, bytes = 0;
    for (unsigned i = 0; i < 3; i++) {
        messages += l->periods[i].granted.messages;
        bytes += l->periods[i].granted.bytes;
        assert_true(l->periods[i].granted.messages <= l->periods[i].charged.messages);
    }
    assert_int_equal(messages, used_of(l->grants, l->grant_count, GRANT_MESSAGES));
    assert_int_equal(bytes, used_of(l->grants, l->grant_count, GRANT_BYTES));
    for (size_t i = 0; i < l->grant_count; i++)
        assert_true(l->grants[i].used <= l->grants[i].amount);
}

static void test_random_plan_changes_between_charge_and_refund(void **state)
{
    (void)state;
    srandom(4711);
    for (int round = 0; round < 300; round++) {
        struct life l = {.grant_count = 0};
        int64_t t = now;
        for (int i = 0; i < 3; i++) {
            l.plans[i] = parsed("at_limit = surcharge");
            l.plans[i].messages = random() % 3 ? (uint64_t)random() % 100 : 0;
            l.plans[i].bytes = random() % 2 ? (uint64_t)random() % 200000 : 0;
            l.plans[i].name[0] = (char)('a' + i);
        }
        for (unsigned running = 0; running < 3; running++, t = l.periods[running - 1].period.end) {
            l.periods[running].period = plan_period_at(&l.plans[0], 0, t);
            for (int step = 0; step < 80; step++) {
                if (random() % 20 == 0 && l.grant_count < 8) {
                    l.grants[l.grant_count++] =
                        (struct grant){.id = (uint64_t)t * 1000000 + l.grant_count,
                                       .amount = (uint64_t)random() % 50000,
                                       .unit = random() % 2 ? GRANT_MESSAGES : GRANT_BYTES,
                                       .from = t,
                                       .until = t + random() % 9999999};
                    plan_sort_grants(l.grants, l.grant_count);
                }
                if (l.opened && random() % 3 == 0)
                    life_refund(&l, running);
                else
                    life_charge(&l, running, t);
                life_check(&l);
            }
        }
        while (l.opened)
            life_refund(&l, 3);
        life_check(&l); /* all given back: as if nothing had been */
        assert_int_equal(used_of(l.grants, l.grant_count, GRANT_MESSAGES), 0);
        assert_int_equal(used_of(l.grants, l.grant_count, GRANT_BYTES), 0);
    }
}

static void test_numbers_never_wrap(void **state)
{
    struct plan p = parsed("messages = 10\nat_limit = block");
    struct plan_usage u = fresh(&p);
    (void)state;
    struct volume huge = plan_cost(&p, UINT64_MAX, UINT32_MAX);
    assert_true(huge.bytes == UINT64_MAX);
    plan_charge(&p, &u, NULL, 0, huge, now);
    plan_charge(&p, &u, NULL, 0, huge, now);
    assert_true(u.charged.bytes == UINT64_MAX);
    assert_int_equal(plan_check(&p, &u, NULL, 0, huge, huge, now), PLAN_FULL);
    plan_refund(&p, &u, NULL, 0, huge);
    plan_refund(&p, &u, NULL, 0, huge);
    plan_refund(&p, &u, NULL, 0, huge);
    assert_true(u.charged.bytes == 0 && u.charged.messages == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_sequences_keep_the_books),
        cmocka_unit_test(test_random_plan_changes_between_charge_and_refund),
        cmocka_unit_test(test_numbers_never_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: qmgr_parts */
/*
 * Limits over all sources of a provider (whole.c), and mail that waits for long in a brake's
 * line (brake_expire): a queue manager without processes around it, with a clock that is set
 * by hand and the spool in memory. Two destinations of one provider stand for two sources: what
 * is over all of them holds for both together.
 */
#include <math.h>

#include "qmgr/brakes.h"
#include "qmgr/memory.h"
#include "qmgr/whole.h"
#include "qmgr_rig.h"

static const char rules_text[] =
    "default { start_rate = \"1000/s\" start_connections = 10 connections = 10 }\n"
    "provider big { mx = {\".big.test\"} total_connections = 3 total_message_rate = \"60/s\" }\n"
    "site \"mx1.big.test\" { connections = 9 }\n"
    "site \"mx2.big.test\" { connections = 9 }\n"
    "site \"mx3.big.test\" { connections = 9 }\n"
    "site \"mx4.big.test\" { connections = 9 }\n"
    "site \"mx5.big.test\" { connections = 9 }\n";

static int start(void **state)
{
    (void)state;
    return rig_start(rules_text);
}

/* ---- whole.c ------------------------------------------------------------------------------ */

static void test_three_at_a_time_over_both(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        commit("a@d1.test", "");
        commit("a@d2.test", "");
        now += CLOCK_SECOND;
        turns();
    }
    struct whole *w = lane_of("mx1.big.test")->group->whole;
    assert_ptr_equal(w, lane_of("mx2.big.test")->group->whole);
    assert_int_equal(rig->job_count, 3);
    assert_int_equal(w->shaper.in_flight, 3);
    assert_int_equal(under_way("mx1.big.test") + under_way("mx2.big.test"), 3);
    while (rig->job_count) {
        now += CLOCK_SECOND;
        taken(0);
        assert_true(rig->job_count <= 3);
    }
    assert_int_equal(rig->q.counters.delivered, 8); /* none was forgotten in the line */
    assert_int_equal(w->shaper.in_flight, 0);
}

/* A place that comes free is the one's that has waited longest. */
static void test_who_waits_has_the_next_turn(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        commit("a@d1.test", "");
        now += CLOCK_SECOND;
    }
    turns();
    assert_int_equal(under_way("mx1.big.test"), 3);
    commit("a@d2.test", "");
    now += CLOCK_SECOND;
    turns();
    assert_int_equal(under_way("mx2.big.test"), 0);
    now += CLOCK_SECOND;
    taken(0); /* mx1 stood in line first, then mx2 */
    taken(0);
    now += CLOCK_SECOND;
    turns();
    assert_int_equal(under_way("mx2.big.test"), 1);
}

/* However many lanes each has mail for. */
static void test_accounts_take_turns_not_lanes(void **state)
{
    static const char *const all[] = {"a@d1.test", "a@d2.test", "a@d3.test", "a@d4.test"};
    enum { EACH = 10, TAKEN = 20 };
    unsigned alone = 0;
    (void)state;
    for (int i = 0; i < EACH; i++)
        for (int k = 0; k < 4; k++)
            commit(all[k], "many");
    for (int i = 0; i < TAKEN; i++)
        commit("a@d5.test", "one");
    for (int i = 0; i < TAKEN; i++) {
        now += CLOCK_SECOND;
        turns();
        assert_int_equal(rig->job_count, 3);
        alone += slice_eq(message_account(job_at(0)->m), SLICE("one"));
        taken(0);
    }
    assert_true(alone >= TAKEN / 2 - 3 && alone <= TAKEN / 2 + 3);
}

static struct shaper_report report_of(enum shaper_signal signal, bool of_all)
{
    return (struct shaper_report){.signal = signal,
                                  .started = now,
                                  .recipients = signal == SHAPER_OK,
                                  .use_count = 1,
                                  .time = 3600 * CLOCK_SECOND,
                                  .of_all = of_all};
}

static void test_a_cut_is_of_one_or_of_all(void **state)
{
    (void)state;
    commit("a@d1.test", "");
    struct lane *l = lane_of("mx1.big.test");
    struct whole *w = l->group->whole;
    struct shaper_report r = report_of(SHAPER_TOO_FAST, false);
    double rate = w->shaper.rate;
    w->shaper.in_flight += 4; /* so many are said to end below */
    assert_int_equal(whole_finished(&rig->q, l, &r).signal, SHAPER_TOO_FAST);
    assert_true(w->shaper.rate >= rate); /* nothing about all of them */
    r.of_all = true;
    assert_int_equal(whole_finished(&rig->q, l, &r).signal, SHAPER_NEUTRAL);
    assert_true(w->shaper.rate < rate && w->shaper.failed_rate > 0);
    r = report_of(SHAPER_TOO_LONG, true); /* of one connection, whatever its scope */
    assert_int_equal(whole_finished(&rig->q, l, &r).signal, SHAPER_TOO_LONG);
    assert_int_equal(w->shaper.messages, 0);
    r = report_of(SHAPER_TOO_MANY, true);
    assert_int_equal(whole_finished(&rig->q, l, &r).signal, SHAPER_NEUTRAL);
    assert_true(w->shaper.window_failed > 0);
}

static void test_told_to_stay_away_all_do(void **state)
{
    (void)state;
    commit("a@d1.test", "");
    commit("a@d2.test", "");
    struct lane *first = lane_of("mx1.big.test"), *second = lane_of("mx2.big.test");
    struct whole *w = first->group->whole;
    now += CLOCK_SECOND;
    queue_tick(&rig->q);
    struct shaper_report r = report_of(SHAPER_GO_AWAY, true);
    w->shaper.in_flight++;
    assert_int_equal(whole_finished(&rig->q, first, &r).signal, SHAPER_GO_AWAY);
    assert_true(second->shaper.suspended_until > now && w->shaper.suspended_until > now);
    int64_t when;
    assert_true(whole_holds(second, now, &when) && when > now);
    whole_resume(&rig->q, first);
    assert_int_equal(w->shaper.suspended_until, 0);
}

static void test_what_a_whole_has_learned_is_kept(void **state)
{
    (void)state;
    commit("a@d1.test", "");
    struct lane *l = lane_of("mx1.big.test");
    struct whole *w = l->group->whole;
    struct shaper_report r = report_of(SHAPER_TOO_FAST, true);
    struct buf text = BUF_INIT(8192);
    struct err e;
    assert_false(memory_describe_whole(w, &text)); /* nothing yet */
    w->shaper.in_flight++;
    (void)whole_finished(&rig->q, l, &r);
    double failed = w->shaper.failed_rate, rate = w->shaper.rate;
    assert_true(memory_describe_whole(w, &text));
    whole_reset(&rig->q, l);
    assert_true(w->shaper.failed_rate <= 0);
    assert_int_equal(memory_accept(&rig->q, buf_slice(&text), &e), 0);
    memory_apply(&rig->q);
    assert_true(fabs(w->shaper.failed_rate - failed) < 0.01 && fabs(w->shaper.rate - rate) < 0.01);
    assert_int_equal(shaper_window(&w->shaper), 3); /* as configured */
    buf_free(&text);
}

/* ---- brake_expire ------------------------------------------------------------------------- */

static struct brake *slow_down(const char *who)
{
    commit("first@d1.test", who);
    struct group *g = lane_of("mx1.big.test")->group;
    struct brake *b = brakes_add(&rig->q, BRAKE_ACCOUNT, g->stable, g->name, slice_str(who), false);
    g->braked = true;
    b->times.growth = b->times.hold = INT64_C(1000) * 86400 * CLOCK_SECOND; /* stays as it is */
    brake_rate_cut(b, 1, 1e-9, 0, now);
    b->rate = 1e-9; /* none goes */
    taken(0);
    for (int i = 0; i < 3; i++)
        commit("a@d1.test", who);
    assert_int_equal(b->held, 3);
    return b;
}

static void test_late_mail_in_a_brakes_line_is_told_of(void **state)
{
    (void)state;
    struct brake *b = slow_down("shop");
    brake_expire(&rig->q, b);
    assert_int_equal(b->held, 3); /* not yet */
    now += 5 * INT64_C(3600) * CLOCK_SECOND;
    queue_tick(&rig->q);
    brake_expire(&rig->q, b);
    unsigned told = 0;
    list_each(&rig->q.notices.wanted, n) told++;
    assert_int_equal(told, 3);
    brake_expire(&rig->q, b); /* each is told of once */
    unsigned again = 0;
    list_each(&rig->q.notices.wanted, n) again++;
    assert_int_equal(again, 3);
}

static void test_old_mail_in_a_brakes_line_expires(void **state)
{
    (void)state;
    struct brake *b = slow_down("shop");
    now += 6 * INT64_C(86400) * CLOCK_SECOND;
    queue_tick(&rig->q);
    brake_expire(&rig->q, b);
    assert_int_equal(b->held, 0);
    assert_int_equal(rig->q.counters.expired, 3);
    turns();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_three_at_a_time_over_both, start),
        cmocka_unit_test_setup(test_who_waits_has_the_next_turn, start),
        cmocka_unit_test_setup(test_accounts_take_turns_not_lanes, start),
        cmocka_unit_test_setup(test_a_cut_is_of_one_or_of_all, start),
        cmocka_unit_test_setup(test_told_to_stay_away_all_do, start),
        cmocka_unit_test_setup(test_what_a_whole_has_learned_is_kept, start),
        cmocka_unit_test_setup(test_late_mail_in_a_brakes_line_is_told_of, start),
        cmocka_unit_test_setup(test_old_mail_in_a_brakes_line_expires, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

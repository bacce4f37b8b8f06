/* libraries: qmgr_parts */
/*
 * Limits over all sources of a provider (whole.c), and mail that waits for long in a brake's
 * line (brake_expire): a queue manager without processes around it, with a clock that is set
 * by hand and the spool in memory. Two destinations of one provider stand for two sources: what
 * is over all of them holds for both together.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "qmgr/brakes.h"
#include "qmgr/memory.h"
#include "qmgr/relays.h"
#include "qmgr/whole.h"
#include "rules/bundle.h"
#include "t/fuzz/fake_store.h"
#include "unit.h"

static const char rules_text[] =
    "default { start_rate = \"1000/s\" start_connections = 10 connections = 10 }\n"
    "provider big { mx = {\".big.test\"} total_connections = 3 total_message_rate = \"60/s\" }\n"
    "site \"mx1.big.test\" { connections = 9 }\n"
    "site \"mx2.big.test\" { connections = 9 }\n";

enum { TURNS = 8, JOBS_MAX = 64 };

/* Each test has its own. */
static struct rig {
    struct event_base *base;
    struct service service;
    struct qmgr q;
    int smtpd, resolve, relay;
    uint64_t jobs[JOBS_MAX];
    unsigned job_count;
} rigs[8], *rig;

/* ---- the other processes ---------------------------------------------------------------- */

static int attach(void (*give)(int fd))
{
    int ends[2];
    struct err e;
    assert_int_equal(channel_pair(ends, &e), 0);
    give(ends[1]);
    return ends[0];
}

static void give_smtpd(int fd)
{
    intake_peer(&rig->q, 0, 1, fd);
}
static void give_resolve(int fd)
{
    sites_peer(&rig->q, fd);
}
static void give_relay(int fd)
{
    relays_peer(&rig->q, 0, 1, fd);
}

static void send_frame(int fd, struct buf *frame)
{
    assert_true(send(fd, frame->data, frame->len, MSG_NOSIGNAL) > 0);
    buf_free(frame);
}

/* d1.test is at mx1.big.test, d2.test at mx2.big.test. */
static void answer_route(const struct ipc_resolve_request *ask)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), targets = BUF_INIT(1024);
    bool second = slice_ends(ask->recipient, SLICE("d2.test"));
    struct slice host = second ? SLICE("mx2.big.test") : SLICE("mx1.big.test");
    ipc_target_add(&targets, &(struct ipc_target){.host = host,
                                                  .address = second ? SLICE("\x7f\0\0\2")
                                                                    : SLICE("\x7f\0\0\1"),
                                                  .port = 25});
    ipc_resolve_reply_encode(&frame, &(struct ipc_resolve_reply){.tag = ask->tag,
                                                                 .status = RESOLVE_OK,
                                                                 .ttl = 1000000,
                                                                 .nexthop = host,
                                                                 .site = host,
                                                                 .targets = buf_slice(&targets)});
    send_frame(rig->resolve, &frame);
    buf_free(&targets);
}

static void take(const struct ipc_frame *f)
{
    struct ipc_resolve_request r;
    struct ipc_deliver d;
    if (f->number == IPC_NUMBER_ipc_resolve_request && ipc_resolve_request_decode(f->body, &r) == 0)
        answer_route(&r);
    else if (f->number == IPC_NUMBER_ipc_deliver && ipc_deliver_decode(f->body, &d) == 0 &&
             rig->job_count < JOBS_MAX)
        rig->jobs[rig->job_count++] = d.job;
}

static void hear(int fd)
{
    static char packet[1 << 18];
    ssize_t n;
    while ((n = recv(fd, packet, sizeof packet, MSG_DONTWAIT)) > 0) {
        struct slice rest = slice_make(packet, (size_t)n);
        struct ipc_frame f;
        while (ipc_frame_next(&rest, &f) == 1)
            take(&f);
    }
}

static void turns(void)
{
    for (int i = 0; i < TURNS; i++) {
        event_base_loop(rig->base, EVLOOP_NONBLOCK);
        store_turn();
        qmgr_turn(&rig->q); /* with the counters checked, in test builds */
        hear(rig->smtpd);
        hear(rig->resolve);
        hear(rig->relay);
    }
}

static void commit(const char *recipient, const char *account)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), list = BUF_INIT(1024);
    struct id id = id_new();
    now += CLOCK_SECOND; /* nothing waits for a pace */
    ipc_rcpt_add(&list, &(struct ipc_rcpt){.address = slice_str(recipient)});
    ipc_commit_encode(&frame, &(struct ipc_commit){.tag = 1,
                                                   .id = id_slice(&id),
                                                   .arrival = clock_wall(),
                                                   .sender = SLICE("s@src.test"),
                                                   .account = slice_str(account),
                                                   .recipient_count = 1,
                                                   .recipients = buf_slice(&list),
                                                   .body = SLICE("Subject: x\r\n\r\n")});
    send_frame(rig->smtpd, &frame);
    buf_free(&list);
    turns();
}

static struct job *job_at(unsigned n)
{
    return relays_find(&rig->q.relays, rig->jobs[n]);
}

/* The n-th job that relay has is taken, and leaves it. */
static void taken(unsigned n)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), list = BUF_INIT(1024);
    const struct job *j = job_at(n);
    assert_non_null(j);
    ipc_outcome_add(
        &list, &(struct ipc_outcome){
                   .index = j->rcpts[0], .status = OUTCOME_SENT, .stage = STAGE_DOT, .code = 250});
    ipc_result_encode(&frame, &(struct ipc_result){.job = rig->jobs[n],
                                                   .host = SLICE("mx"),
                                                   .use_count = 1,
                                                   .outcomes = buf_slice(&list)});
    rig->jobs[n] = rig->jobs[--rig->job_count];
    send_frame(rig->relay, &frame);
    buf_free(&list);
    turns();
}

static int start(void **state)
{
    struct err e;
    struct buf bundle = BUF_INIT(RULES_BUNDLE_MAX), ready = BUF_INIT(IPC_FRAME_MAX);
    (void)state;
    rig = rig ? rig + 1 : rigs;
    assert_true(rig < rigs + sizeof rigs / sizeof *rigs);
    log_set_level(LOG_LEVEL_PANIC);
    list_init(&calls);
    rig->base = event_base_new();
    rig->service.base = rig->base;
    rig->service.event_log = -1;
    rig->service.config = config_parse(SLICE("myhostname = relay.test\nqueue_directory = /tmp\n"
                                             "delay_warning_time = 4h\n"),
                                       "main.cf", "/tmp", &e);
    assert_non_null(rig->service.config);
    rig->q.store_state = SPOOL_OK;
    qmgr_init(&rig->q, &rig->service);
    rig->q.scanned = true;
    queue_tick(&rig->q);
    assert_int_equal(
        rules_bundle_add(&bundle, "providers.conf", slice_make(rules_text, sizeof rules_text - 1)),
        0);
    struct rules *rules = rules_bundle_load(buf_slice(&bundle), &e);
    if (!rules)
        fail_msg("%s", e.text);
    groups_set_rules(&rig->q, rules);
    buf_free(&bundle);
    rig->smtpd = attach(give_smtpd);
    rig->resolve = attach(give_resolve);
    rig->relay = attach(give_relay);
    ipc_relay_ready_encode(&ready, &(struct ipc_relay_ready){.jobs = JOBS_MAX});
    send_frame(rig->relay, &ready);
    turns();
    return 0;
}

static struct lane *lane_of(const char *group)
{
    list_each(&rig->q.dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (strcmp(l->group->name, group) == 0)
            return l;
    }
    fail_msg("no lane %s", group);
    return NULL;
}

static unsigned under_way(const char *group)
{
    return lane_of(group)->in_flight;
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
        cmocka_unit_test_setup(test_a_cut_is_of_one_or_of_all, start),
        cmocka_unit_test_setup(test_told_to_stay_away_all_do, start),
        cmocka_unit_test_setup(test_what_a_whole_has_learned_is_kept, start),
        cmocka_unit_test_setup(test_late_mail_in_a_brakes_line_is_told_of, start),
        cmocka_unit_test_setup(test_old_mail_in_a_brakes_line_expires, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

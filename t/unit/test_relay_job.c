/* libraries: relay_parts */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "relay_fixture.h"

static const struct verdict no_such_user = {
    .stage = STAGE_RCPT, .code = 550, .enhanced = {"5.1.1", 5}, .text = {"5.1.1 no such user", 18}};

static struct ipc_result result_of(struct job *j)
{
    struct ipc_result m;
    relay_job_done(&rig, j);
    assert_int_equal(ipc_result_decode(slice_from(buf_slice(&rig_result), IPC_HEADER), &m), 0);
    return m;
}

static void test_outcomes_come_back_with_their_indices(void **state)
{
    (void)state;
    rig_start();
    struct job *j = rig_job(3, TRANSPORT_SMTP, SLICE("x"), -1, 1);
    struct verdict sent = {.stage = STAGE_DOT, .code = 250, .text = SLICE("taken")};
    job_decide(j, &j->recipients[1], OUTCOME_FAILED, &no_such_user);
    job_decide_all(j, RECIPIENT_DONE, OUTCOME_SENT, &sent);
    struct ipc_result m = result_of(j);
    struct ipc_cursor c = ipc_list_cursor(m.outcomes);
    struct ipc_outcome o;
    for (unsigned i = 0; i < 3; i++) {
        assert_true(ipc_outcome_next(&c, &o));
        assert_int_equal(o.index, i);
        assert_int_equal(o.status, i == 1 ? OUTCOME_FAILED : OUTCOME_SENT);
        assert_true(slice_eq(o.text, i == 1 ? no_such_user.text : SLICE("taken")));
    }
    assert_false(ipc_outcome_next(&c, &o));
    assert_int_equal(m.job, 7);
    rig_stop();
}

static void test_a_second_outcome_does_not_replace_the_first(void **state)
{
    (void)state;
    rig_start();
    struct job *j = rig_job(1, TRANSPORT_SMTP, SLICE("x"), -1, 1);
    job_decide(j, &j->recipients[0], OUTCOME_FAILED, &no_such_user);
    job_give_up(j);
    struct ipc_result m = result_of(j);
    struct ipc_cursor c = ipc_list_cursor(m.outcomes);
    struct ipc_outcome o;
    assert_true(ipc_outcome_next(&c, &o));
    assert_int_equal(o.status, OUTCOME_FAILED);
    rig_stop();
}

static void test_a_refusal_treated_as_temporary_has_a_temporary_code(void **state)
{
    (void)state;
    rig_start();
    struct job *j = rig_job(1, TRANSPORT_SMTP, SLICE("x"), -1, 1);
    job_note_failure(j, &no_such_user);
    job_give_up(j);
    struct ipc_result m = result_of(j);
    struct ipc_cursor c = ipc_list_cursor(m.outcomes);
    struct ipc_outcome o;
    assert_true(ipc_outcome_next(&c, &o));
    assert_int_equal(o.status, OUTCOME_DEFERRED);
    assert_int_equal(o.code, 550);
    assert_true(slice_eq(o.enhanced, SLICE("4.1.1")));
    assert_int_equal(m.scope, SCOPE_SITE);
    rig_stop();
}

static void test_the_longest_result_fits_a_frame(void **state)
{
    (void)state;
    static char text[64 * 1024];
    rig_start();
    struct job *j = rig_job(JOB_RECIPIENTS_MAX, TRANSPORT_SMTP, SLICE("x"), -1, 1);
    memset(text, 'x', sizeof text);
    for (unsigned i = 0; i < j->recipient_count; i++) {
        memcpy(text, &i, sizeof i); /* no two alike */
        struct verdict v = {.enhanced = SLICE("5.123.123"), .text = {text, sizeof text}};
        job_decide(j, &j->recipients[i], OUTCOME_FAILED, &v);
    }
    struct ipc_result m = result_of(j);
    struct ipc_cursor c = ipc_list_cursor(m.outcomes);
    struct ipc_outcome o;
    unsigned count = 0;
    while (ipc_outcome_next(&c, &o))
        count++;
    assert_int_equal(count, JOB_RECIPIENTS_MAX);
    rig_stop();
}

static void test_B89_jobs_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    struct buf list = BUF_INIT(4096), frame = BUF_INIT(IPC_FRAME_MAX);
    struct ipc_job_rcpt r = {.address = SLICE("r@dst.test")};
    struct err e;
    ipc_job_rcpt_add(&list, &r);
    struct ipc_deliver good = {.recipients = buf_slice(&list), .body = SLICE("x"), .body_len = 1};
    struct ipc_deliver bad[5];
    for (int i = 0; i < 5; i++)
        bad[i] = good;
    bad[0].recipients = SLICE("");
    bad[1].recipients = slice_first(good.recipients, good.recipients.len - 1);
    bad[2].targets = SLICE("junk");
    bad[3].body_len = 2;
    bad[4].transport = TRANSPORT_DISCARD;
    for (int i = 0; i < 5; i++) {
        buf_clear(&frame);
        ipc_deliver_encode(&frame, &bad[i]);
        assert_null(job_new(slice_from(buf_slice(&frame), IPC_HEADER), -1, &e));
        assert_true(slice_starts(slice_str(e.text), SLICE("ipc_deliver with")) || i == 4);
    }
    buf_free(&list);
    buf_free(&frame);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outcomes_come_back_with_their_indices),
        cmocka_unit_test(test_a_second_outcome_does_not_replace_the_first),
        cmocka_unit_test(test_a_refusal_treated_as_temporary_has_a_temporary_code),
        cmocka_unit_test(test_the_longest_result_fits_a_frame),
        cmocka_unit_test(test_B89_jobs_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

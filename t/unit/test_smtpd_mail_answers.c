/* libraries: smtpd_parts */
#include <stdio.h>

#include "smtpd/mail_answers.h"
#include "unit.h"

static struct mail_answers m;

static int setup(void **state)
{
    (void)state;
    mail_answers_init(&m);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mail_answers_free(&m);
    return 0;
}

static struct ipc_mail_answer good(uint32_t recipients)
{
    return (struct ipc_mail_answer){.recipients = recipients,
                                    .size_limit = 7000 + recipients,
                                    .recipient_limit = 70 + recipients,
                                    .more_code = 452,
                                    .more_enhanced = SLICE("4.5.3"),
                                    .more_text = SLICE("Error: enough"),
                                    .good_for = 10000,
                                    .good_size = 1000};
}

static void keep(const char *ticket, const char *sender, struct ipc_mail_answer a)
{
    mail_answers_keep(&m, slice_str(ticket), slice_str(sender), &a);
}

static bool find(const char *ticket, const char *sender, uint64_t size, struct ipc_mail_answer *out)
{
    return mail_answers_find(&m, slice_str(ticket), slice_str(sender), size, out);
}

static void test_the_answer_comes_back(void **state)
{
    struct ipc_mail_answer a;
    (void)state;
    keep("ticket", "a@b.test", good(7));
    assert_true(find("ticket", "a@b.test", 1000, &a));
    assert_int_equal(a.code, 0);
    assert_int_equal(a.recipients, 7);
    assert_int_equal(a.size_limit, 7007);
    assert_int_equal(a.recipient_limit, 77);
    assert_int_equal(a.more_code, 452);
    assert_true(slice_eq(a.more_enhanced, SLICE("4.5.3")));
    assert_true(slice_eq(a.more_text, SLICE("Error: enough")));
    keep("ticket", "a@b.test", good(8)); /* the newer one counts */
    assert_true(find("ticket", "a@b.test", 0, &a));
    assert_int_equal(a.recipients, 8);
    keep("ticket", "", good(9)); /* the null sender */
    assert_true(find("ticket", "", 0, &a));
    assert_int_equal(a.recipients, 9);
}

static void test_ticket_and_sender_cannot_be_mixed_up(void **state)
{
    struct ipc_mail_answer a;
    (void)state;
    keep("ticket", "a@b.test", good(7));
    assert_false(find("ticketa", "@b.test", 0, &a));
    assert_false(find("ticke", "ta@b.test", 0, &a));
    assert_false(find("ticket", "a@b.tes", 0, &a));
    assert_false(find("ticket", "a@b.test", 1001, &a));
}

static void test_what_does_not_hold_is_not_kept(void **state)
{
    char large[600] = {0};
    struct ipc_mail_answer a, bad[] = {good(1), good(1), good(1), good(1), good(1)};
    (void)state;
    memset(large, 'x', sizeof large - 1);
    bad[0].code = 450;
    bad[1].good_for = 0;
    bad[2].good_for = 10001;
    bad[3].more_text = slice_str(large);
    bad[4].more_enhanced = slice_str(large);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        keep("ticket", "a@b.test", bad[i]);
        assert_false(find("ticket", "a@b.test", 0, &a));
    }
    keep(large, "a@b.test", good(1));
    assert_false(find(large, "a@b.test", 0, &a));
    keep("ticket", large, good(1));
    assert_false(find("ticket", large, 0, &a));
}

static void test_memory_is_bounded_and_all_is_forgotten(void **state)
{
    struct ipc_mail_answer a;
    char sender[32];
    (void)state;
    for (int i = 0; i < 5000; i++) {
        snprintf(sender, sizeof sender, "%d@b.test", i);
        keep("ticket", sender, good(1));
        assert_true(find("ticket", sender, 0, &a));
        assert_true(m.all.count <= 1000);
    }
    mail_answers_forget(&m);
    assert_false(find("ticket", sender, 0, &a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_answer_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ticket_and_sender_cannot_be_mixed_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_does_not_hold_is_not_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory_is_bounded_and_all_is_forgotten, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

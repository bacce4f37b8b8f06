/* libraries: postern_core postern_plan */
/* plans.conf: what is taken and what is refused. */
#include "plan_world.h"

static void test_B84_B88_mistakes_name_file_and_line(void **state)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"plan a {\n messages = 10O\n}\n", "plans.conf:2: messages = 10O: give a number"},
        {"plan a {\n bytes = 5XB\n}\n", "plans.conf:2: bytes = 5XB"},
        {"plan a {\n colour = red\n}\n", "plans.conf:2: no such option"},
        {"plan a {\n messages = 1\n messages = 2\n}\n", "plans.conf:3: messages is given twice"},
        {"plan a {\n alerts = {80}\n alerts = {90}\n}\n", "plans.conf:3: alerts is given twice"},
        {"plan a {\n alerts = {90, 80}\n}\n", "plans.conf:2: alerts = 80"},
        {"plan a {\n alerts = {80}\n alerts = {80}\n}\n", "plans.conf:3: alerts is given twice"},
        {"plan a {\n alerts += {80}\n alerts = {90}\n}\n", "plans.conf:3: alerts is given twice"},
        {"plan a {\n messages = 0x10\n}\n", "plans.conf:2: messages = 0x10"},
        {"plan a {\n zone = \"UTC\n}\n", "plans.conf:2: the quoted text that begins here"},
        {"plan a {\n}\nplan a {\n}\n", "plans.conf:"},
        {"plan a {\n zone = \"Mars/Olympus\"\n}\n", "plans.conf:2: zone = Mars/Olympus"},
        {"plan a {\n at_limit = stop\n}\n", "give allow, surcharge or block"},
        {"plan a {\n user_rate = {1/day, 2/day, 3/day, 4/day, 5/day}\n}\n",
         "plans.conf:2: user_rate"},
        {"plan a {\n messages = -1\n}\n", "plans.conf:2: messages = -1"},
        {"plan a {\n messages = 99999999999999999999\n}\n", "plans.conf:2: messages"},
        {"plan a {\n messages = 5\n overage = block:50KB\n}\n",
         "plan a: overage: blocks of bytes need a limit in bytes"},
        {"plan \"\" {\n}\n", "a name has"},
        {"plan a {\n messages = 1\n", "plans.conf"},
        {"include(\"x\")\n", "plans.conf:1"},
        {"plan a {\n source = \"${HOME}\"\n}\n", "plans.conf:2: '$'"},
        {"period = day\n", "plans.conf:1: no such option"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct plans all;
        struct err e = {0, ""};
        if (plans_parse(slice_str(cases[i].text), "plans.conf", zones, NULL, &all, &e) == 0)
            fail_msg("taken: %s", cases[i].text);
        if (!strstr(e.text, cases[i].error))
            fail_msg("\"%s\" has not \"%s\"", e.text, cases[i].error);
        assert_int_equal(all.count, 0);
    }
}

static void test_lists_may_be_added_to_and_numbers_are_decimal(void **state)
{
    (void)state;
    struct plan p = parsed("messages = 010\nalerts = {80}\n# alerts = {85}\nalerts += {90}\n");
    assert_int_equal(p.messages, 10);
    assert_int_equal(p.alert_percents[0], 80);
    assert_int_equal(p.alert_percents[1], 90);
    assert_int_equal(p.alert_percents[2], 0);
}

static void test_shipped_plans(void **state)
{
    static char text[65536];
    struct plans all;
    struct err e = {0, ""};
    (void)state;
    FILE *f = fopen("etc/plans.conf", "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    if (plans_parse(slice_make(text, n), "plans.conf", zones, NULL, &all, &e) < 0)
        fail_msg("%s", e.text);
    const struct plan *p = plans_find(&all, SLICE("mailbox"));
    assert_int_equal(p->user_rates[0].count, 50);
    assert_int_equal(p->user_rates[0].unit, RATE_DAY);
    assert_int_equal(p->user_rates[1].count, 200);
    assert_int_equal(p->user_rates[1].unit, RATE_MONTH);
    assert_int_equal(p->recipient_limit, 50);
    assert_int_equal(p->size_limit, 50000000);
    p = plans_find(&all, SLICE("small-shop"));
    assert_int_equal(p->recipient_limit, 1);
    assert_int_equal(p->rate_action, RATE_QUEUE);
    assert_int_equal(p->account_rates[0].count, 50);
    p = plans_find(&all, SLICE("dedicated"));
    assert_string_equal(p->source, "dedicated-1");
    assert_int_equal(p->end_warnings[0], 30);
    assert_int_equal(p->end_warnings[2], 1);
    assert_int_equal(p->spike_action, SPIKE_HOLD);
    p = plans_find(&all, SLICE("business"));
    assert_int_equal(p->at_limit, AT_LIMIT_SURCHARGE);
    assert_int_equal(p->report_percent, 10);
    assert_int_equal(p->alert_percents[0], 80);
    assert_null(plans_find(&all, SLICE("none")));
    plans_free(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_B84_B88_mistakes_name_file_and_line),
        cmocka_unit_test(test_lists_may_be_added_to_and_numbers_are_decimal),
        cmocka_unit_test(test_shipped_plans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

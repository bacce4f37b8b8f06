/* libraries: postern_rules postern_core */
/* What patterns see of a reply: no address that it echoes. */
#include "rules_world.h"

static void sees(const char *text, const char *wanted)
{
    char out[RULES_SUBJECT_MAX];
    struct slice seen = rules_subject(slice_str(text), out);
    if (!slice_eq(seen, slice_str(wanted)))
        fail_msg("%s: seen as \"%.*s\"", text, SLICE_ARG(seen));
}

static void test_addresses_are_blanked(void **state)
{
    (void)state;
    sees("<rbl@example.com>: Recipient address rejected", "@ Recipient address rejected");
    sees("no such user rbl@example.com", "no such user @");
    sees("failed (a@example.com:blocked) here", "failed @ here");
    sees("a@b,c@d\r\nx@y z", "@\r\n@ z");
    sees("Connections from 192.0.2.1", "Connections from 192.0.2.1");
    sees("", "");
    sees("@", "@");
}

static void test_quoted_local_parts_go_as_a_whole(void **state)
{
    (void)state;
    sees("<\"your ip is blocked\"@example.com>: User unknown", "@ User unknown");
    sees("<\"x@y your ip is blocked z\"@example.com>: no", "@ no");
    sees("<\"a\\\" rbl \\\\\"@example.com> no", "@ no");
    sees("he said \"no\" to \"a b\"@example.com now", "he said \"no\" to @ now");
    sees("\"open and never closed", "\"open and never closed");
    sees("\"closed\" without", "\"closed\" without");
    sees("\"trailing\\", "\"trailing\\");
}

static void test_the_words_behind_a_long_address_are_seen(void **state)
{
    char text[RULES_REPLY_MAX + 100], out[RULES_SUBJECT_MAX];
    (void)state;
    memset(text, 'a', sizeof text);
    memcpy(text + RULES_SUBJECT_MAX, "@example.com blocked ", 21);
    struct slice seen = rules_subject(slice_make(text, RULES_SUBJECT_MAX + 21), out);
    assert_true(seen.len <= RULES_SUBJECT_MAX);
    seen = rules_subject(slice_make(text + 100, RULES_SUBJECT_MAX - 79), out);
    assert_true(slice_eq(seen, SLICE("@ blocked ")));
    memset(text, 'a', sizeof text);
    assert_int_equal(rules_subject(slice_make(text, sizeof text), out).len, RULES_SUBJECT_MAX);
}

static void test_samples_are_judged_without_their_addresses(void **state)
{
    (void)state;
    struct err e = {0, ""};
    struct rules *r = load("rule a { text = 'rbl'  action = \"suspend\"  for = \"5m\"\n"
                           " matches = {\"550 see rbl\"}\n"
                           " passes = {\"550 <rbl@example.com>: User unknown\"} }");
    assert_int_equal(rules_samples_hold(r, &e), 0);
    assert_null(match(r, RULES_RCPT, 0, "550 5.1.1 <rbl@example.com>: User unknown"));
    assert_null(match(r, RULES_RCPT, 0, "550 5.1.1 \"an rbl\"@example.com: User unknown"));
    assert_non_null(match(r, RULES_RCPT, 0, "550 5.7.1 <a@example.com> is in an rbl"));
    rules_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses_are_blanked),
        cmocka_unit_test(test_quoted_local_parts_go_as_a_whole),
        cmocka_unit_test(test_the_words_behind_a_long_address_are_seen),
        cmocka_unit_test(test_samples_are_judged_without_their_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: postern_smtp */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "smtp/policy_reply.h"

static const struct {
    struct slice in;
    enum policy_reply_status status;
    const char *action;
    size_t used;
} replies[] = {
    {SLICE("action=DUNNO\n\n"), POLICY_REPLY_DONE, "DUNNO", 14},
    {SLICE("action=DUNNO\n\naction=OK"), POLICY_REPLY_DONE, "DUNNO", 14},
    {SLICE("later=x\naction= 550 a=b \nmore=\n\n"), POLICY_REPLY_DONE, "550 a=b", 32},
    {SLICE("action=\n\n"), POLICY_REPLY_DONE, "", 9},
    {SLICE("action=a\tb\n\n"), POLICY_REPLY_DONE, "a\tb", 12},
    {SLICE(""), POLICY_REPLY_MORE, "", 0},
    {SLICE("action=DUNNO"), POLICY_REPLY_MORE, "", 0},
    {SLICE("action=DUNNO\n"), POLICY_REPLY_MORE, "", 0},
    {SLICE("\n"), POLICY_REPLY_BAD, "", 0},
    {SLICE("later=x\n\n"), POLICY_REPLY_BAD, "", 0},
    {SLICE("action\n\n"), POLICY_REPLY_BAD, "", 0},
    {SLICE("action=OK\naction=OK\n\n"), POLICY_REPLY_BAD, "", 0},
    {SLICE("action=OK\r\n\r\n"), POLICY_REPLY_BAD, "", 0},
    {SLICE("action=O\0K\n\n"), POLICY_REPLY_BAD, "", 0},
    {SLICE("HTTP/1.1 400 Bad Request\r\n"), POLICY_REPLY_BAD, "", 0},
};

static void test_replies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++) {
        struct slice action;
        size_t used;
        enum policy_reply_status status = policy_reply_parse(replies[i].in, &action, &used);
        if (status != replies[i].status)
            fail_msg("reply %zu: status %d", i, (int)status);
        if (status != POLICY_REPLY_DONE)
            continue;
        assert_int_equal(used, replies[i].used);
        assert_true(slice_eq(action, slice_str(replies[i].action)));
    }
}

static void test_reply_without_end(void **state)
{
    static char text[2 * POLICY_REPLY_MAX];
    struct slice action;
    size_t used;
    (void)state;
    memset(text, 'x', sizeof text);
    memcpy(text, "action=", 7);
    assert_int_equal(policy_reply_parse(slice_make(text, POLICY_REPLY_MAX - 1), &action, &used),
                     POLICY_REPLY_MORE);
    assert_int_equal(policy_reply_parse(slice_make(text, sizeof text), &action, &used),
                     POLICY_REPLY_BAD);
}

static const struct {
    const char *in;
    enum policy_verb verb;
    unsigned code;
    const char *enhanced, *text;
} actions[] = {
    {"DUNNO", POLICY_DUNNO, 0, "", ""},
    {"dunno whatever", POLICY_DUNNO, 0, "", "whatever"},
    {"OK", POLICY_PERMIT, 0, "", ""},
    {"permit", POLICY_PERMIT, 0, "", ""},
    {"REJECT", POLICY_REFUSE, 554, "5.7.1", ""},
    {"REJECT  no mail  ", POLICY_REFUSE, 554, "5.7.1", "no mail"},
    {"REJECT 5.1.1 gone", POLICY_REFUSE, 554, "5.1.1", "gone"},
    {"REJECT 4.1.1 gone", POLICY_REFUSE, 554, "5.1.1", "gone"}, /* the class follows the code */
    {"REJECT 5.1 gone", POLICY_REFUSE, 554, "5.7.1", "5.1 gone"},
    {"REJECT 5.1.1gone", POLICY_REFUSE, 554, "5.7.1", "5.1.1gone"},
    {"REJECT 3.1.1 gone", POLICY_REFUSE, 554, "5.7.1", "3.1.1 gone"},
    {"REJECT 5.1234.1", POLICY_REFUSE, 554, "5.7.1", "5.1234.1"},
    {"DEFER", POLICY_REFUSE, 450, "4.7.1", ""},
    {"451 4.3.5 broken", POLICY_REFUSE, 451, "4.3.5", "broken"},
    {"550", POLICY_REFUSE, 550, "5.7.1", ""},
    {"599 x", POLICY_REFUSE, 599, "5.7.1", "x"},
    {"DEFER_IF_PERMIT 4.2.0 later", POLICY_DEFER_IF_PERMIT, 450, "4.2.0", "later"},
    {"DEFER_IF_REJECT", POLICY_DEFER_IF_REJECT, 450, "4.7.1", ""},
    {"HOLD spam?", POLICY_HOLD, 0, "", "spam?"},
    {"INFO noted", POLICY_LOG, 0, "", "noted"},
    {"PREPEND X-A: b", POLICY_PREPEND, 0, "", "X-A: b"},
    {"PREPEND X-A:", POLICY_PREPEND, 0, "", "X-A:"},
    {"PREPEND X A: b", POLICY_UNSUPPORTED, 0, NULL, NULL},
    {"PREPEND : b", POLICY_UNSUPPORTED, 0, NULL, NULL},
    {"PREPEND X-A b", POLICY_UNSUPPORTED, 0, NULL, NULL},
    {"PREPEND", POLICY_UNSUPPORTED, 0, NULL, NULL},
    {"PREPEND X-A: \303\274", POLICY_UNSUPPORTED, 0, NULL, NULL},
    {"", POLICY_UNSUPPORTED, 0, NULL, NULL},
    {"250 fine", POLICY_UNSUPPORTED, 0, NULL, NULL},
    {"600 x", POLICY_UNSUPPORTED, 0, NULL, NULL},
    {"5500 x", POLICY_UNSUPPORTED, 0, NULL, NULL},
    {"REDIRECT a@b.test", POLICY_UNSUPPORTED, 0, NULL, NULL},
    {"REJECTED", POLICY_UNSUPPORTED, 0, NULL, NULL},
};

static void test_actions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        struct policy_action a;
        policy_action_parse(slice_str(actions[i].in), &a);
        if (a.verb != actions[i].verb || a.code != actions[i].code)
            fail_msg("%s: verb %d, code %d", actions[i].in, (int)a.verb, a.code);
        if (a.verb == POLICY_UNSUPPORTED)
            continue;
        assert_string_equal(a.enhanced, actions[i].enhanced);
        if (!slice_eq(a.text, slice_str(actions[i].text)))
            fail_msg("%s: text %.*s", actions[i].in, SLICE_ARG(a.text));
    }
}

static void test_header_line_too_long(void **state)
{
    char text[8 + POLICY_HEADER_MAX + 1];
    struct policy_action a;
    (void)state;
    memset(text, 'x', sizeof text);
    memcpy(text, "PREPEND A: ", 11);
    policy_action_parse(slice_make(text, sizeof text - 1), &a);
    assert_int_equal(a.verb, POLICY_PREPEND);
    policy_action_parse(slice_make(text, sizeof text), &a);
    assert_int_equal(a.verb, POLICY_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_reply_without_end),
        cmocka_unit_test(test_actions),
        cmocka_unit_test(test_header_line_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

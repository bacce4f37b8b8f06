/* libraries: postern_rules postern_core */
/* Which rule holds for a reply. */
#include "rules_world.h"

static unsigned findings;
static char last_finding[2000];

static void count(const char *text, bool error, void *arg)
{
    (void)arg;
    findings++;
    snprintf(last_finding, sizeof last_finding, "%s%s", error ? "error: " : "warning: ", text);
}

static void test_own_rules_before_others_and_the_stricter_holds(void **state)
{
    struct rules *r = load(
        "provider p { mx = {\".p.test\"} }\n"
        "rule mild { text = 'busy' action = \"slow\" dimension = \"rate\" matches = {\"421 busy\"} "
        "}\n"
        "rule hard { text = 'busy' action = \"suspend\" for = \"5m\" matches = {\"421 busy\"} }\n"
        "rule own { provider = \"p\" text = 'busy' matches = {\"421 busy\"} }\n");
    (void)state;
    assert_string_equal(match(r, RULES_MAIL, 0, "421 4.7.0 busy")->name, "hard");
    assert_string_equal(match(r, RULES_MAIL, 1, "421 4.7.0 busy")->name, "own");
    assert_null(match(r, RULES_MAIL, 1, "421 4.7.0 fine"));
    findings = 0;
    assert_int_equal(rules_check(r, count, NULL), 0);
    assert_int_equal(findings, 1); /* once, at the one that gives way */
    assert_non_null(strstr(last_finding, "warning: a.conf:2: rule mild: contradicts rule hard"));
    rules_free(r);
}

#define BUSY(name, words) "rule " name " { text = 'busy' " words " matches = {\"421 busy\"} }\n"

/* Whichever stands first, one of the two holds, and the other is warned of. */
static void one_holds(const char *strict, const char *loose, const char *why)
{
    for (int turn = 0; turn < 2; turn++) {
        char text[1000], words[200];
        snprintf(text, sizeof text, BUSY("one", "%s") BUSY("two", "%s"), turn ? loose : strict,
                 turn ? strict : loose);
        const char *holds = turn ? "two" : "one";
        struct rules *r = load(text);
        assert_string_equal(match(r, RULES_MAIL, 0, "421 busy")->name, holds);
        findings = 0;
        assert_int_equal(rules_check(r, count, NULL), 0);
        assert_int_equal(findings, 1);
        snprintf(words, sizeof words, "; %s holds, which %s, for: 421 busy", holds, why);
        if (!strstr(last_finding, words))
            fail_msg("\"%s\" is not in: %s", words, last_finding);
        rules_free(r);
    }
}

static void test_the_stricter_holds_in_whatever_order(void **state)
{
    const char *stricter = "is the stricter one";
    (void)state;
    one_holds("action=\"set\" dimension=\"rate\" value=\"1/s\"",
              "action=\"set\" dimension=\"rate\" value=\"100/s\"", stricter);
    one_holds("action=\"slow\" dimension=\"rate\" factor=0.1", "action=\"slow\" dimension=\"rate\"",
              stricter);
    one_holds("action=\"slow\" dimension=\"rate\"", "action=\"slow\" dimension=\"rate\" factor=0.9",
              stricter);
    one_holds("action=\"suspend\" for=\"9h\"", "action=\"suspend\" for=\"1h\"", stricter);
    one_holds("action=\"suspend\" for=\"1h\" scope=\"provider\"", "action=\"suspend\" for=\"1h\"",
              stricter);
    one_holds("action=\"suspend\" for=\"1h\"", "action=\"set\" dimension=\"rate\" value=\"1/d\"",
              stricter);
    one_holds("scope=\"recipient\" outcome=\"retry\"", "scope=\"recipient\" outcome=\"fail\"",
              "keeps the mail");
    one_holds("scope=\"recipient\"", "scope=\"recipient\" outcome=\"fail\"", "keeps the mail");
}

static void test_where_none_is_stricter_the_first_holds(void **state)
{
    struct rules *r = load(BUSY("one", "action=\"slow\" dimension=\"rate\"")
                               BUSY("two", "action=\"slow\" dimension=\"concurrency\""));
    (void)state;
    assert_string_equal(match(r, RULES_MAIL, 0, "421 busy")->name, "one");
    findings = 0;
    assert_int_equal(rules_check(r, count, NULL), 0);
    assert_int_equal(findings, 1);
    assert_non_null(strstr(last_finding, "rule two: contradicts rule one (a.conf:1) in dimension; "
                                         "one holds, which stands first"));
    rules_free(r);
}

/* A sample has no stage: each that both rules have counts. */
static void test_rules_that_meet_at_one_stage_alone_contradict(void **state)
{
    struct rules *r = load("rule a { stage={\"mail\",\"dot\"} text='slow' action=\"suspend\" "
                           "for=\"1m\" matches={\"421 slow\"} }\n"
                           "rule b { stage={\"dot\"} text='slow|fast' matches={\"421 fast\"} }\n"
                           "rule c { stage={\"rcpt\"} text='slow' action=\"suspend\" for=\"3m\" "
                           "matches={\"421 slow\"} }\n");
    (void)state;
    findings = 0;
    assert_int_equal(rules_check(r, count, NULL), 0);
    assert_int_equal(findings, 1);
    assert_non_null(
        strstr(last_finding, "a.conf:2: rule b: contradicts rule a (a.conf:1) in action"));
    rules_free(r);
}

static void test_code_status_stage_must_all_match(void **state)
{
    struct rules *r =
        load("rule r { code = '^45' status = '^4\\.7\\.' stage = {\"rcpt\"} text = 'x'\n"
             "  matches = {\"450 4.7.1 x\"} }");
    (void)state;
    assert_non_null(match(r, RULES_RCPT, 0, "451 4.7.9 x"));
    assert_null(match(r, RULES_MAIL, 0, "451 4.7.9 x"));
    assert_null(match(r, RULES_RCPT, 0, "421 4.7.9 x"));
    assert_null(match(r, RULES_RCPT, 0, "451 4.2.9 x"));
    assert_null(match(r, RULES_RCPT, 0, "451 x"));
    rules_free(r);
}

static void test_samples_are_tried(void **state)
{
    struct rules *r = load("rule r { text = 'x' matches = {\"421 y\"} passes = {\"421 x\"} }");
    (void)state;
    findings = 0;
    assert_int_equal(rules_check(r, count, NULL), 2);
    struct err e = {0, ""};
    assert_int_equal(rules_samples_hold(r, &e), -1);
    assert_string_equal(e.text, "a.conf:1: rule r: does not match its sample: 421 y");
    rules_free(r);
    r = load("rule r { text = 'x' matches = {\"421 x\"} passes = {\"421 y\"} }");
    assert_int_equal(rules_samples_hold(r, &e), 0);
    rules_free(r);
}

static void costly(const struct rule *rule, void *arg)
{
    *(const struct rule **)arg = rule;
}

static void test_a_catastrophic_pattern_is_skipped_and_reported(void **state)
{
    struct rules *r =
        load("rule slow { text = '^(\\w+\\s?)+$(?=y)' action = \"suspend\" for = \"5m\""
             " matches = {\"421 x\"} }\n"
             "rule other { text = 'aaa' matches = {\"421 aaa\"} }");
    const struct rule *reported = NULL;
    char line[1200] = "421 ";
    (void)state;
    memset(line + 4, 'a', 1000);
    strcpy(line + 1004, "!");
    rules_on_costly(r, costly, &reported);
    int64_t before = clock_mono();
    assert_string_equal(match(r, RULES_MAIL, 0, line)->name, "other");
    assert_true(clock_mono() - before < CLOCK_SECOND / 2);
    assert_non_null(reported);
    assert_string_equal(reported->name, "slow");
    rules_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_rules_before_others_and_the_stricter_holds),
        cmocka_unit_test(test_the_stricter_holds_in_whatever_order),
        cmocka_unit_test(test_where_none_is_stricter_the_first_holds),
        cmocka_unit_test(test_rules_that_meet_at_one_stage_alone_contradict),
        cmocka_unit_test(test_code_status_stage_must_all_match),
        cmocka_unit_test(test_samples_are_tried),
        cmocka_unit_test(test_a_catastrophic_pattern_is_skipped_and_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

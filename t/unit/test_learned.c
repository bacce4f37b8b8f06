/* libraries: postern_learned postern_core */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "learned/learned.h"
#include "unit.h"

static void refused(const char *text, const char *words)
{
    struct learned l;
    struct err e = {0, ""};
    assert_int_equal(learned_parse(slice_str(text), &l, &e), -1);
    if (!strstr(e.text, words))
        fail_msg("\"%s\" is not in: %s", words, e.text);
}

static void test_what_is_written_is_read(void **state)
{
    char key[] = "addresses 0123", name[] = "mx.example \"x\"\n", source[] = "192.0.2.1",
         rule[] = "blocked", said[] = "550 5.7.1 blocked \\x1b";
    struct learned l = {.key = key,
                        .name = name,
                        .source = source,
                        .when = 1700000000 * CLOCK_SECOND + 250000,
                        .rate = 19.5,
                        .rate_failed = 20.25,
                        .blind = true,
                        .window = 6,
                        .window_failed = 7,
                        .messages = 100,
                        .period = 3600 * CLOCK_SECOND,
                        .shut_for = 60 * CLOCK_SECOND,
                        .grey_refused = 300 * CLOCK_SECOND,
                        .grey_passed = 600 * CLOCK_SECOND,
                        .grey_first = 300 * CLOCK_SECOND,
                        .suspended_until = 1800000000 * CLOCK_SECOND,
                        .by_hand = true,
                        .blocked = true,
                        .unreachable = true,
                        .rule = rule,
                        .said = said},
                   r;
    struct buf b = BUF_INIT(LEARNED_LINE_MAX);
    struct err e;
    (void)state;
    learned_encode(&l, &b);
    assert_null(memchr(b.data, '\n', b.len));
    assert_int_equal(learned_parse(buf_slice(&b), &r, &e), 0);
    assert_string_equal(r.key, key);
    assert_string_equal(r.name, name);
    assert_string_equal(r.source, source);
    assert_true(r.when == l.when && r.suspended_until == l.suspended_until);
    assert_true(fabs(r.rate - l.rate) < 0.001 && fabs(r.rate_failed - l.rate_failed) < 0.001);
    assert_true(r.blind && r.by_hand && r.blocked && r.unreachable);
    assert_string_equal(r.rule, rule);
    assert_string_equal(r.said, said);
    assert_true(r.window == 6 && r.window_failed == 7 && r.messages == 100);
    assert_true(r.period == l.period && r.shut_for == l.shut_for);
    assert_true(r.grey_refused == l.grey_refused && r.grey_passed == l.grey_passed &&
                r.grey_first == l.grey_first);
    learned_free(&r);
    buf_free(&b);
}

static void test_what_is_not_known_is_left_out(void **state)
{
    struct learned r;
    struct err e;
    (void)state;
    assert_int_equal(learned_parse(SLICE("{\"key\":\"k\",\"name\":\"n\",\"newer\":[1]}"), &r, &e),
                     0);
    assert_string_equal(r.source, "");
    assert_true(r.rate <= 0 && r.window == 0 && !r.by_hand);
    learned_free(&r);
}

static void test_nonsense_is_refused(void **state)
{
    static const char *const rows[][2] = {
        {"", "not one JSON object"},
        {"[]", "not one JSON object"},
        {"{\"key\":\"k\"}", "no \"name\""},
        {"{\"key\":\"\",\"name\":\"n\"}", "no \"key\""},
        {"{\"key\":\"k\",\"key\":\"l\",\"name\":\"n\"}", "not one JSON object"},
        {"{\"key\":\"k\",\"name\":\"n\",\"rate\":-1}", "\"rate\" is not a number"},
        {"{\"key\":\"k\",\"name\":\"n\",\"rate\":1e7}", "\"rate\" is not a number"},
        {"{\"key\":\"k\",\"name\":\"n\",\"connection_rate\":1e-38}",
         "is neither 0 nor at least 1e-06"},
        {"{\"key\":\"k\",\"name\":\"n\",\"rate\":\"1\"}", "\"rate\" is not a number"},
        {"{\"key\":\"k\",\"name\":\"n\",\"concurrency\":1e18}", "\"concurrency\" is not"},
        {"{\"key\":\"k\",\"name\":\"n\",\"when\":1e300}", "\"when\" is not a number"},
        {"{\"key\":\"k\",\"name\":\"n\",\"period\":1e12}", "\"period\" is not a number"},
        {"{\"key\":\"k\",\"name\":\"n\",\"by_hand\":1}", "neither true nor false"},
        {"{\"key\":\"k\\u0000x\",\"name\":\"n\"}", "not"},
        {"{\"key\":7,\"name\":\"n\"}", "\"key\" is not a text"},
    };
    char big[4000];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        refused(rows[i][0], rows[i][1]);
    int n = snprintf(big, sizeof big, "{\"key\":\"k\",\"name\":\"%02000d\"}", 0);
    assert_true(n > 0);
    refused(big, "\"name\" is not a text of at most");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_what_is_not_known_is_left_out),
        cmocka_unit_test(test_nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

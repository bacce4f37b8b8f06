/* libraries: postern_mail postern_core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "mail/dsn_field.h"
#include "mail/dsn_words.h"

static void test_status_grammar(void **state)
{
    (void)state;
    static const struct {
        const char *status;
        bool valid;
    } rows[] = {
        {"5.1.1", true},     {"4.0.0", true},   {"2.999.999", true}, {"", false},
        {"5", false},        {"5.1", false},    {"5.1.", false},     {"3.1.1", false},
        {"5.1000.1", false}, {"5..1", false},   {"5.1.1 ", false},   {"5.1.1.1", false},
        {"+5.1.1", false},   {"5.-1.1", false}, {"55.1.1", false},   {"5.1.1000", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(dsn_status_valid(slice_str(rows[i].status)), rows[i].valid);
}

static void test_explanations(void **state)
{
    (void)state;
    static const struct {
        const char *status, *code;
    } rows[] = {
        {"5.1.1", "1.1"},   {"4.2.2", "2.2"},  {"5.1.10", "1.10"}, {"5.1.99", "1.0"},
        {"5.7.999", "7.0"}, {"5.9.9", "0.0"},  {"", "0.0"},        {"junk", "0.0"},
        {"4.4.7", "4.7"},   {"5.10.1", "0.0"}, {"5.1.0", "1.0"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_string_equal(dsn_explain(slice_str(rows[i].status))->code, rows[i].code);
}

static void test_fields_fold_and_stay_inside(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(64 * 1024);
    assert_int_equal(dsn_field(&b, "Name", "type;", SLICE("a\r\nEvil: b\x7f"), false), 0);
    assert_memory_equal(b.data, "Name: type; a??Evil: b?\r\n", b.len);

    char words[3000];
    for (size_t i = 0; i < sizeof words; i++)
        words[i] = i % 10 == 9 ? ' ' : 'w';
    buf_clear(&b);
    assert_int_equal(dsn_field(&b, "Name", "", slice_make(words, sizeof words), false), 0);
    size_t line = 0;
    for (size_t i = 0; i < b.len; i++) {
        line = b.data[i] == '\n' ? 0 : line + 1;
        assert_true(line <= DSN_LINE_FOLD + 2);
        if (b.data[i] == '\n' && i + 1 < b.len)
            assert_int_equal(b.data[i + 1], ' ');
    }

    memset(words, 'x', sizeof words);
    buf_clear(&b);
    assert_int_equal(dsn_field(&b, "Name", "", slice_make(words, sizeof words), false), 0);
    line = 0;
    for (size_t i = 0; i < b.len; i++) {
        line = b.data[i] == '\n' ? 0 : line + 1;
        assert_true(line <= DSN_LINE_MAX + 1);
    }
    buf_free(&b);
}

static void test_xtext(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(256);
    dsn_add_xtext(&b, SLICE("a+b=c d\n"));
    assert_memory_equal(b.data, "a+2Bb+3Dc+20d+0A", b.len);
    buf_clear(&b);
    dsn_add_utf8_xtext(&b, SLICE("\xc3\xa4@\xe2\x82\xac\xf0\x9f\x98\x80\xff"));
    assert_memory_equal(b.data, "\\x{E4}@\\x{20AC}\\x{1F600}?", b.len);
    buf_free(&b);
}

static void test_utf8_is_strict(void **state)
{
    (void)state;
    assert_true(dsn_is_utf8(SLICE("\xc3\xa4 ok")));
    assert_false(dsn_is_utf8(SLICE("\xc0\xaf")));         /* overlong */
    assert_false(dsn_is_utf8(SLICE("\xe0\x80\x80")));     /* overlong */
    assert_false(dsn_is_utf8(SLICE("\xed\xa0\x80")));     /* surrogate */
    assert_false(dsn_is_utf8(SLICE("\xf4\x90\x80\x80"))); /* past U+10FFFF */
    assert_false(dsn_is_utf8(SLICE("\xe2\x82")));         /* cut short */
}

static void test_full_buffer_fails(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(16);
    assert_int_equal(dsn_field(&b, "Name", "type;", SLICE("value that is longer"), false), -1);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_grammar),
        cmocka_unit_test(test_explanations),
        cmocka_unit_test(test_fields_fold_and_stay_inside),
        cmocka_unit_test(test_xtext),
        cmocka_unit_test(test_utf8_is_strict),
        cmocka_unit_test(test_full_buffer_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

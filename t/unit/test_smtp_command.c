/* libraries: postern_core postern_smtp */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "smtp/command.h"

static void test_commands_are_split(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        enum smtp_verb verb;
        const char *argument;
    } cases[] = {
        {"EHLO host.example", VERB_EHLO, "host.example"},
        {"mail FROM:<a@b>", VERB_MAIL, "FROM:<a@b>"},
        {"QUIT  \t", VERB_QUIT, ""},
        {"  NOOP   x  y ", VERB_NOOP, "x  y"},
        {"STARTTLS", VERB_STARTTLS, ""},
        {"MAILX FROM:<a@b>", VERB_UNKNOWN, "FROM:<a@b>"},
        {"", VERB_UNKNOWN, ""},
        {"GET / HTTP/1.1", VERB_HTTP, "/ HTTP/1.1"}, /* B36 */
        {"post /x HTTP/1.0", VERB_HTTP, "/x HTTP/1.0"},
        {"CONNECT a:25 HTTP/1.0", VERB_HTTP, "a:25 HTTP/1.0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct smtp_command c;
        assert_int_equal(command_parse(slice_str(cases[i].line), &c), 0);
        assert_int_equal(c.verb, cases[i].verb);
        assert_true(slice_eq(c.argument, slice_str(cases[i].argument)));
    }
    assert_string_equal(command_name(VERB_BDAT), "BDAT");
    assert_string_equal(command_name(VERB_UNKNOWN), "UNKNOWN");
}

static void test_B06_control_bytes_in_a_command(void **state)
{
    (void)state;
    static const struct slice lines[] = {
        {"NO\0OP", 5},  {"NOOP a\0", 7},  {"NOOP\x01", 5}, {"RCPT TO:<a\rb@c>", 16},
        {"EHLO\ta", 6}, {"NOOP \x7f", 6}, {"\x1b[2J", 4},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct smtp_command c;
        assert_int_equal(command_parse(lines[i], &c), -1);
        assert_int_equal(c.verb, VERB_UNKNOWN);
    }
}

static void test_lines_are_found(void **state)
{
    (void)state;
    struct line_reader r;
    struct slice in = SLICE("EHLO a\r\nNOOP\nQUI"), line;
    size_t n;
    line_init(&r, COMMAND_LINE_MAX);
    assert_int_equal(line_next(&r, in, &n, &line), LINE_READY);
    assert_int_equal(n, 8);
    assert_true(slice_eq(line, SLICE("EHLO a")));
    in = slice_from(in, n);
    assert_int_equal(line_next(&r, in, &n, &line), LINE_READY);
    assert_int_equal(n, 5);
    assert_true(slice_eq(line, SLICE("NOOP")));
    in = slice_from(in, n);
    assert_int_equal(line_next(&r, in, &n, &line), LINE_MORE);
    assert_int_equal(n, 0);
    assert_int_equal(line_next(&r, SLICE(""), &n, &line), LINE_MORE);
    assert_int_equal(line_next(&r, SLICE("\r\n"), &n, &line), LINE_READY);
    assert_int_equal(line.len, 0);
}

static void test_B07_long_command_line(void **state)
{
    (void)state;
    struct line_reader r;
    struct slice line;
    size_t n;
    char *text = xmalloc(COMMAND_DISCARD_MAX);
    memset(text, 'x', COMMAND_DISCARD_MAX);

    /* as long as allowed, its end included */
    line_init(&r, COMMAND_LINE_MAX);
    text[COMMAND_LINE_MAX - 1] = '\n';
    assert_int_equal(line_next(&r, slice_make(text, COMMAND_LINE_MAX), &n, &line), LINE_READY);
    /* one more, in one piece */
    text[COMMAND_LINE_MAX - 1] = 'x';
    text[COMMAND_LINE_MAX] = '\n';
    assert_int_equal(line_next(&r, slice_make(text, COMMAND_LINE_MAX + 5), &n, &line),
                     LINE_TOO_LONG);
    assert_int_equal(n, COMMAND_LINE_MAX + 1);
    text[COMMAND_LINE_MAX] = 'x';
    /* in pieces, then the next line is read again */
    assert_int_equal(line_next(&r, slice_make(text, COMMAND_LINE_MAX), &n, &line), LINE_MORE);
    assert_int_equal(n, COMMAND_LINE_MAX);
    assert_int_equal(line_next(&r, SLICE("xx\r\nQUIT\r\n"), &n, &line), LINE_TOO_LONG);
    assert_int_equal(n, 4);
    assert_int_equal(line_next(&r, SLICE("QUIT\r\n"), &n, &line), LINE_READY);
    /* without end */
    assert_int_equal(line_next(&r, slice_make(text, COMMAND_DISCARD_MAX), &n, &line), LINE_MORE);
    assert_int_equal(line_next(&r, SLICE("x"), &n, &line), LINE_FLOOD);
    free(text);
}

static void test_B22_bdat_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *argument;
        int rc;
        uint64_t size;
        bool last;
    } cases[] = {
        {"0", 0, 0, false},
        {"1 LAST", 0, 1, true},
        {"86400 last", 0, 86400, true},
        {"18446744073709551615", 0, UINT64_MAX, false},
        {"18446744073709551616", -1, 0, false},
        {"-1", -1, 0, false},
        {"", -1, 0, false},
        {"LAST", -1, 0, false},
        {"5 LASTX", -1, 0, false},
        {"5 LAST LAST", -1, 0, false},
        {"+5", -1, 0, false},
        {"0x10", -1, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t size;
        bool last;
        assert_int_equal(command_bdat(slice_str(cases[i].argument), &size, &last), cases[i].rc);
        if (cases[i].rc == 0) {
            assert_true(size == cases[i].size);
            assert_int_equal(last, cases[i].last);
        }
    }
}

static void test_keyword_and_helo(void **state)
{
    (void)state;
    struct slice argument = SLICE("from: <a@b> SIZE=1");
    assert_int_equal(command_keyword(&argument, SLICE("FROM:")), 0);
    assert_true(slice_eq(argument, SLICE("<a@b> SIZE=1")));
    assert_int_equal(command_keyword(&argument, SLICE("FROM:")), -1);
    char long_name[HELO_MAX + 1];
    memset(long_name, 'a', sizeof long_name);
    assert_true(command_helo_valid(SLICE("host_1.example")));
    assert_true(command_helo_valid(SLICE("[IPv6:::1]")));
    assert_true(command_helo_valid(slice_make(long_name, HELO_MAX)));
    assert_false(command_helo_valid(slice_make(long_name, HELO_MAX + 1)));
    assert_false(command_helo_valid(SLICE("")));
    assert_false(command_helo_valid(SLICE("a b")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands_are_split),
        cmocka_unit_test(test_B06_control_bytes_in_a_command),
        cmocka_unit_test(test_lines_are_found),
        cmocka_unit_test(test_B07_long_command_line),
        cmocka_unit_test(test_B22_bdat_sizes),
        cmocka_unit_test(test_keyword_and_helo),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

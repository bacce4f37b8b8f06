/* libraries: ctl_parts postern_core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "ctl/ctl.h"

/* What main.c supplies: the messages are the business of other tests. */
int ctl_error(int status, const char *format, ...)
{
    (void)format;
    return status;
}
int ctl_usage(const struct ctl_command *c, const char *format, ...)
{
    (void)c, (void)format;
    return CTL_USAGE;
}
void ctl_help(const struct ctl_command *c, FILE *out)
{
    (void)c, (void)out;
}

static void test_durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t seconds; /* -1: refused */
    } rows[] = {
        {"90", 90},     {"90s", 90}, {"15m", 900},   {"2h", 7200}, {"5d", 432000},
        {"1w", 604800}, {"", -1},    {"h", -1},      {"0", -1},    {"-5m", -1},
        {"1.5h", -1},   {"2hh", -1}, {"99999w", -1}, {"10O", -1},  {" 5m", -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t seconds = -1;
        int rc = args_duration(rows[i].text, &seconds);
        assert_int_equal(rc, rows[i].seconds < 0 ? -1 : 0);
        assert_int_equal(seconds, rows[i].seconds);
    }
}

static void test_moments(void **state)
{
    static const char *const wrong[] = {
        "",        "2026-11-31",       "2026-13-01", "yesterday", "2026-11-22x",
        "2026-11", "2026-11-22 25:00", "0h"};
    int64_t day = 0, noon = 0, second = 0, ago = 0;
    (void)state;
    setenv("TZ", "Europe/Berlin", 1);
    tzset();
    assert_int_equal(args_moment("2026-11-22", &day), 0);
    assert_int_equal(day, 1795302000); /* 23:00 UTC of the day before */
    assert_int_equal(args_moment("2026-11-22 12:00", &noon), 0);
    assert_int_equal(noon, day + 43200);
    assert_int_equal(args_moment("2026-11-22 12:00:05", &second), 0);
    assert_int_equal(second, noon + 5);
    assert_int_equal(args_moment("2h", &ago), 0);
    assert_in_range((uint64_t)(time(NULL) - ago), 7200, 7260);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(args_moment(wrong[i], &ago), -1);
}

static void test_options_and_positionals_mix(void **state)
{
    (void)state;
    struct ctl ctl = {0};
    const struct ctl_command command = {.name = "x", .usage = "", .summary = "", .help = ""};
    bool flag = false;
    const char *value = NULL, *other = NULL;
    const struct arg args[] = {{"--flag", &flag, NULL},
                               {"--value", NULL, &value},
                               {"--other", NULL, &other},
                               {NULL, NULL, NULL}};
    char *argv[] = {"one",         "--flag", "--value", "v",     "-",
                    "--other=o=1", "--json", "--",      "--two", NULL};
    assert_int_equal(args_parse(&ctl, &command, args, argv), 3);
    assert_string_equal(argv[0], "one");
    assert_string_equal(argv[1], "-");
    assert_string_equal(argv[2], "--two");
    assert_null(argv[3]);
    assert_true(flag && ctl.json);
    assert_string_equal(value, "v");
    assert_string_equal(other, "o=1");

    char *unknown[] = {"--valu", "v", NULL};
    assert_int_equal(args_parse(&ctl, &command, args, unknown), -1);
    char *no_value[] = {"--value", NULL};
    assert_int_equal(args_parse(&ctl, &command, args, no_value), -1);
    char *flag_value[] = {"--flag=yes", NULL};
    assert_int_equal(args_parse(&ctl, &command, args, flag_value), -1);
    char *help[] = {"--help", NULL};
    assert_int_equal(args_parse(&ctl, &command, args, help), -2);
}

static void test_selection_is_never_all_by_mistake(void **state)
{
    (void)state;
    const struct ctl_command command = {.name = "x", .usage = "", .summary = "", .help = ""};
    struct select_args none = {0}, all = {.all = true}, bad_age = {.older_than = "soon"},
                       null_sender = {.sender = "<>"};
    char *nothing[] = {NULL}, *id[] = {"4XyzBbCdfFz0001", NULL}, *bad[] = {"../x", NULL};

    assert_null(select_build(&command, &none, nothing, false));
    assert_null(select_build(&command, &bad_age, nothing, true));
    assert_null(select_build(&command, &none, bad, true));

    json_t *list = select_build(&command, &none, nothing, true);
    assert_true(json_is_true(json_object_get(json_array_get(list, 0), "all")));
    json_decref(list);
    list = select_build(&command, &all, nothing, false);
    assert_true(json_is_true(json_object_get(json_array_get(list, 0), "all")));
    json_decref(list);
    list = select_build(&command, &null_sender, nothing, false);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "sender")), "");
    json_decref(list);
    list = select_build(&command, &none, id, false);
    assert_int_equal(json_array_size(json_object_get(json_array_get(list, 0), "ids")), 1);
    assert_null(json_object_get(json_array_get(list, 0), "all"));
    json_decref(list);
}

static void test_numbers_for_people(void **state)
{
    (void)state;
    char text[64];
    static const struct {
        double value;
        const char *age, *size;
    } rows[] = {{0, "0s", "0"},          {59, "59s", "59"},       {60, "1m", "60"},
                {3700, "1h01m", "3.6K"}, {90000, "1d01h", "88K"}, {-5, "0s", NULL},
                {3e9, NULL, "2.8G"},     {5242880, NULL, "5.0M"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        print_age(text, sizeof text, rows[i].value);
        if (rows[i].age)
            assert_string_equal(text, rows[i].age);
        print_size(text, sizeof text, rows[i].value);
        if (rows[i].size)
            assert_string_equal(text, rows[i].size);
    }
}

static void test_empty_values_select_nothing(void **state)
{
    (void)state;
    static const struct ctl_command command = {.family = "queue", .name = "delete"};
    static const struct select_args rows[] = {
        {.site = "", .all = true},      {.sender = "", .older_than = "1h"},
        {.recipient = "", .all = true}, {.reply = "", .status = "hold"},
        {.site = "", .sender = "<>"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_null(select_build(&command, &rows[i], (char *[]){NULL}, true));
}

/* B44: what a terminal would obey is replaced, what it shows stays. */
static void test_B44_text_is_safe_for_a_terminal(void **state)
{
    (void)state;
    static const struct {
        const char *text, *shown;
    } rows[] = {{"plain", "plain"},
                {"a\033[2Jb\r\n", "a?[2Jb??"},
                {"\xc2\x9b"
                 "2J",
                 "??2J"}, /* U+009B, the same as ESC [ */
                {"\xc3\x9b", "\xc3\x9b"},
                {"caf\xc3\xa9\xc2", "caf\xc3\xa9\xc2"},
                {"\x7f", "?"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *text = NULL;
        size_t len;
        FILE *out = open_memstream(&text, &len);
        print_safe(out, rows[i].text);
        fclose(out);
        assert_string_equal(text, rows[i].shown);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_options_and_positionals_mix),
        cmocka_unit_test(test_selection_is_never_all_by_mistake),
        cmocka_unit_test(test_numbers_for_people),
        cmocka_unit_test(test_empty_values_select_nothing),
        cmocka_unit_test(test_B44_text_is_safe_for_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

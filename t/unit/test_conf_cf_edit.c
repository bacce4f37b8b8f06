/* libraries: postern_conf postern_core */
/* Changing parameters in the text of a main.cf. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conf/cf_edit.h"
#include "conf/cf_lines.h"

static const char sample[] = "# of this relay\n"
                             "myhostname = a.test\n"
                             "mynetworks = 127.0.0.0/8,\n"
                             "# the office\n"
                             "\n"
                             "\t192.0.2.0/24\n"
                             "relayhost=x\n"
                             "# last\n"
                             "relayhost = y\n"
                             "  z";

/* A change of the sample gives this text. */
static void check(enum cf_change_kind kind, const char *what, const char *expected)
{
    struct cf_change change;
    struct buf out = BUF_INIT(CF_FILE_MAX);
    struct err e;
    assert_int_equal(cf_change_parse(&change, kind, slice_str(what), &e), 0);
    assert_int_equal(cf_edit(slice_str(sample), &change, 1, &out, &e), 0);
    buf_addc(&out, '\0');
    assert_string_equal(out.data, expected);
    buf_free(&out);
}

static void test_set(void **state)
{
    (void)state;
    check(CF_SET, "  mynetworks =  [::1]/128  ",
          "# of this relay\nmyhostname = a.test\nmynetworks = [::1]/128\n# the office\n\n"
          "relayhost=x\n# last\nrelayhost = y\n  z\n");
    check(CF_SET, "relayhost=a=b",
          "# of this relay\nmyhostname = a.test\nmynetworks = 127.0.0.0/8,\n# the office\n\n"
          "\t192.0.2.0/24\nrelayhost = a=b\n# last\n");
    check(CF_SET, "relay=",
          "# of this relay\nmyhostname = a.test\nmynetworks = 127.0.0.0/8,\n# the office\n\n"
          "\t192.0.2.0/24\nrelayhost=x\n# last\nrelayhost = y\n  z\nrelay = \n");
}

static void test_remove_and_comment(void **state)
{
    (void)state;
    check(CF_REMOVE, "relayhost",
          "# of this relay\nmyhostname = a.test\nmynetworks = 127.0.0.0/8,\n# the office\n\n"
          "\t192.0.2.0/24\n# last\n");
    check(CF_COMMENT, "mynetworks",
          "# of this relay\nmyhostname = a.test\n#mynetworks = 127.0.0.0/8,\n# the office\n\n"
          "#\t192.0.2.0/24\nrelayhost=x\n# last\nrelayhost = y\n  z\n");
    check(CF_REMOVE, "the",
          "# of this relay\nmyhostname = a.test\nmynetworks = 127.0.0.0/8,\n# the office\n\n"
          "\t192.0.2.0/24\nrelayhost=x\n# last\nrelayhost = y\n  z\n");
}

static void test_of_two_changes_the_last_counts(void **state)
{
    const struct cf_change changes[] = {{CF_SET, SLICE("a"), SLICE("1")},
                                        {CF_SET, SLICE("b"), SLICE("2")},
                                        {CF_SET, SLICE("a"), SLICE("3")}};
    struct buf out = BUF_INIT(CF_FILE_MAX);
    struct err e;
    (void)state;
    assert_int_equal(cf_edit(SLICE("b = 0\n"), changes, 3, &out, &e), 0);
    assert_true(slice_eq(buf_slice(&out), SLICE("b = 2\na = 3\n")));
    buf_free(&out);
}

static void test_what_is_no_change(void **state)
{
    static const struct {
        enum cf_change_kind kind;
        const char *text;
    } wrong[] = {{CF_SET, ""},       {CF_SET, "a"},        {CF_SET, "=b"},     {CF_SET, "a b = c"},
                 {CF_SET, "#a = b"}, {CF_SET, "a = b\nc"}, {CF_SET, "a=\x01"}, {CF_REMOVE, "a=b"},
                 {CF_REMOVE, "a b"}, {CF_REMOVE, ""},      {CF_COMMENT, "#a"}, {CF_COMMENT, " "},
                 {CF_SET, "a=b\rc"}};
    struct cf_change change;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct err e = {0, ""};
        assert_int_equal(cf_change_parse(&change, wrong[i].kind, slice_str(wrong[i].text), &e), -1);
        assert_true(e.text[0]);
    }
}

static void test_a_text_that_gets_too_long(void **state)
{
    const struct cf_change change = {CF_SET, SLICE("a"), SLICE("0123456789")};
    struct buf out = BUF_INIT(12);
    struct err e;
    (void)state;
    assert_int_equal(cf_edit(SLICE("a = 1\n"), &change, 1, &out, &e), -1);
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_remove_and_comment),
        cmocka_unit_test(test_of_two_changes_the_last_counts),
        cmocka_unit_test(test_what_is_no_change),
        cmocka_unit_test(test_a_text_that_gets_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: postern_conf postern_core */
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "conf/sender_class.h"

enum { NORMAL, TRANSACTIONAL, BULK };

static int find(const char *list, const char *sender)
{
    return sender_class_find(slice_str(list), slice_str(sender));
}

static void test_address_before_domain(void **state)
{
    const char *list = "example.com=bulk, reset@Example.com=transactional a=b@x.test=normal";
    (void)state;
    assert_int_equal(find(list, "news@EXAMPLE.com"), BULK);
    assert_int_equal(find(list, "Reset@example.com"), TRANSACTIONAL);
    assert_int_equal(find(list, "a=b@x.test"), NORMAL);
    assert_int_equal(find(list, "b@x.test"), SENDER_CLASS_NONE);
    assert_int_equal(find(list, "x@sub.example.com"), SENDER_CLASS_NONE);
    assert_int_equal(find(list, ""), SENDER_CLASS_NONE);
    assert_int_equal(find(list, "example.com"), SENDER_CLASS_NONE);
    assert_int_equal(find("", "a@example.com"), SENDER_CLASS_NONE);
}

static void test_first_of_two_holds(void **state)
{
    (void)state;
    assert_int_equal(find("d.test=bulk d.test=normal", "a@d.test"), BULK);
    assert_int_equal(find("a@d.test=normal a@d.test=bulk", "a@d.test"), NORMAL);
}

static void test_what_is_wrong_is_named(void **state)
{
    static const char *const wrong[][2] = {{"d.test", "d.test: write address=class"},
                                           {"=bulk", "=bulk: write address=class"},
                                           {"d.test=loud", "d.test=loud: a class is"},
                                           {"ok.test=bulk a@=bulk", "a@: is no address"},
                                           {"@d.test=bulk", "@d.test: is no address"}};
    struct err e;
    (void)state;
    assert_int_equal(sender_class_check(slice_str("a@d.test=bulk, d.test=normal"), &e), 0);
    assert_int_equal(sender_class_check(SLICE(""), &e), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(sender_class_check(slice_str(wrong[i][0]), &e), -1);
        assert_ptr_equal(strstr(e.text, wrong[i][1]), e.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_address_before_domain),
        cmocka_unit_test(test_first_of_two_holds),
        cmocka_unit_test(test_what_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

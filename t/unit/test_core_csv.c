/* libraries: postern_core */
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

#include "core/csv.h"

static void check(const char *text, bool last, const char *wanted)
{
    struct buf b = BUF_INIT(100);
    assert_int_equal(csv_add(&b, slice_str(text), last), 0);
    assert_int_equal(b.len, strlen(wanted));
    assert_memory_equal(b.data, wanted, b.len);
    buf_free(&b);
}

static void test_fields(void **state)
{
    (void)state;
    check("", false, "\"\",");
    check("a,b", false, "\"a,b\",");
    check("say \"x\"", true, "\"say \"\"x\"\"\"\r\n");
    check("a\r\nb\tc\x7f", true, "\"a  b c \"\r\n");
}

static void test_no_formulas(void **state)
{
    (void)state;
    check("=cmd()", false, "\"'=cmd()\",");
    check("+1", false, "\"'+1\",");
    check("-1", false, "\"'-1\",");
    check("@x", false, "\"'@x\",");
    check("a=1", false, "\"a=1\",");
}

static void test_no_room(void **state)
{
    struct buf b = BUF_INIT(4);
    (void)state;
    assert_true(csv_add(&b, SLICE("longer than that"), true) < 0);
    assert_true(b.len <= 4);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_no_formulas),
        cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

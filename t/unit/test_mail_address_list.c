/* libraries: postern_mail */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/mem.h"
#include "mail/address_list.h"

/* The addresses of a list with '|' between, "!" where it cannot be read. */
static void check_by(int (*next)(struct slice *rest, struct buf *out), const char *list,
                     const char *want)
{
    struct slice rest = slice_str(list);
    struct buf address = BUF_INIT(1000), all = BUF_INIT(4000);
    int rc;
    while ((rc = next(&rest, &address)) == 1) {
        if (all.len)
            buf_addc(&all, '|');
        buf_adds(&all, buf_slice(&address));
    }
    if (rc < 0)
        buf_addc(&all, '!');
    if (!slice_eq(buf_slice(&all), slice_str(want)))
        fail_msg("%s: %.*s, not %s", list, SLICE_ARG(buf_slice(&all)), want);
    buf_free(&address);
    buf_free(&all);
}

static void check(const char *list, const char *want)
{
    check_by(address_list_next, list, want);
}

static void test_lists(void **state)
{
    static const struct {
        const char *list, *want;
    } rows[] = {
        {" a@x.test\r\n", "a@x.test"},
        {"a@x, b@y,\r\n\tc@z\r\n", "a@x|b@y|c@z"},
        {"Joe Doe <a@x>, \"Doe, Jane\" <b@y>", "a@x|b@y"},
        {"a@x (at home, mostly), (first) b@y", "a@x|b@y"},
        {"a@x (one (two \\) three) four)", "a@x"},
        {"friends: a@x, B <b@y>; c@z", "a@x|b@y|c@z"},
        {"undisclosed-recipients:;", ""},
        {",, a@x ,,", "a@x"},
        {"\"two words\"@x", "\"two words\"@x"},
        {"\"a\\\"b,c\"@x", "\"a\\\"b,c\"@x"},
        {"postmaster", "postmaster"},
        {"a . b @ x", "a.b@x"},
        {"<@relay.test,@b.test:a@x>", "a@x"},
        {"a@[IPv6:::1], b@[192.0.2.1]", "a@[IPv6:::1]|b@[192.0.2.1]"},
        {"J\xc3\xbcrgen <j\xc3\xbc@x>", "j\xc3\xbc@x"},
        {"", ""},
        {"Joe Doe", "!"},
        {"a@x b@y", "!"},
        {"a@x, Joe <b@y", "a@x!"},
        {"<>", "!"},
        {"<a@x> <b@y>", "!"},
        {"<a@x> behind", "!"},
        {"<a@x, b@y>", "!"},
        {"\"open", "!"},
        {"(open", "!"},
        {"a@x>", "!"},
        {"a@[192.0.2.1", "!"},
        {"<a:b@x>", "!"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check(rows[i].list, rows[i].want);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_by(address_list_named, rows[i].list, rows[i].want);
}

/* The first column with, the second without what a name says. */
static void test_B33_addresses_in_names(void **state)
{
    static const struct {
        const char *list, *named, *plain;
    } rows[] = {
        {"b@y <a@x>", "b@y|a@x", "a@x"},
        {"a@x <a@x>", "a@x|a@x", "a@x"},
        {"Boss b@y of c@z <a@x>, d@w", "b@y|c@z|a@x|d@w", "a@x|d@w"},
        {"b@y<a@x>", "b@y|a@x", "a@x"},
        {"(c) b@y (c) <a@x>", "b@y|a@x", "a@x"},
        {"Joe @ Home <a@x>", "Joe@Home|a@x", "a@x"},
        {"b@y\r\n <a@x>", "b@y|a@x", "a@x"},
        {"\"Boss\" b@y <a@x>", "b@y|a@x", "a@x"},
        {"\"Boss\"b@y <a@x>", "\"Boss\"b@y|a@x", "a@x"},
        {"b\\@y <a@x>", "b\\@y|a@x", "a@x"},
        {"[b@y] <a@x>", "[b@y]|a@x", "a@x"},
        {"'b@y' <a@x>", "'b@y'|a@x", "a@x"},
        {"b@y: a@x;, c@z", "b@y|a@x|c@z", "a@x|c@z"},
        {"=?us-ascii?q?b@y <a@x>", "=?us-ascii?q?b@y|a@x", "a@x"},
        /* legal: what a name in quotes, an encoded word or a comment says is no address */
        {"\"b@y\" <a@x>", "a@x", "a@x"},
        {"\"b\\\"@y\" via list <a@x>", "a@x", "a@x"},
        {"=?utf-8?q?b=40y?= <a@x>", "a@x", "a@x"},
        {"=?utf-8?q?b@y?= =?utf-8?b?YkB5?= <a@x>", "a@x", "a@x"},
        {"a@x (b@y)", "a@x", "a@x"},
        {"Joe (b@y) <a@x>", "a@x", "a@x"},
        {"<@b.test:a@x>", "a@x", "a@x"},
        {"b@y <a@x> c@z", "b@y!", "!"},
        {"b@y <a@x", "b@y!", "!"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_by(address_list_named, rows[i].list, rows[i].named);
        check(rows[i].list, rows[i].plain);
    }
}

static void test_deep_comments_and_long_addresses_are_refused(void **state)
{
    char deep[1001], longest[2001];
    (void)state;
    memset(deep, '(', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    check(deep, "!");
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    check(longest, "!");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_B33_addresses_in_names),
        cmocka_unit_test(test_deep_comments_and_long_addresses_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

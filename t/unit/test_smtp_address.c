/* libraries: postern_core postern_smtp */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "smtp/address.h"

#define L10 "aaaaaaaaaa"
#define L60 L10 L10 L10 L10 L10 L10
#define D60 L60 "." /* 61 bytes */

struct row {
    const char *in;
    unsigned flags;
    enum path_error error;
    const char *address, *domain, *rest;
};

static const struct row rows[] = {
    {"<a@b.example>", PATH_SENDER, PATH_OK, "a@b.example", "b.example", ""},
    {"<A.b+c@B.Example> SIZE=1 BODY=7BIT", PATH_SENDER, PATH_OK, "A.b+c@B.Example", "B.Example",
     " SIZE=1 BODY=7BIT"},
    {"<>", PATH_SENDER, PATH_OK, "", "", ""},
    {"<> RET=FULL", PATH_SENDER, PATH_OK, "", "", " RET=FULL"},
    {"<>", PATH_RECIPIENT, PATH_NULL, "", "", ""},
    {"a@b.example X=1", PATH_SENDER, PATH_OK, "a@b.example", "b.example", " X=1"},
    {"<postmaster>", PATH_RECIPIENT, PATH_OK, "postmaster", "", ""},
    {"<PostMaster>", PATH_RECIPIENT, PATH_OK, "PostMaster", "", ""},
    {"<postmaster>", PATH_SENDER, PATH_NO_DOMAIN, "", "", ""},
    {"<root>", PATH_RECIPIENT, PATH_NO_DOMAIN, "", "", ""},
    /* quoting: only where needed */
    {"<\"a\"@b>", PATH_RECIPIENT, PATH_OK, "a@b", "b", ""},
    {"<\"a\\b.c\"@b>", PATH_RECIPIENT, PATH_OK, "ab.c@b", "b", ""},
    {"<\"a b\"@c>", PATH_RECIPIENT, PATH_OK, "\"a b\"@c", "c", ""},
    {"<\"a\\ b\"@c>", PATH_RECIPIENT, PATH_OK, "\"a b\"@c", "c", ""},
    {"<\"a..b\"@c>", PATH_RECIPIENT, PATH_OK, "\"a..b\"@c", "c", ""},
    {"<\"\"@c>", PATH_RECIPIENT, PATH_OK, "\"\"@c", "c", ""},
    {"<\"x> SIZE=\"@c> N=1", PATH_RECIPIENT, PATH_OK, "\"x> SIZE=\"@c", "c", " N=1"},
    {"<\"a@b\"@c>", PATH_RECIPIENT, PATH_OK, "\"a@b\"@c", "c", ""},
    /* B24 */
    {"<\"a\\\"@b\"@c>", PATH_RECIPIENT, PATH_OK, "\"a\\\"@b\"@c", "c", ""},
    {"<@r:a@b>", PATH_RECIPIENT, PATH_OK, "a@b", "b", ""},
    {"<@r.example,@s.example:a@b>", PATH_RECIPIENT, PATH_OK, "a@b", "b", ""},
    {"<@r>", PATH_RECIPIENT, PATH_BAD_ROUTE, "", "", ""},
    {"<@r:>", PATH_SENDER, PATH_BAD_ROUTE, "", "", ""},
    {"<@r,s:a@b>", PATH_RECIPIENT, PATH_BAD_ROUTE, "", "", ""},
    {"<a@[IPv6:2001:db8::1]>", PATH_RECIPIENT, PATH_OK, "a@[IPv6:2001:db8::1]",
     "[IPv6:2001:db8::1]", ""},
    {"<a@[IPv6:..]>", PATH_RECIPIENT, PATH_BAD_LITERAL, "", "", ""},
    {"<a@[192.0.2.1]>", PATH_RECIPIENT, PATH_OK, "a@[192.0.2.1]", "[192.0.2.1]", ""},
    {"<a@[192.0.2]>", PATH_RECIPIENT, PATH_BAD_LITERAL, "", "", ""},
    {"<a@[192.0.2.1>", PATH_RECIPIENT, PATH_BAD_LITERAL, "", "", ""},
    {"<a@[]>", PATH_RECIPIENT, PATH_BAD_LITERAL, "", "", ""},
    {"<a@[x:y]>", PATH_RECIPIENT, PATH_BAD_LITERAL, "", "", ""},
    {"<;sh@x>", PATH_RECIPIENT, PATH_BAD_LOCAL, "", "", ""},
    {"<|sh@x>", PATH_RECIPIENT, PATH_OK, "|sh@x", "x", ""},
    /* B25 */
    {"<" L60 "aaaa@b>", PATH_RECIPIENT, PATH_OK, L60 "aaaa@b", "b", ""},
    {"<" L60 "aaaaa@b>", PATH_RECIPIENT, PATH_LONG_LOCAL, "", "", ""},
    {"<\"" L60 "aaaa b\"@b>", PATH_RECIPIENT, PATH_LONG_LOCAL, "", "", ""},
    {"<\"" L60 L60 "\"@b>", PATH_RECIPIENT, PATH_LONG_LOCAL, "", "", ""},
    {"<a@" L60 "aaa.b>", PATH_RECIPIENT, PATH_OK, "a@" L60 "aaa.b", L60 "aaa.b", ""},
    {"<a@" L60 "aaaa.b>", PATH_RECIPIENT, PATH_LONG_LABEL, "", "", ""},
    {"<a@" D60 D60 D60 D60 "aaaaaaaaaaa>", PATH_RECIPIENT, PATH_OK,
     "a@" D60 D60 D60 D60 "aaaaaaaaaaa", D60 D60 D60 D60 "aaaaaaaaaaa", ""},
    {"<a@" D60 D60 D60 D60 "aaaaaaaaaaaa>", PATH_RECIPIENT, PATH_LONG_DOMAIN, "", "", ""},
    /* B26 */
    {"<a b@>", PATH_RECIPIENT, PATH_BAD_LOCAL, "", "", ""},
    {"<a@>", PATH_RECIPIENT, PATH_BAD_DOMAIN, "", "", ""},
    {"<@>", PATH_RECIPIENT, PATH_BAD_ROUTE, "", "", ""},
    {"<\"@>", PATH_RECIPIENT, PATH_SYNTAX, "", "", ""},
    /* B27: ordinary characters */
    {"<a%b@c>", PATH_RECIPIENT, PATH_OK, "a%b@c", "c", ""},
    {"<b!a@c>", PATH_RECIPIENT, PATH_OK, "b!a@c", "c", ""},
    {"<a@b@c>", PATH_RECIPIENT, PATH_BAD_DOMAIN, "", "", ""},
    /* B28 */
    {"<\xc3\xa4@b>", PATH_RECIPIENT, PATH_NOT_ASCII, "", "", ""},
    {"<\xc3\xa4@\xc3\xb6.example>", PATH_RECIPIENT | PATH_UTF8, PATH_OK,
     "\xc3\xa4@\xc3\xb6.example", "\xc3\xb6.example", ""},
    {"<\xc3@b>", PATH_RECIPIENT | PATH_UTF8, PATH_BAD_UTF8, "", "", ""},
    {"<a@\xed\xa0\x80.example>", PATH_RECIPIENT | PATH_UTF8, PATH_BAD_UTF8, "", "", ""},
    {"<a@\xc0\xaf>", PATH_RECIPIENT | PATH_UTF8, PATH_BAD_UTF8, "", "", ""},
    /* dots and hyphens */
    {"<.a@b>", PATH_RECIPIENT, PATH_BAD_LOCAL, "", "", ""},
    {"<a.@b>", PATH_RECIPIENT, PATH_BAD_LOCAL, "", "", ""},
    {"<a..b@c>", PATH_RECIPIENT, PATH_BAD_LOCAL, "", "", ""},
    {"<a@b..c>", PATH_RECIPIENT, PATH_BAD_DOMAIN, "", "", ""},
    {"<a@.b>", PATH_RECIPIENT, PATH_BAD_DOMAIN, "", "", ""},
    {"<a@b.>", PATH_RECIPIENT, PATH_BAD_DOMAIN, "", "", ""},
    {"<a@-b>", PATH_RECIPIENT, PATH_BAD_DOMAIN, "", "", ""},
    {"<a@b_c.example>", PATH_RECIPIENT, PATH_OK, "a@b_c.example", "b_c.example", ""},
    {"<a@b c>", PATH_RECIPIENT, PATH_BAD_DOMAIN, "", "", ""},
    {"<a@b/c>", PATH_RECIPIENT, PATH_BAD_DOMAIN, "", "", ""},
    /* brackets */
    {"<a@b", PATH_RECIPIENT, PATH_SYNTAX, "", "", ""},
    {"<a@b>x", PATH_RECIPIENT, PATH_SYNTAX, "", "", ""},
    {"<a@b>>", PATH_RECIPIENT, PATH_SYNTAX, "", "", ""},
    {"<<a@b>>", PATH_RECIPIENT, PATH_SYNTAX, "", "", ""},
    {"", PATH_SENDER, PATH_SYNTAX, "", "", ""},
    {" ", PATH_RECIPIENT, PATH_NULL, "", "", ""},
    {"<\"a\"b@c>", PATH_RECIPIENT, PATH_BAD_LOCAL, "", "", ""},
    {"<\"a\\\">", PATH_RECIPIENT, PATH_SYNTAX, "", "", ""},
};

static void test_B24_B28_paths(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        struct slice in = slice_str(r->in);
        struct smtp_path p;
        enum path_error error = path_parse(&in, r->flags, &p);
        if (error != r->error)
            fail_msg("%s: error %d, not %d", r->in, error, r->error);
        if (!slice_eq(path_address(&p), slice_str(r->address)) ||
            !slice_eq(path_domain(&p), slice_str(r->domain)))
            fail_msg("%s: parsed as %s", r->in, p.text);
        if (error == PATH_OK && !slice_eq(in, slice_str(r->rest)))
            fail_msg("%s: leaves %.*s", r->in, (int)in.len, in.ptr);
        if (error == PATH_OK)
            assert_true(slice_eq(address_domain(path_address(&p)), path_domain(&p)));
    }
}

static void test_refusals_have_codes(void **state)
{
    (void)state;
    for (enum path_error e = PATH_OK + 1; e < PATH_ERROR_COUNT; e++) {
        struct refusal sender = path_refusal(e, PATH_SENDER), rcpt = path_refusal(e, 0);
        assert_true(sender.code == 501 || sender.code == 553);
        assert_int_equal(sender.code, rcpt.code);
        assert_true(strlen(sender.text) > 10);
    }
    assert_string_equal(path_refusal(PATH_SYNTAX, PATH_SENDER).enhanced, "5.1.7");
    assert_string_equal(path_refusal(PATH_LONG_LABEL, PATH_RECIPIENT).enhanced, "5.1.3");
    assert_string_equal(path_refusal(PATH_NOT_ASCII, PATH_RECIPIENT).enhanced, "5.6.7");
}

static void test_domain_of_any_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *address, *local, *domain;
    } cases[] = {
        {"a@b", "a", "b"},
        {"\"a@b\"@c", "\"a@b\"", "c"},
        {"\"a@b\"", "\"a@b\"", ""},
        {"", "", ""},
        {"a", "a", ""},
        {"a@", "a", ""},
        {"@b", "", "b"},
        {"a@b@c", "a@b", "c"},
        {"\"a", "\"a", ""},
        {"\"a\\\"@b", "\"a\\\"", "b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct slice s = slice_str(cases[i].address);
        assert_true(slice_eq(address_domain(s), slice_str(cases[i].domain)));
        assert_true(slice_eq(address_local(s), slice_str(cases[i].local)));
    }
}

static void test_B68_domain_names(void **state)
{
    (void)state;
    assert_true(domain_valid(SLICE("mx1.example"), false));
    assert_true(domain_valid(SLICE("_dmarc.example"), false));
    assert_false(domain_valid(SLICE("a\0b.example"), false));
    assert_false(domain_valid(SLICE("a b.example"), false));
    assert_false(domain_valid(SLICE("a/b.example"), false));
    assert_false(domain_valid(SLICE(""), false));
    assert_false(domain_valid(SLICE("."), false));
    assert_false(domain_valid(SLICE("\xc3\xb6.example"), false));
    assert_true(domain_valid(SLICE("\xc3\xb6.example"), true));
    assert_false(domain_valid(SLICE("\xc3.example"), true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_B24_B28_paths),
        cmocka_unit_test(test_refusals_have_codes),
        cmocka_unit_test(test_domain_of_any_bytes),
        cmocka_unit_test(test_B68_domain_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: postern_domain */
/*
 * Whose domain it is (lib/domain/organisation.c).
 */
#include "domain/organisation.h"
#include "unit.h"

static void is_of(const char *domain, const char *expected)
{
    char out[DOMAIN_NAME_MAX + 1];
    struct slice of = domain_organisation(slice_str(domain), out);
    if (!slice_eq(of, slice_str(expected)))
        fail_msg("%s is of %.*s, not of %s", domain, SLICE_ARG(of), expected);
}

static void test_the_name_under_a_public_suffix(void **state)
{
    (void)state;
    is_of("shop.com", "shop.com");
    is_of("a.b.c.shop.com", "shop.com");
    is_of("news.shop.co.uk", "shop.co.uk");
    is_of("www.city.kobe.jp", "city.kobe.jp"); /* an exception of a wildcard */
    is_of("a.b.c.kobe.jp", "b.c.kobe.jp");
    is_of("pages.me.github.io", "me.github.io"); /* who rents out names is listed, too */
}

static void test_a_name_that_the_list_does_not_know(void **state)
{
    (void)state;
    is_of("a.b.spam.test", "spam.test");
    is_of("spam.test", "spam.test");
}

static void test_what_has_no_owner_stands_for_itself(void **state)
{
    (void)state;
    is_of("", "");
    is_of("com", "com");
    is_of("co.uk", "co.uk");
    is_of("localhost", "localhost");
    is_of("[192.0.2.1]", "[192.0.2.1]");
    is_of("[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]");
    is_of("a..b.test", "a..b.test");
    is_of(".spam.test", ".spam.test");
}

/* However it is written, it is one sender. */
static void test_one_spelling(void **state)
{
    (void)state;
    is_of("News.SHOP.Com", "shop.com");
    is_of("news.shop.com.", "shop.com");
    is_of("b.xn--BCHER-kva.test", "xn--bcher-kva.test");
    is_of("b.b\303\274cher.test", "xn--bcher-kva.test");
    is_of("b.B\303\234cher.test", "xn--bcher-kva.test");
    is_of("b.bu\314\210cher.test", "xn--bcher-kva.test"); /* u and a combining diaeresis */
    is_of("b\357\274\216b\303\274cher.test", "xn--bcher-kva.test"); /* a full-width dot */
}

static void test_bytes_that_are_no_name(void **state)
{
    char out[DOMAIN_NAME_MAX + 1], longer[2 * DOMAIN_NAME_MAX];
    (void)state;
    is_of("\377\376.test", "\377\376.test");
    struct slice with_nul = slice_make("a\0b.test", 8);
    assert_true(slice_eq(domain_organisation(with_nul, out), with_nul));
    struct slice utf8_nul = slice_make("\303\274\0b.test", 9);
    assert_true(slice_eq(domain_organisation(utf8_nul, out), utf8_nul));
    memset(longer, 'a', sizeof longer);
    assert_int_equal(domain_organisation(slice_make(longer, sizeof longer), out).len,
                     DOMAIN_NAME_MAX);
    for (size_t i = 1; i < sizeof longer; i += 2)
        longer[i] = '.';
    struct slice of = domain_organisation(slice_make(longer, sizeof longer), out);
    assert_true(of.len <= DOMAIN_NAME_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_name_under_a_public_suffix),
        cmocka_unit_test(test_a_name_that_the_list_does_not_know),
        cmocka_unit_test(test_what_has_no_owner_stands_for_itself),
        cmocka_unit_test(test_one_spelling),
        cmocka_unit_test(test_bytes_that_are_no_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

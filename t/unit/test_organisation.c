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
}

/* Whoever has one of them has others. */
static void test_all_address_literals_are_one(void **state)
{
    (void)state;
    is_of("[192.0.2.1]", DOMAIN_NO_NAME);
    is_of("[192.0.2.2]", DOMAIN_NO_NAME);
    is_of("[IPv6:2001:DB8::1]", DOMAIN_NO_NAME);
    is_of(DOMAIN_NO_NAME, DOMAIN_NO_NAME);
}

/* Labels that have no A-label form would make any number of senders of one domain. */
static void test_labels_that_no_name_has(void **state)
{
    (void)state;
    is_of("\342\230\2031.spam.test", "spam.test");     /* a snowman */
    is_of("\360\237\230\200x.spam.test", "spam.test"); /* an emoji */
    is_of("\331\240a.spam.test", "spam.test");         /* two directions */
    is_of("\342\230\203.a.\342\230\203.shop.co.uk", "shop.co.uk");
    is_of("\342\230\2031\343\200\202spam\343\200\202test", "spam.test"); /* its dots */
    is_of("\342\230\2031.spam.test\343\200\202", "spam.test");
    is_of("\342\230\203.b\303\274cher.test", "xn--bcher-kva.test");
    is_of("\342\230\203.test", "test");
    is_of("\342\230\203", DOMAIN_NO_NAME);
    is_of("a..b.test", "b.test");
    is_of(".spam.test", "spam.test");
}

/* The part that has been registered stays, however much the others grow. */
static void test_names_that_grow(void **state)
{
    char name[DOMAIN_NAME_MAX + 1], out[DOMAIN_NAME_MAX + 1];
    size_t len = 0;
    (void)state;
    while (len + sizeof "\303\274.spam.test" <= DOMAIN_NAME_MAX) {
        memcpy(name + len, "\303\274.", 3);
        len += 3;
    }
    memcpy(name + len, "spam.test", sizeof "spam.test");
    is_of(name, "spam.test");
    struct slice whole = domain_spelled(slice_str(name), out);
    assert_in_range(whole.len, DOMAIN_NAME_MAX - sizeof "xn--tda", DOMAIN_NAME_MAX);
    assert_true(slice_starts(whole, SLICE("xn--tda.xn--tda.")));
    assert_true(slice_ends(whole, SLICE(".xn--tda.spam.test")));
}

static void test_the_spelling_of_a_whole_name(void **state)
{
    char out[DOMAIN_NAME_MAX + 1];
    (void)state;
    assert_true(slice_eq(domain_spelled(SLICE("\342\230\203.B\303\274cher.Test."), out),
                         SLICE("\342\230\203.xn--bcher-kva.test")));
    assert_true(slice_eq(domain_spelled(SLICE("[192.0.2.1]"), out), SLICE("[192.0.2.1]")));
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
    is_of("\377\376.test", "test");
    struct slice with_nul = slice_make("a\0b.test", 8);
    assert_true(slice_eq(domain_organisation(with_nul, out), SLICE("test")));
    struct slice utf8_nul = slice_make("\303\274\0b.test", 9);
    assert_true(slice_eq(domain_organisation(utf8_nul, out), SLICE("test")));
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
        cmocka_unit_test(test_all_address_literals_are_one),
        cmocka_unit_test(test_labels_that_no_name_has),
        cmocka_unit_test(test_names_that_grow),
        cmocka_unit_test(test_the_spelling_of_a_whole_name),
        cmocka_unit_test(test_one_spelling),
        cmocka_unit_test(test_bytes_that_are_no_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

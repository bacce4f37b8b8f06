/* libraries: resolve_parts */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "resolve/destination.h"

enum {
    MX = DESTINATION_MX,
    HOST = DESTINATION_HOST,
    ADDR = DESTINATION_ADDRESS,
    UNIX = DESTINATION_UNIX
};

static const struct {
    bool lmtp;
    const char *text;
    int kind; /* -1: refused */
    const char *printed;
    uint16_t port;
} next_hops[] = {
    {false, "Example.ORG", MX, "example.org", 25},
    {false, "example.org.", MX, "example.org", 25},
    {false, "example.org:587", MX, "example.org:587", 587},
    {false, "example.org:submission", MX, "example.org:587", 587},
    {false, "[mail.example.org]", HOST, "[mail.example.org]", 25},
    {false, "[mail.example.org]:2525", HOST, "[mail.example.org]:2525", 2525},
    {false, "[192.0.2.1]", ADDR, "[192.0.2.1]", 25},
    {false, "[192.0.2.1]:2525", ADDR, "[192.0.2.1]:2525", 2525},
    {false, "192.0.2.1:26", ADDR, "[192.0.2.1]:26", 26},
    {false, "[2001:db8::1]:26", ADDR, "[2001:db8::1]:26", 26},
    {false, "[IPv6:2001:db8::1]", ADDR, "[2001:db8::1]", 25},
    {false, "2001:db8::1", ADDR, "[2001:db8::1]", 25},
    {false, "inet:[a.example]:26", HOST, "[a.example]:26", 26},
    {true, "inet:a.example:2003", HOST, "[a.example]:2003", 2003},
    {true, "a.example", HOST, "[a.example]", 25},
    {false, "Inet:inet:26", MX, "inet:inet:26", 26},
    {true, "unix:/var/run/lmtp", UNIX, "unix:/var/run/lmtp", 0},
    {false,
     "b\xc3\xbc"
     "cher.example",
     MX, "xn--bcher-kva.example", 25},
    {false, "", -1, NULL, 0},
    {false, "[", -1, NULL, 0},
    {false, "[]", -1, NULL, 0},
    {false, "[a.example", -1, NULL, 0},
    {false, "[a.example]x", -1, NULL, 0},
    {false, "[a.example]:", -1, NULL, 0},
    {false, "a.example:0", -1, NULL, 0},
    {false, "a.example:65536", -1, NULL, 0},
    {false, "a.example:2x", -1, NULL, 0},
    {false, "a..example", -1, NULL, 0},
    {false, "a/b.example", -1, NULL, 0},
    {false, "unix:/x", -1, NULL, 0},
    {true, "unix:x", -1, NULL, 0},
    {false, "1.2.3", -1, NULL, 0},
    {false, "a b c d e", -1, NULL, 0},
};

static void test_next_hops(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof next_hops / sizeof *next_hops; i++) {
        struct destination_defaults defaults = {.lmtp = next_hops[i].lmtp, .port = 25};
        struct destination d[DESTINATIONS_MAX];
        struct err e;
        int n = destination_parse(slice_str(next_hops[i].text), &defaults, d, &e);
        if (next_hops[i].kind < 0) {
            if (n > 0)
                fail_msg("\"%s\" was taken", next_hops[i].text);
            continue;
        }
        if (n != 1)
            fail_msg("\"%s\" was refused: %s", next_hops[i].text, e.text);
        struct buf printed = BUF_INIT(512);
        destination_print(&d[0], 25, &printed);
        if (!slice_eq(buf_slice(&printed), slice_str(next_hops[i].printed)))
            fail_msg("\"%s\" became %.*s", next_hops[i].text, SLICE_ARG(buf_slice(&printed)));
        buf_free(&printed);
        assert_int_equal(d[0].kind, next_hops[i].kind);
        assert_int_equal(d[0].port, next_hops[i].port);
        assert_true(d[0].configured);
    }
}

static void test_several_next_hops(void **state)
{
    struct destination_defaults defaults = {.port = 25};
    struct destination d[DESTINATIONS_MAX];
    struct err e;
    (void)state;
    assert_int_equal(
        destination_parse(SLICE("[a.example], b.example:26 [192.0.2.1]"), &defaults, d, &e), 3);
    assert_int_equal(d[0].kind, HOST);
    assert_int_equal(d[1].port, 26);
    assert_int_equal(d[2].kind, ADDR);
}

static void test_disabled_dns_looks_up_no_mx(void **state)
{
    struct destination_defaults defaults = {.port = 25, .no_mx = true};
    struct destination d[DESTINATIONS_MAX];
    struct err e;
    (void)state;
    assert_int_equal(destination_parse(SLICE("a.example"), &defaults, d, &e), 1);
    assert_int_equal(d[0].kind, HOST);
}

/* B68: what is no name is refused before it is used for anything. */
static void test_B68_bad_names(void **state)
{
    static const char label64[] =
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    char long_name[256] = "", long_label[80];
    static const struct slice bad[] = {{"a\0b.example", 11},
                                       {"a b.example", 11},
                                       {"a/b.example", 11},
                                       {"../etc", 6},
                                       {"", 0},
                                       {".", 1},
                                       {".a", 2},
                                       {"a..b", 4},
                                       {"a.example..", 11},
                                       {"a\n.example", 10},
                                       {"a:b.example", 11},
                                       {"a@b", 3},
                                       {"1.2.3.4", 7},
                                       {"\xff.example", 9},
                                       {"a%b.example", 11},
                                       {"[1.2.3.4", 8}};
    struct domain d;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (domain_parse(bad[i], &d) == 0)
            fail_msg("case %zu was taken as %s", i, d.text);
    snprintf(long_label, sizeof long_label, "%s.example", label64);
    assert_int_equal(domain_parse(slice_str(long_label), &d), -1);
    assert_int_equal(domain_parse(slice_from(slice_str(long_label), 1), &d), 0);
    for (int i = 0; i < 127; i++)
        strcat(long_name, i ? ".a" : "a");
    assert_int_equal(strlen(long_name), 253);
    assert_int_equal(domain_parse(slice_str(long_name), &d), 0);
    strcat(long_name, "b");
    assert_int_equal(domain_parse(slice_str(long_name), &d), -1);
}

static void test_domains_of_recipients(void **state)
{
    struct destination_defaults defaults = {.port = 25};
    struct destination d;
    (void)state;
    assert_int_equal(destination_of_domain(SLICE("[192.0.2.1]"), &defaults, &d), 0);
    assert_int_equal(d.kind, ADDR);
    assert_false(d.configured);
    assert_int_equal(destination_of_domain(SLICE("[IPv6:2001:db8::1]"), &defaults, &d), 0);
    assert_int_equal(d.address_len, 16);
    assert_int_equal(destination_of_domain(SLICE("[IPv6:192.0.2.1]"), &defaults, &d), -1);
    assert_int_equal(destination_of_domain(SLICE("[mail.example]"), &defaults, &d), -1);
    assert_int_equal(destination_of_domain(SLICE("Example.ORG"), &defaults, &d), 0);
    assert_string_equal(d.name.text, "example.org");
}

static void test_keys_tell_destinations_apart(void **state)
{
    static const char *const texts[] = {"a.example",          "[a.example]", "a.example:26",
                                        "[a.example]:26",     "[192.0.2.1]", "[192.0.2.1]:26",
                                        "[::ffff:192.0.2.1]", "b.example"};
    struct destination_defaults defaults = {.port = 25};
    struct destination d[DESTINATIONS_MAX];
    struct buf keys[8];
    struct err e;
    (void)state;
    for (size_t i = 0; i < 8; i++) {
        buf_init(&keys[i], 1024);
        assert_int_equal(destination_parse(slice_str(texts[i]), &defaults, d, &e), 1);
        destination_key(&d[0], &keys[i]);
        for (size_t j = 0; j < i; j++)
            assert_false(slice_eq(buf_slice(&keys[i]), buf_slice(&keys[j])));
    }
    struct buf again = BUF_INIT(1024);
    destination_parse(SLICE("A.example."), &defaults, d, &e);
    destination_key(&d[0], &again);
    assert_true(slice_eq(buf_slice(&again), buf_slice(&keys[0])));
    buf_free(&again);
    for (size_t i = 0; i < 8; i++)
        buf_free(&keys[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_next_hops),
        cmocka_unit_test(test_several_next_hops),
        cmocka_unit_test(test_disabled_dns_looks_up_no_mx),
        cmocka_unit_test(test_B68_bad_names),
        cmocka_unit_test(test_domains_of_recipients),
        cmocka_unit_test(test_keys_tell_destinations_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

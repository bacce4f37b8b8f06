/* libraries: postern_smtp */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "smtp/xattr.h"

static const struct {
    struct slice in;
    int rc;
    enum xattr_name name;
    const char *value; /* NULL: not known */
} cases[] = {
    {SLICE("NAME=mail.src.test"), 1, XATTR_NAME, "mail.src.test"},
    {SLICE("  addr=192.0.2.1 "), 1, XATTR_ADDR, "192.0.2.1"},
    {SLICE("HELO=a+20b+3D"), 1, XATTR_HELO, "a b="},
    {SLICE("LOGIN=a+0D+0Ab+FF"), 1, XATTR_LOGIN, "a??b?"},
    {SLICE("NAME=[UNAVAILABLE]"), 1, XATTR_NAME, NULL},
    {SLICE("ADDR=[tempunavail]"), 1, XATTR_ADDR, NULL},
    {SLICE("IDENT="), 1, XATTR_IDENT, NULL},
    {SLICE(""), 0, 0, NULL},
    {SLICE("   "), 0, 0, NULL},
    {SLICE("NAME"), -1, 0, NULL},
    {SLICE("=x"), -1, 0, NULL},
    {SLICE("COLOUR=red"), -1, 0, NULL},
    {SLICE("NAME=a+2"), -1, 0, NULL},
    {SLICE("NAME=a+XY"), -1, 0, NULL},
    {SLICE("NAME=a=b"), -1, 0, NULL},
};

static void test_attributes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct slice in = cases[i].in;
        struct xattr a = {0};
        if (xattr_next(&in, &a) != cases[i].rc)
            fail_msg("case %zu", i);
        if (cases[i].rc != 1)
            continue;
        assert_int_equal(a.name, cases[i].name);
        assert_int_equal(a.known, cases[i].value != NULL);
        assert_string_equal(a.value, cases[i].value ? cases[i].value : "");
        assert_int_equal(xattr_next(&in, &a), 0);
    }
}

static void test_value_too_long(void **state)
{
    char text[5 + XATTR_VALUE_MAX + 1] = "NAME=";
    struct slice in = slice_make(text, sizeof text);
    struct xattr a = {0};
    (void)state;
    memset(text + 5, 'x', sizeof text - 5);
    assert_int_equal(xattr_next(&in, &a), -1);
    in = slice_make(text, sizeof text - 1);
    assert_int_equal(xattr_next(&in, &a), 1);
    assert_int_equal(a.len, XATTR_VALUE_MAX);
}

static void test_kinds_of_values(void **state)
{
    static const struct {
        const char *value;
        int len; /* of the address; -1: it is none */
    } addresses[] = {{"192.0.2.1", 4},   {"IPV6:2001:db8::1", 16}, {"ipv6:::1", 16}, {"::1", -1},
                     {"IPV6:1.2.3", -1}, {"192.0.2", -1},          {"", -1}};
    struct proxy_endpoint e;
    struct xattr a = {.known = true};
    uint16_t port;
    bool esmtp;
    (void)state;
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        a.len = strlen(addresses[i].value);
        memcpy(a.value, addresses[i].value, a.len + 1);
        assert_int_equal(xattr_address(&a, &e), addresses[i].len < 0 ? -1 : 0);
        if (addresses[i].len > 0)
            assert_int_equal(e.len, addresses[i].len);
    }
    a = (struct xattr){.len = 5, .value = "65535"};
    assert_int_equal(xattr_port(&a, &port), 0);
    assert_int_equal(port, 65535);
    a = (struct xattr){.len = 5, .value = "65536"};
    assert_int_equal(xattr_port(&a, &port), -1);
    a = (struct xattr){.len = 5, .value = "esmtp"};
    assert_int_equal(xattr_protocol(&a, &esmtp), 0);
    assert_true(esmtp);
    a = (struct xattr){.len = 4, .value = "LMTP"};
    assert_int_equal(xattr_protocol(&a, &esmtp), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_value_too_long),
        cmocka_unit_test(test_kinds_of_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

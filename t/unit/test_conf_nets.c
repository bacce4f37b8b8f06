/* libraries: postern_conf postern_core */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

#include "conf/nets.h"

static void test_matches(void **state)
{
    (void)state;
    static const struct {
        const char *list, *address;
        bool expected;
    } rows[] = {
        {"127.0.0.0/8 [::1]/128", "127.255.0.1", true},
        {"127.0.0.0/8 [::1]/128", "128.0.0.1", false},
        {"127.0.0.0/8 [::1]/128", "::1", true},
        {"127.0.0.0/8 [::1]/128", "::2", false},
        {"127.0.0.0/8", "::ffff:127.0.0.1", true},
        {"192.0.2.1", "192.0.2.1", true},
        {"192.0.2.1", "192.0.2.2", false},
        {"192.0.2.128/25", "192.0.2.127", false},
        {"192.0.2.128/25", "192.0.2.128", true},
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"[2001:db8::]/32", "2001:db8::1", true},
        {"!192.0.2.7 192.0.2.0/24", "192.0.2.7", false},
        {"!192.0.2.7 192.0.2.0/24", "192.0.2.8", true},
        {"0.0.0.0/0", "192.0.2.8", true},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "2001:db8::1", true},
        {"::/0", "192.0.2.8", false},
        {"", "127.0.0.1", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct err e = {0, ""};
        struct nets n;
        unsigned char bytes[16];
        int len = network_address(slice_str(rows[i].address), bytes);
        assert_true(len > 0);
        if (nets_parse(&n, rows[i].list, &e) < 0)
            fail_msg("%s", e.text);
        if (nets_match(&n, slice_make(bytes, (size_t)len)) != rows[i].expected)
            fail_msg("%s in \"%s\"", rows[i].address, rows[i].list);
        nets_free(&n);
    }
}

static void test_sockaddr(void **state)
{
    (void)state;
    struct nets n;
    struct err e;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
    struct sockaddr local = {.sa_family = AF_UNIX};
    assert_int_equal(nets_parse(&n, "127.0.0.0/8", &e), 0);
    assert_true(nets_match_sockaddr(&n, (const struct sockaddr *)&in));
    assert_false(nets_match_sockaddr(&n, &local));
    nets_free(&n);
}

static void test_B84_bad_networks(void **state)
{
    (void)state;
    static const char *const rows[] = {"10.0.0.0/33",
                                       "::/129",
                                       "10.0.0.0/",
                                       "10.0.0.0/8x",
                                       "10.0.0/8",
                                       "10.0.0.1/8",
                                       "[::1",
                                       "localhost",
                                       "/8",
                                       "!",
                                       "::1/0x80",
                                       "10.0.0.0/-1",
                                       "10.0.0.0/18446744073709551624",
                                       "2001:db8::1/64"};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct err e = {0, ""};
        struct nets n;
        if (nets_parse(&n, rows[i], &e) == 0)
            fail_msg("accepted: %s", rows[i]);
        assert_true(strlen(e.text) > 0);
        assert_null(n.list);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches),
        cmocka_unit_test(test_sockaddr),
        cmocka_unit_test(test_B84_bad_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

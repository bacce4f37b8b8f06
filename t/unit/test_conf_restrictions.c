/* libraries: postern_conf */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "conf/endpoint.h"
#include "conf/restrictions.h"

static void test_elements_in_order(void **state)
{
    struct slice list = SLICE(
        "permit_mynetworks, check_policy_service inet:127.0.0.1:10040\n check_policy_service "
        "{ unix:private/policy, timeout=10s, policy_context=out, { default_action = 451 4.3.5 "
        "wait a bit } }, reject");
    struct restriction r;
    struct err e = {0, ""};
    (void)state;
    assert_int_equal(restriction_next(&list, &r, &e), 1);
    assert_int_equal(r.kind, RESTRICTION_PERMIT_NETWORKS);
    assert_int_equal(restriction_next(&list, &r, &e), 1);
    assert_int_equal(r.kind, RESTRICTION_SERVICE);
    assert_true(slice_eq(r.endpoint, SLICE("inet:127.0.0.1:10040")));
    assert_int_equal(r.timeout, 0);
    assert_int_equal(r.default_action.len, 0);
    assert_int_equal(restriction_next(&list, &r, &e), 1);
    assert_true(slice_eq(r.endpoint, SLICE("unix:private/policy")));
    assert_int_equal(r.timeout, 10);
    assert_true(slice_eq(r.context, SLICE("out")));
    assert_true(slice_eq(r.default_action, SLICE("451 4.3.5 wait a bit")));
    assert_int_equal(restriction_next(&list, &r, &e), 1);
    assert_int_equal(r.kind, RESTRICTION_REJECT);
    assert_int_equal(restriction_next(&list, &r, &e), 0);
}

static void test_mistakes_say_what_to_write(void **state)
{
    static const struct {
        const char *list, *words;
    } cases[] = {
        {"permit_my_networks", "is not known here"},
        {"check_policy_service", "name a server"},
        {"check_policy_service permit", "is not a server's address"},
        {"check_policy_service {}", "is not a server's address"},
        {"check_policy_service inet:", "is not a server's address"},
        {"check_policy_service inet:127.0.0.1", "is not a server's address"},
        {"check_policy_service inet:127.0.0.1:0", "is not a server's address"},
        {"check_policy_service inet:127.0.0.1:65536", "is not a server's address"},
        {"check_policy_service inet:host.test:1", "numeric address"},
        {"check_policy_service unix:", "is not a server's address"},
        {"check_policy_service { inet:1, timeout=5m }", "give seconds"},
        {"check_policy_service { inet:1, timeout=9999 }", "give seconds"},
        {"check_policy_service { inet:1, retry_delay=1s }", "is not known for a policy server"},
        {"check_policy_service { inet:1, default_action=451 later }", "later: is not known"},
        {"check_policy_service { inet:1, default_action=MAYBE }", "is no action"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = {0, ""};
        assert_int_equal(restrictions_check(cases[i].list, &e), -1);
        if (!strstr(e.text, cases[i].words))
            fail_msg("%s: %s", cases[i].list, e.text);
    }
}

static void test_endpoints(void **state)
{
    static const struct {
        const char *text;
        unsigned port;
        struct slice address;
    } cases[] = {
        {"inet:192.0.2.1:10040", 10040, SLICE("\300\0\2\1")},
        {"inet:10040", 10040, SLICE("\177\0\0\1")},
        {"inet:localhost:1", 1, SLICE("\177\0\0\1")},
        {"inet:[::1]:2", 2, SLICE("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1")},
        {"unix:private/p", 0, SLICE("/spool/private/p")},
        {"unix:/run/p", 0, SLICE("/run/p")},
    };
    struct endpoint out;
    struct err e = {0, ""};
    char path[160] = "unix:/";
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(endpoint_parse(slice_str(cases[i].text), "/spool", &out, &e), 0);
        assert_int_equal(out.port, cases[i].port);
        assert_true(slice_eq(slice_make(out.address, out.len), cases[i].address));
    }
    memset(path + 6, 'x', sizeof path - 7);
    assert_int_equal(endpoint_parse(slice_str(path), "/spool", &out, &e), -1);
}

/* A proxy listener without a list of proxies would believe anybody (B35). */
static void test_B35_proxy_protocol_needs_its_networks(void **state)
{
    struct err e = {0, ""};
    (void)state;
    assert_null(
        config_parse(SLICE("smtpd_upstream_proxy_protocol = haproxy\n"), "main.cf", "/etc", &e));
    assert_non_null(strstr(e.text, "main.cf:1: "));
    assert_non_null(strstr(e.text, "smtpd_proxy_networks"));
    struct config *c = config_parse(SLICE("smtpd_upstream_proxy_protocol = haproxy\n"
                                          "smtpd_proxy_networks = 192.0.2.1\n"),
                                    "main.cf", "/etc", &e);
    assert_non_null(c);
    config_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements_in_order),
        cmocka_unit_test(test_mistakes_say_what_to_write),
        cmocka_unit_test(test_endpoints),
        cmocka_unit_test(test_B35_proxy_protocol_needs_its_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: resolve_parts */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/err.h"
#include "ipc/ipc.h"
#include "resolve/policy.h"
#include "resolve/targets.h"

static struct mx_host host(const char *name, unsigned preference)
{
    struct mx_host h = {.preference = (uint16_t)preference};
    snprintf(h.name.text, sizeof h.name.text, "%s", name);
    return h;
}

static struct host_address address4(unsigned of, unsigned last)
{
    return (struct host_address){
        .host = (uint16_t)of, .len = 4, .raw = {192, 0, (uint8_t)(last >> 8), (uint8_t)last}};
}

static struct host_address address6(unsigned of, unsigned last)
{
    return (struct host_address){
        .host = (uint16_t)of, .len = 16, .raw = {0x20, 1, [15] = (uint8_t)last}};
}

/* The targets in order; what they borrow is valid until the next call. */
static size_t order_of(const struct mx_host *hosts, struct host_address *a, size_t n,
                       enum family_order order, size_t limit, struct ipc_target *out)
{
    static char memory[1 << 17];
    struct buf targets = BUF_INIT(1 << 17);
    struct target_settings settings = {.port = 25, .limit = limit, .order = order};
    targets_add(hosts, a, n, &settings, &targets);
    memcpy(memory, targets.data ? targets.data : "", targets.len);
    struct ipc_cursor list = ipc_list_cursor(slice_make(memory, targets.len));
    size_t count = 0;
    while (ipc_target_next(&list, &out[count]))
        count++;
    assert_false(list.failed);
    buf_free(&targets);
    return count;
}

static void test_preference_before_all(void **state)
{
    struct mx_host hosts[3] = {host("b.example", 20), host("c.example", 10), host("a.example", 20)};
    struct ipc_target t[8];
    unsigned first[2] = {0, 0};
    (void)state;
    assert_int_equal(mx_hosts_sort(hosts, 3), 3);
    assert_string_equal(hosts[0].name.text, "c.example");
    assert_string_equal(hosts[1].name.text, "a.example");
    for (int i = 0; i < 200; i++) {
        struct host_address a[3] = {address4(2, 2), address4(1, 1), address4(0, 0)};
        assert_int_equal(order_of(hosts, a, 3, FAMILY_ANY, 50, t), 3);
        assert_int_equal(t[0].preference, 10);
        assert_true(slice_eq(t[0].host, SLICE("c.example")));
        first[slice_eq(t[1].host, SLICE("b.example"))]++;
    }
    /* equals share the load: 200 throws never fall 20 to 180 */
    assert_in_range(first[0], 20, 180);
}

static void test_families(void **state)
{
    struct mx_host hosts[1] = {host("a.example", 0)};
    struct ipc_target t[8];
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct host_address a[5] = {address6(0, 1), address6(0, 2), address4(0, 3), address4(0, 4),
                                    address4(0, 5)};
        struct host_address b[5], c[5];
        memcpy(b, a, sizeof a);
        memcpy(c, a, sizeof a);
        assert_int_equal(order_of(hosts, a, 5, FAMILY_IPV4_FIRST, 50, t), 5);
        assert_int_equal(t[2].address.len, 4);
        assert_int_equal(t[3].address.len, 16);
        order_of(hosts, b, 5, FAMILY_IPV6_FIRST, 50, t);
        assert_int_equal(t[1].address.len, 16);
        assert_int_equal(t[2].address.len, 4);
        order_of(hosts, c, 5, FAMILY_ANY, 50, t);
        assert_true(t[0].address.len != t[1].address.len);
        assert_true(t[2].address.len != t[3].address.len);
    }
}

/* B65: of too many, always the same ones, in whatever order they came. */
static void test_B65_limit_is_stable(void **state)
{
    struct mx_host hosts[1] = {host("a.example", 0)};
    struct host_address a[500], b[500];
    static struct ipc_target t[500];
    bool seen[256] = {false};
    (void)state;
    for (unsigned i = 0; i < 500; i++) {
        a[i] = address4(0, i);
        b[499 - i] = a[i];
    }
    assert_int_equal(order_of(hosts, a, 500, FAMILY_ANY, 50, t), 50);
    for (size_t i = 0; i < 50; i++) {
        assert_int_equal(t[i].address.ptr[2], 0);
        seen[(uint8_t)t[i].address.ptr[3]] = true;
    }
    assert_int_equal(order_of(hosts, b, 500, FAMILY_ANY, 50, t), 50);
    for (size_t i = 0; i < 50; i++)
        assert_true(t[i].address.ptr[2] == 0 && seen[(uint8_t)t[i].address.ptr[3]]);
}

static void test_B65_hosts_are_sorted_unique_and_capped(void **state)
{
    static struct mx_host hosts[500];
    char name[32];
    (void)state;
    for (unsigned i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "mx%03u.example", 499 - i);
        hosts[i] = host(name, 10);
    }
    assert_int_equal(mx_hosts_sort(hosts, 500), MX_HOSTS_MAX);
    assert_string_equal(hosts[0].name.text, "mx000.example");
    struct mx_host twice[3] = {host("a.example", 30), host("b.example", 20), host("a.example", 10)};
    assert_int_equal(mx_hosts_sort(twice, 3), 2);
    assert_string_equal(twice[0].name.text, "a.example");
    assert_int_equal(twice[0].preference, 10);
}

static void check_site(const struct mx_host *hosts, size_t n, const struct destination *d,
                       const char *expected)
{
    struct buf site = BUF_INIT(1024);
    site_of_hosts(hosts, n, d, 25, &site);
    if (!slice_eq(buf_slice(&site), slice_str(expected)))
        fail_msg("site %.*s, not %s", SLICE_ARG(buf_slice(&site)), expected);
    buf_free(&site);
}

static void test_sites(void **state)
{
    struct mx_host one[2] = {host("b.example", 10), host("a.example", 20)};
    struct mx_host other[2] = {host("a.example", 10), host("b.example", 10)};
    struct mx_host many[20];
    struct destination d = {.port = 25, .name = {"some.example"}};
    char name[32];
    (void)state;
    check_site(one, 2, &d, "a.example,b.example");
    check_site(other, 2, &d, "a.example,b.example");
    check_site(one, 1, &d, "b.example");
    d.port = 587;
    check_site(one, 1, &d, "b.example:587");
    d.lmtp = true;
    check_site(one, 1, &d, "lmtp:b.example:587");
    d.lmtp = false;
    d.port = 25;
    for (unsigned i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "mx%u.long-name.example", i);
        many[i] = host(name, 10);
    }
    check_site(many, 20, &d, "mx:some.example"); /* too long a list: shared with none */
}

/* B63 */
static void test_B63_forbidden_addresses(void **state)
{
    static const char *const forbidden[] = {"127.0.0.1",
                                            "127.255.0.9",
                                            "10.1.2.3",
                                            "172.16.0.1",
                                            "192.168.1.1",
                                            "0.0.0.0",
                                            "169.254.1.1",
                                            "100.64.0.1",
                                            "224.0.0.1",
                                            "255.255.255.255",
                                            "::1",
                                            "::",
                                            "fe80::1",
                                            "fd00::1",
                                            "ff02::1",
                                            "::ffff:127.0.0.1",
                                            "64:ff9b::a00:1",
                                            "2002:7f00:1::",
                                            "::ffff:10.0.0.1"};
    static const char *const fine[] = {"8.8.8.8", "2a00:1450::1", "172.32.0.1", "64:ff9b::808:808",
                                       "::ffff:8.8.8.8"};
    struct policy p;
    struct err e;
    unsigned char raw[16];
    (void)state;
    assert_int_equal(policy_open(&p, &e), 0);
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
        int len = network_address(slice_str(forbidden[i]), raw);
        assert_true(len > 0);
        if (policy_check(&p, slice_make(raw, (size_t)len)) == ADDRESS_FINE)
            fail_msg("%s was taken", forbidden[i]);
    }
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        int len = network_address(slice_str(fine[i]), raw);
        if (policy_check(&p, slice_make(raw, (size_t)len)) != ADDRESS_FINE)
            fail_msg("%s was refused", fine[i]);
    }
    assert_int_equal(policy_permit(&p, "10.1.0.0/16 [fd00::]/8", &e), 0);
    network_address(SLICE("10.1.2.3"), raw);
    assert_int_equal(policy_check(&p, slice_make(raw, 4)), ADDRESS_FINE);
    network_address(SLICE("10.2.2.3"), raw);
    assert_int_equal(policy_check(&p, slice_make(raw, 4)), ADDRESS_FORBIDDEN);
    assert_int_equal(policy_permit(&p, "10.1.0.0/99", &e), -1);
    policy_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preference_before_all),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_B65_limit_is_stable),
        cmocka_unit_test(test_B65_hosts_are_sorted_unique_and_capped),
        cmocka_unit_test(test_sites),
        cmocka_unit_test(test_B63_forbidden_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

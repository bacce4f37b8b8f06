/* libraries: postern_tls */
/* Levels, protocols and values of smtp_tls_policy_maps; TLSA records. */
#include "unit.h"

#include "tls/policy.h"
#include "tls/protocols.h"
#include "tls/tlsa.h"

static void test_levels(void **state)
{
    (void)state;
    for (int i = 0; i < TLS_LEVEL_FORBIDDEN; i++)
        assert_int_equal(tls_level_parse(slice_str(tls_level_name((enum tls_level)i))), i);
    assert_int_equal(tls_level_parse(SLICE("forbidden")), -1);
    assert_int_equal(tls_level_parse(SLICE("May")), -1);
    assert_int_equal(tls_level_parse(SLICE("")), -1);
}

static const struct {
    const char *text;
    int lowest, highest; /* 0: refused */
} ranges[] = {
    {"", TLS_VERSION_1_2, TLS_VERSION_1_3},
    {">=TLSv1.2", TLS_VERSION_1_2, TLS_VERSION_1_3},
    {">=TLSv1", TLS_VERSION_1_2, TLS_VERSION_1_3},
    {">=TLSv1.3", TLS_VERSION_1_3, TLS_VERSION_1_3},
    {"<=TLSv1.2", TLS_VERSION_1_2, TLS_VERSION_1_2},
    {"!SSLv2, !SSLv3, !TLSv1, !TLSv1.1", TLS_VERSION_1_2, TLS_VERSION_1_3},
    {"!TLSv1.3", TLS_VERSION_1_2, TLS_VERSION_1_2},
    {"TLSv1.2:TLSv1.3", TLS_VERSION_1_2, TLS_VERSION_1_3},
    {"tlsv1.2", TLS_VERSION_1_2, TLS_VERSION_1_2},
    {"TLSv1 TLSv1.1", 0, 0},
    {"<=TLSv1.1", 0, 0},
    {">=TLSv1.3 <=TLSv1.2", 0, 0},
    {"TLSv1.4", 0, 0},
    {">=", 0, 0},
    {"!", 0, 0},
};

static void test_protocols(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        struct tls_protocols p;
        struct err e = {0, ""};
        int rc = tls_protocols_parse(slice_str(ranges[i].text), &p, &e);
        if (ranges[i].lowest == 0) {
            if (rc == 0 || !*e.text)
                fail_msg("\"%s\" is taken", ranges[i].text);
        } else if (rc < 0 || (int)p.lowest != ranges[i].lowest ||
                   (int)p.highest != ranges[i].highest)
            fail_msg("\"%s\": %d..%d %s", ranges[i].text, p.lowest, p.highest, e.text);
    }
}

static void test_policy(void **state)
{
    (void)state;
    struct tls_policy p;
    assert_int_equal(tls_policy_parse(SLICE("none"), &p, NULL), 0);
    assert_int_equal(p.level, TLS_LEVEL_NONE);
    assert_int_equal(tls_policy_parse(SLICE(" secure  match=a.example:.b.example:nexthop "
                                            "ciphers=high, protocols=>=TLSv1.3 servername=nexthop"),
                                      &p, NULL),
                     0);
    assert_int_equal(p.level, TLS_LEVEL_SECURE);
    assert_slice_is(p.match, "a.example:.b.example:nexthop");
    assert_slice_is(p.ciphers, "high");
    assert_slice_is(p.protocols, ">=TLSv1.3");
    assert_slice_is(p.servername, "nexthop");
    struct slice list = p.match, name;
    assert_true(tls_match_next(&list, &name));
    assert_slice_is(name, "a.example");
    assert_true(tls_match_next(&list, &name) && tls_match_next(&list, &name));
    assert_slice_is(name, "nexthop");
    assert_false(tls_match_next(&list, &name));
}

static void test_policy_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "  ",
        "strong",
        "forbidden",
        "may match=a.example",
        "secure match=",
        "secure match=:",
        "secure match=a..b",
        "secure match=*.example",
        "verify match=a b",
        "verify match",
        "verify ciphers=low",
        "encrypt protocols=SSLv3",
        "encrypt servername=a/b",
        "encrypt tafile=/x",
        "secure match=a:b:c:d:e:f:g:h:i:j:k:l:m:n:o:p:q",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tls_policy p;
        struct err e = {0, ""};
        if (tls_policy_parse(slice_str(bad[i]), &p, &e) == 0 || !*e.text)
            fail_msg("\"%s\" is taken", bad[i]);
    }
}

static struct slice tlsa(char usage, char selector, char matching, size_t len)
{
    static char rdata[TLSA_DATA_MAX + 8];
    rdata[0] = usage;
    rdata[1] = selector;
    rdata[2] = matching;
    return slice_make(rdata, len + 3);
}

static void test_B58_tlsa(void **state)
{
    (void)state;
    struct tlsa t;
    for (size_t n = 0; n <= 3; n++)
        assert_int_equal(tlsa_parse(slice_first(tlsa(3, 1, 1, 32), n), &t), -1);
    static const struct {
        char usage, selector, matching;
        size_t len;
        bool usable;
    } records[] = {
        {3, 1, 1, 32, true},  {2, 0, 2, 64, true},   {3, 0, 0, 500, true},
        {3, 1, 1, 31, false}, {3, 1, 2, 32, false},  {0, 1, 1, 32, false},
        {1, 1, 1, 32, false}, {4, 1, 1, 32, false},  {3, 2, 1, 32, false},
        {3, 1, 3, 32, false}, {-1, 1, 1, 32, false}, {3, 0, 0, TLSA_DATA_MAX + 1, false},
    };
    for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
        assert_int_equal(tlsa_parse(tlsa(records[i].usage, records[i].selector, records[i].matching,
                                         records[i].len),
                                    &t),
                         0);
        assert_int_equal(tlsa_usable(&t), records[i].usable);
        assert_int_equal(t.data.len, records[i].len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),   cmocka_unit_test(test_protocols),
        cmocka_unit_test(test_policy),   cmocka_unit_test(test_policy_refused),
        cmocka_unit_test(test_B58_tlsa),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

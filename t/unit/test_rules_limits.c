/* libraries: postern_rules postern_core */
/* Which limits hold where. */
#include "rules_world.h"

static void test_limits_are_inherited(void **state)
{
    struct rules *r = load("default { connections = 20 message_rate = \"600/min\" tls = \"may\"\n"
                           "  source \"192.0.2.1\" { connections = 19 } }\n"
                           "provider p { mx = {\".p.test\"} connections = 10 idle_time = \"30s\"\n"
                           "  source \"192.0.2.1\" { daily_cap = 1000 cold_daily_cap = 100 } }\n"
                           "site \"mx1.p.test\" { messages_per_connection = 7 }\n"
                           "domain \"d.test\" { connections = 2 message_rate = \"36000/h\" }\n");
    struct slice hosts[] = {SLICE("MX1.p.test"), SLICE("mx.other.test")};
    struct rules_place place;
    struct rules_limits l;
    (void)state;
    rules_place(r, hosts, 2, SLICE("d.test"), &place);
    assert_string_equal(place.provider, "p");
    assert_string_equal(place.site, "mx1.p.test");
    assert_string_equal(place.domain, "d.test");
    rules_limits(r, &place, SLICE("192.0.2.1"), &l);
    assert_int_equal(l.connections, 2);
    assert_int_equal(l.messages_per_connection, 7);
    assert_int_equal(l.daily_cap, 1000);
    assert_int_equal(l.cold_daily_cap, 100);
    assert_int_equal(l.idle_time, 30 * CLOCK_SECOND);
    assert_int_equal(l.tls, RULES_TLS_MAY);
    assert_true(l.message_rate > 9.99 && l.message_rate < 10.01);
    rules_place(r, hosts + 1, 1, SLICE("x.test"), &place);
    rules_limits(r, &place, SLICE("192.0.2.1"), &l);
    assert_int_equal(l.connections, 19);
    rules_limits(r, &place, SLICE("192.0.2.2"), &l);
    assert_int_equal(l.connections, 20);
    rules_free(r);
}

static void test_a_wider_start_does_not_pass_a_narrower_bound(void **state)
{
    struct rules *r = load("default { start_connections = 5 start_rate = \"20/s\" }\n"
                           "domain \"d.test\" { connections = 2 message_rate = \"1/s\" }\n");
    struct rules_place place;
    struct rules_limits l;
    (void)state;
    rules_place(r, NULL, 0, SLICE("D.test"), &place);
    rules_limits(r, &place, SLICE(""), &l);
    assert_int_equal(l.start_connections, 2);
    assert_true(l.start_rate <= 1.0);
    rules_free(r);
}

static void test_limits_of_one_account(void **state)
{
    struct rules *r = load("default { account_message_rate = \"60/min\" account_connections = 3 }\n"
                           "provider p { mx = {\".p.test\"} account_connections_max = 5 }\n"
                           "domain \"d.test\" { account_connections_max = 2 }\n");
    struct slice host = SLICE("mx.p.test");
    struct rules_place place;
    struct rules_limits l;
    (void)state;
    rules_place(r, &host, 1, SLICE("x.test"), &place);
    rules_limits(r, &place, SLICE("192.0.2.1"), &l);
    assert_int_equal(l.account_connections_max, 5);
    assert_int_equal(l.account_connections, 3);
    assert_true(l.account_message_rate > 0.99 && l.account_message_rate < 1.01);
    rules_place(r, &host, 1, SLICE("d.test"), &place);
    rules_limits(r, &place, SLICE(""), &l);
    assert_int_equal(l.account_connections_max, 2);
    rules_free(r);
}

static const char *provider_of(struct rules *r, struct slice host, struct slice domain)
{
    struct rules_place place;
    rules_place(r, &host, 1, domain, &place);
    return place.provider ? place.provider : "none";
}

/* Whatever stands first. */
static void test_the_longest_suffix_holds(void **state)
{
    static const char wide[] = "provider wide { mx = {\".prot.test\", \"x.other.test\"} }\n",
                      narrow[] = "provider narrow { mx = {\".olc.prot.test\"} }\n",
                      host[] = "provider host { hosts = {\"mx1.olc.prot.test\"} }\n",
                      domain[] = "provider domain { domains = {\"d.test\"} }\n";
    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        char text[1000];
        snprintf(text, sizeof text, "%s%s%s%s", turn ? domain : wide, turn ? host : narrow,
                 turn ? narrow : host, turn ? wide : domain);
        struct rules *r = load(text);
        const struct slice other = SLICE("other.test");
        assert_string_equal(provider_of(r, SLICE("mx.prot.test"), other), "wide");
        assert_string_equal(provider_of(r, SLICE("mx.olc.PROT.test"), other), "narrow");
        assert_string_equal(provider_of(r, SLICE("olc.prot.test"), other), "wide");
        assert_string_equal(provider_of(r, SLICE("x.other.test"), other), "wide");
        assert_string_equal(provider_of(r, SLICE("a.x.other.test"), other), "wide");
        assert_string_equal(provider_of(r, SLICE("mx1.olc.prot.test"), other), "host");
        assert_string_equal(provider_of(r, SLICE("mx1.olc.prot.test"), SLICE("D.test")), "domain");
        assert_string_equal(provider_of(r, SLICE("prot.test"), other), "none");
        rules_free(r);
    }
}

static unsigned warnings;
static char last_warning[2000];

static void warned(const char *text, bool error, void *arg)
{
    (void)arg;
    assert_false(error);
    warnings++;
    snprintf(last_warning, sizeof last_warning, "%s", text);
}

static void warns(const char *text, const char *words)
{
    struct rules *r = load(text);
    warnings = 0;
    assert_int_equal(rules_check(r, warned, NULL), 0);
    assert_int_equal(warnings, words ? 1 : 0);
    if (words && !strstr(last_warning, words))
        fail_msg("\"%s\" is not in: %s", words, last_warning);
    rules_free(r);
}

static void test_two_providers_with_one_name_are_warned_of(void **state)
{
    (void)state;
    warns("provider x { mx = {\".a.test\"} }\nprovider y { mx = {\"a.test\"} }",
          "a.conf:2: provider y: mx \"a.test\" is what provider x (a.conf:1) is recognised by, too "
          "(mx \".a.test\"); x holds, which stands first");
    warns("provider x { mx = {\"a.test\"} }\nprovider y { hosts = {\"A.test.\"} }",
          "a.conf:1: provider x: mx \"a.test\" is what provider y (a.conf:2) is recognised by, too "
          "(hosts \"a.test\"); y holds, which names the host");
    warns("provider x { hosts = {\"a.test\"} }\nprovider y { domains = {\"a.test\"} }",
          "y holds, where the recipient's domain is called so");
    /* the longer one holds: nothing is in doubt; nor is anything in one provider */
    warns("provider x { mx = {\".a.test\"} }\nprovider y { mx = {\".b.a.test\"} }", NULL);
    warns("provider x { mx = {\".a.test\", \"a.test\"} hosts = {\"a.test\"} }", NULL);
    warns("provider x { mx = {\".a.test\"} }\nprovider y { domains = {\"a.test\"} }", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits_are_inherited),
        cmocka_unit_test(test_a_wider_start_does_not_pass_a_narrower_bound),
        cmocka_unit_test(test_limits_of_one_account),
        cmocka_unit_test(test_the_longest_suffix_holds),
        cmocka_unit_test(test_two_providers_with_one_name_are_warned_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

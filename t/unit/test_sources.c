/* libraries: postern_core postern_sources */
#include <stdio.h>
#include <stdlib.h>

#include "core/mem.h"
#include "sources/sources.h"
#include "unit.h"

static struct sources_conf *parsed(const char *text)
{
    struct err e = {0, ""};
    struct sources_conf *c = sources_conf_parse(slice_str(text), "sources.conf", &e);
    if (!c)
        fail_msg("%s", e.text);
    return c;
}

static void refused(const char *text, const char *why)
{
    struct err e = {0, ""};
    struct sources_conf *c = sources_conf_parse(slice_str(text), "sources.conf", &e);
    if (c || !strstr(e.text, why))
        fail_msg("%s: \"%s\" instead of \"%s\"", text, c ? "taken" : e.text, why);
}

#define TWO                                                                                        \
    "# two\nsource a { ipv4 = 192.0.2.1\n ipv6 = \"2001:db8::1\" helo = a.example.net }\n"         \
    "source b { ipv4 = \"192.0.2.2\" weight = 3 }\n"

static void test_sources_and_their_pools(void **state)
{
    (void)state;
    struct sources_conf *c = parsed(TWO "pool fast { sources = {\"b\"} accounts = {\"acme\"}\n"
                                        "  senders = {\"News.example\"} classes = {\"bulk\"} }\n");
    assert_int_equal(c->count, 2);
    assert_string_equal(c->sources[0].helo, "a.example.net");
    assert_int_equal(c->sources[0].line, 2);
    assert_int_equal(c->sources[1].line, 4);
    assert_int_equal(c->sources[1].weight, 3);
    assert_true(c->sources[0].has_v6 && !c->sources[1].has_v6);
    assert_int_equal(c->pool_count, 2);
    const struct pool_conf *all = &c->pools[0], *fast = &c->pools[1];
    assert_string_equal(all->name, "default");
    assert_int_equal(all->count, 2);
    assert_int_equal(all->weights[1], 4);
    struct slice none = SLICE(""), normal = SLICE("normal");
    assert_ptr_equal(sources_pool_for(c, SLICE("acme"), none, none, normal), fast);
    assert_ptr_equal(sources_pool_for(c, SLICE("other"), none, none, normal), all);
    assert_ptr_equal(sources_pool_for(c, SLICE("other"), SLICE("fast"), none, normal), fast);
    assert_ptr_equal(sources_pool_for(c, SLICE("other"), SLICE("gone"), none, normal), all);
    assert_ptr_equal(sources_pool_for(c, none, none, SLICE("NEWS.example"), normal), fast);
    assert_ptr_equal(sources_pool_for(c, none, none, none, SLICE("bulk")), fast);
    sources_conf_free(c);
}

static void test_warm_up_by_day_and_provider(void **state)
{
    (void)state;
    struct sources_conf *c =
        parsed("source n { ipv4 = 192.0.2.1 warmup = linear:30d volume = 900000\n"
               "  provider gmail { volume = 300000 }\n"
               "  provider yahoo { warmup = \"table:50, 100,200\" daily_cap = 150 }\n"
               "  provider own { warmup = none } }\n");
    const struct source_conf *s = &c->sources[0];
    const struct source_ramp *any = source_ramp_for(s, SLICE("x")),
                             *gmail = source_ramp_for(s, SLICE("gmail")),
                             *yahoo = source_ramp_for(s, SLICE("yahoo"));
    assert_int_equal(source_allowance(any, 0), 1000);
    assert_int_equal(source_allowance(any, 14), 15000);
    assert_int_equal(source_allowance(any, 29), 30000);
    assert_true(source_allowance(any, 30) == UINT64_MAX);
    assert_int_equal(source_allowance(gmail, 0), 333);
    assert_int_equal(source_allowance(gmail, -5), 333); /* the clock was set back */
    assert_int_equal(source_allowance(yahoo, 0), 50);
    assert_int_equal(source_allowance(yahoo, 2), 150);
    assert_int_equal(source_allowance(yahoo, 9), 150);
    assert_false(source_is_warm(gmail, 29));
    assert_true(source_is_warm(source_ramp_for(s, SLICE("own")), 0));
    sources_conf_free(c);
}

static void test_block_lists_and_alerts(void **state)
{
    (void)state;
    struct sources_conf *c =
        parsed(TWO "dnsbl zen.example.org { }\ndnsbl \"soft.example\" { quarantine = no }\n"
                   "dnsbl_interval = 10m\nalert_address = \"postmaster@example.net\"\n");
    assert_int_equal(c->list_count, 2);
    assert_true(c->lists[0].quarantine && !c->lists[1].quarantine);
    assert_int_equal(c->list_interval, 600 * 1000000);
    assert_string_equal(c->alert_address, "postmaster@example.net");
    sources_conf_free(c);
}

static void test_what_is_wrong_is_told_with_its_line(void **state)
{
    (void)state;
    refused("source a { helo = x }", "sources.conf:1: source a: has no address");
    refused("\n/* a\n b */ source a {\n ipv4 = 300.1.1.1 }", "sources.conf:4: source a: \"300.1");
    refused("source a { ipv4 = 192.0.2.1\n\n weight = 1O }", "sources.conf:3: source a: weight");
    refused("source a { ipv4 = 192.0.2.1\n began = 2026-02-30 }",
            "sources.conf:2: source a: began");
    refused("source a { ipv4 = 192.0.2.1\n warmup = linear:30d }", ":2: source a: a linear");
    refused("source a { ipv4 = 192.0.2.1\n warmup = table: }", ":2: source a: warmup");
    refused("source a { ipv4 = 192.0.2.1\n colour = red }", "sources.conf:2: no such option");
    refused("source a { ipv4 = 192.0.2.1\n ipv4 = 192.0.2.2 }", ":2: ipv4 is given twice");
    refused("alert_address = a@x.test\n\nalert_address = b@x.test", ":3: alert_address is given");
    refused(TWO "pool p { sources = {a}\n sources = {b} }", ":6: sources is given twice");
    refused("source a { ipv4 = 192.0.2.1 provider p { volume = 5\n volume = 6 } }",
            ":2: volume is");
    refused("source a { ipv4 = 192.0.2.1 weight = 0x10 }", "weight is a number");
    refused("source a { ipv4 = 192.0.2.1\n helo = 'x }", ":2: the quoted text that begins");
    refused("source a { ipv4 = 192.0.2.1 }\nsource b { ipv4 = 192.0.2.1 }",
            "sources.conf:2: source b: its address is that of source a, line 1");
    refused(TWO "pool p { sources = {a, c} }", "sources.conf:5: pool p: there is no source \"c\"");
    refused(TWO "pool p { sources = {a, a} }", "\"a\" is named twice");
    refused(TWO "pool p { sources = {a}\n overflow = q }", ":6: pool p: there is no pool \"q\"");
    refused(TWO "pool p { sources = {a} overflow = q }\npool q { sources = {b} overflow = p }",
            "back to itself");
    refused(TWO "pool p { sources = {a} accounts = {x} }\npool q { sources = {b} accounts = {x} }",
            "x belongs to pool p and to pool q");
    refused(TWO "dnsbl \"not a name\" { }", "a list is a domain");
    refused("alert_address = \"a b@c\"", "sources.conf:1: alert_address");
    refused("source a { ipv4 = 192.0.2.1\n", "sources.conf:1: this '{' has no '}'");
    refused("source a { ipv4 = $HOME }", "'$' has no meaning");
    struct sources_conf *c = parsed("source a { ipv4 = 192.0.2.1 weight = 010 }"); /* ten */
    assert_int_equal(c->sources[0].weight, 10);
    sources_conf_free(c);
}

static void test_the_shipped_file_is_valid(void **state)
{
    (void)state;
    static char text[65536];
    FILE *f = fopen("etc/sources.conf", "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    sources_conf_free(parsed(text));
    /* and so are its examples */
    for (char *p = text; *p; p++)
        if ((p == text || p[-1] == '\n') && p[0] == '#' && (p[1] != ' ' || p[2] == ' '))
            *p = ' ';
    struct sources_conf *c = parsed(text);
    assert_true(c->count > 1 && c->pool_count > 1 && c->list_count > 0);
    sources_conf_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sources_and_their_pools),
        cmocka_unit_test(test_warm_up_by_day_and_provider),
        cmocka_unit_test(test_block_lists_and_alerts),
        cmocka_unit_test(test_what_is_wrong_is_told_with_its_line),
        cmocka_unit_test(test_the_shipped_file_is_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

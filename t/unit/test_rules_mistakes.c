/* libraries: postern_rules postern_core */
/* What is refused, and the line that is told. */
#include "rules_world.h"

#define SAMPLE " matches = {\"421 x\"} }"

static void test_mistakes_name_file_and_line(void **state)
{
    (void)state;
    refused("\n\ndefault { conections = 5 }", "a.conf:3: ");
    refused("default { connections = \"many\" }", "a.conf:1: ");
    refused("# one\n# two '\n/* three\nfour */\ndefault { x = '#' }", "a.conf:5: ");
    refused("default {\n connections = 0 }", "must be from 1");
    refused("default { message_rate = \"20/fortnight\" }", "a rate is written as");
    refused("default { connection_rate = \"0.0001/d\" }", "is at least 0.1/d");
    refused("default { idle_time = \"1 year\" }", "a time is written as");
    refused("default { tls = \"maybe\" }", "tls is one of");
    refused("default { start_rate = \"9/s\" message_rate = \"8/s\" }", "start_rate is above");
    refused("site s { total_connections = 3 }", "provider section of its own");
    refused("\ndomain d.test { total_message_rate = \"3/s\" }", "a.conf:2: domain d.test");
    refused("default { source \"192.0.2.1\" { total_connection_rate = \"3/s\" } }",
            "is over all source addresses");
    refused("provider p { mx = {\".p\"}\n source \"192.0.2.1\" { account_connections_max = 3 } }",
            "counts over all source addresses");
    refused("domain d.test { source \"192.0.2.1\" { account_message_rate = \"3/s\" } }",
            "counts over all source addresses");
    refused("default { account_connections_max = 0 }", "must be from 1");
    refused("default { account_message_rate = \"often\" }", "a rate is written as");
    refused("rule r { text = 'x' scope = \"provider\" action = \"switch\" for = \"5m\" matches = "
            "{\"421 x\"} }",
            "switch is about the source");
    refused("provider p { connections = 3 }", "by which mx");
    refused("provider p { mx = {\".a\"} }\nprovider p { mx = {\".b\"} }", "a.conf:2: ");
    refused("rule r { text = '(' " SAMPLE, "pattern, at character");
    refused("rule r {" SAMPLE, "has no code, status or text");
    refused("rule r { text = 'x' }", "at least one sample");
    refused("rule r { text = 'x' matches = {\"hello\"} }", "begins with a reply code");
    refused("rule r { text = 'x' action = \"slow\" " SAMPLE, "need a dimension");
    refused("rule r { text = 'x' action = \"suspend\" " SAMPLE, "need a time");
    refused("rule r { text = 'x' action = \"panic\" " SAMPLE, "action is one of");
    refused("rule r { text = 'x' stage = {\"hello\"} " SAMPLE, "a stage is");
    refused("rule r { text = 'x' provider = \"nobody\" " SAMPLE, "there is no provider");
    refused("rule r { text = 'x' after = 3 " SAMPLE, "after needs a period");
    refused("rule r { text = 'x' factor = 1.5 action = \"slow\" dimension = \"rate\" " SAMPLE,
            "factor is between");
    refused("rule r { text = 'x' scope = \"recipient\" action = \"suspend\" for = \"1m\" " SAMPLE,
            "cannot change limits");
    refused("rule r {\n text = 'x'\n\n action = \"slow\"\n matches = {\"421 x\",\n \"421 xx\"}\n}",
            "a.conf:1: ");
    refused("default {", "this '{' has no '}'");
    refused("include = {\"a.conf\"}", "it was read before");
}

static void test_each_section_has_its_own_line(void **state)
{
    (void)state;
    refused("\ndefault {\n connections = 5\n\n start_connections = 6\n}\n", "a.conf:2: default");
    refused("\ndefault {\n connections = 5\n\n tls = \"foo\"\n}\n",
            "a.conf:5: default: tls \"foo\"");
    refused("provider x {\n mx={\".x\"}\n source \"10.0.0.2\" { }\n source\n \"10.0.0.1\" {\n  "
            "connections = 5 start_connections = 6\n }\n}\n",
            "a.conf:4: source 10.0.0.1");
    refused("default {}\nsite 'default' {\n}\ndomain source {\n tls = \"foo\" }",
            "a.conf:5: domain source: tls \"foo\"");
    refused("site a {}\nsite b {\n source '10.0.0.1' {\n}\n", "a.conf:2: this '{' has no '}'");
    refused("default {", "a.conf:1: this '{' has no '}'");
    refused("rule r {\n text = 'x\n matches = {\"421 x\"} }",
            "a.conf:2: the quoted text that begins");
    refused("default {}\n/* the rest {", "a.conf:2: the comment that begins here has no end");
    refused("\ninclude = {\n\"b.conf\"}", "a.conf:3: include: b.conf: no such file");
    refused("include = { # \"a.conf\"\n 'a.conf' }", "a.conf:2: include \"a.conf\": it was read");
}

static void test_what_would_have_no_effect_is_refused(void **state)
{
    (void)state;
    refused("default {\n source \"not-an-ip\" { connections = 3 } }",
            "a.conf:2: source not-an-ip \"\": is not an IPv4 or IPv6 address");
    refused("default { source \"2001:db8::1\" {}\n source \"2001:DB8:0::1\" {} }",
            "was used before");
    refused("default { connections = 3 }\ndefault { tls = \"may\" }",
            "a.conf:2: default: there is one already (a.conf:1)");
    refused("provider x { mx = {\".a\"} }\nprovider y { mx = {\".b\", \".A\"} }",
            "a.conf:2: provider y: mx \".a\" is how provider x is recognised (a.conf:1)");
    refused("provider x { domains = {\"a\"} }\nprovider y { domains = {\"a\"} }", "domains \"a\"");
    refused("rule r { text = 'x' factor = 0.5 " SAMPLE, "factor goes with");
    refused("rule r { text = 'x' value = \"3\" action = \"suspend\" for = \"1m\" " SAMPLE,
            "value goes with");
    refused("rule r { text = 'x' for = \"2h\" " SAMPLE, "for goes with");
    refused("rule r { text = 'x' samples = 3 " SAMPLE, "samples goes with");
    refused("rule r { text = 'x' within = \"1m\" " SAMPLE, "within goes with");
    refused(
        "rule r { text = 'x' action = \"set\" dimension = \"concurrency\" value = \"0.5\"" SAMPLE,
        "a number of connections");
    refused(
        "rule r { text = 'x' action = \"set\" dimension = \"concurrency\" value = \"4/min\"" SAMPLE,
        "a number of connections");
    refused("rule r { text = 'x' action = \"set\" dimension = \"volume\" value = \"100/d\"" SAMPLE,
            "a volume cannot be set");
}

/* libconfuse would let the last one hold, and drop the first file. */
static void test_what_is_given_twice_is_refused(void **state)
{
    (void)state;
    refused("include = {\"b.conf\"}\ninclude = {\"c.conf\"}",
            "a.conf:2: include is given twice: it stands in line 1, too");
    refused("default {\n connections = 5\n connections = 6\n}", "a.conf:3: connections is given");
    refused("provider x { mx = {\".a\"}\n\n mx = {\".b\"} }", "a.conf:3: mx is given twice");
    refused("default { source \"192.0.2.1\" { tls = may\n tls = may } }", "a.conf:2: tls is given");
    refused("rule r { text = 'x'\n text = 'y' " SAMPLE, "a.conf:2: text is given twice");
    refused("provider x { mx += {\".a\"}\n mx = {\".b\"} }", "a.conf:2: mx is given twice");
    /* in sections of their own, in each other, in a list, in a comment */
    rules_free(load("default { connections = 5\n source \"192.0.2.1\" { connections = 4 }\n"
                    "  # connections = 3\n  source \"192.0.2.2\" { connections = 4 } }\n"
                    "provider x { mx = {\".a\"} connections = 2 }\n"
                    "rule r { text = 'a = b; a = c' matches = {\"421 a = b; a = c\"} }\n"));
    struct rules *r = load("provider x { mx = {\".a\"}\n mx += {\".b\"} }");
    struct rules_place place;
    rules_place(r, &SLICE("mx.a"), 1, SLICE("d.test"), &place);
    assert_string_equal(place.provider, "x");
    rules_place(r, &SLICE("mx.b"), 1, SLICE("d.test"), &place);
    assert_string_equal(place.provider, "x");
    rules_free(r);
}

/* As in main.cf: ten, not eight. */
static void test_numbers_are_decimal(void **state)
{
    struct rules *r = load("default { connections = 010 message_rate = 010/s idle_time = 010s }\n"
                           "rule r { text = 'x' action = \"slow\" dimension = \"rate\"\n"
                           "  factor = 0.50 after = 08 within = \"1m\" " SAMPLE);
    struct rules_place place = {0};
    struct rules_limits l;
    (void)state;
    rules_limits(r, &place, SLICE(""), &l);
    assert_int_equal(l.connections, 10);
    assert_true(l.message_rate > 9.9 && l.message_rate < 10.1);
    assert_int_equal(l.idle_time, 10 * CLOCK_SECOND);
    assert_int_equal(rules_at(r, 0)->after, 8);
    rules_free(r);
    refused("default {\n connections = 0x10 }", "a.conf:2: default: connections \"0x10\": must be");
    refused("default {\n connections = 10O }", "a.conf:2: default: connections \"10O\"");
    refused("default { connections = -1 }", "must be from 1");
    refused("default { connections = 1.5 }", "must be from 1");
    refused("rule r { text = 'x' action = \"slow\" dimension = \"rate\" factor = 0x1p-1" SAMPLE,
            "factor is between");
}

/* What no destination can be called. */
static void test_names_that_match_nothing_are_refused(void **state)
{
    (void)state;
    refused("provider x {\n mx = {\".b\",\n  \"*.a.test\"} }",
            "a.conf:3: provider x: mx \"*.a.test\": '*' has no meaning here");
    refused("provider x { mx = {\"\"} }", "a.conf:1: provider x: mx \"\": is empty");
    refused("provider x { mx = {\"a b\"} }", "holds a character that no name has");
    refused("provider x { mx = {\".\"} }", "is no name");
    refused("provider x { mx = {\"a..test\"} }", "two dots in a row");
    refused("provider x { mx = {\"..test\"} }", "two dots in a row");
    refused("provider x {\n hosts = {\".a.test\"} }",
            "a.conf:2: provider x: hosts \".a.test\": begins");
    refused("provider x { domains = {\".a.test\"} }", "begins with a dot");
    refused("provider x { domains = {\"a.test,b.test\"} }", "holds a character");
    refused("\nsite \"*.a.test\" { connections = 3 }", "a.conf:2: site *.a.test \"\": '*' has no");
    refused("domain \".a.test\" { connections = 3 }", "begins with a dot");
    refused("site \"mx.a.test\" {}\nsite \"MX.a.test.\" {}", "a.conf:2: site");
    /* a final dot says nothing else */
    struct rules *r = load("provider x { mx = {\".a.test.\"} }\n"
                           "provider y { hosts = {\"MX.b.test.\"} domains = {\"d.test.\"} }\n"
                           "domain \"e.test.\" { connections = 3 }\n"
                           "domain \"[192.0.2.1]\" { connections = 4 }\n");
    struct rules_place place;
    rules_place(r, &SLICE("mx.a.test"), 1, SLICE("e.test"), &place);
    assert_string_equal(place.provider, "x");
    assert_string_equal(place.domain, "e.test");
    rules_place(r, &SLICE("mx.b.test"), 1, SLICE("[192.0.2.1]"), &place);
    assert_string_equal(place.provider, "y");
    assert_string_equal(place.domain, "[192.0.2.1]");
    rules_place(r, &SLICE("mx.a.test"), 1, SLICE("d.test"), &place);
    assert_string_equal(place.provider, "y");
    rules_free(r);
}

/* It would be a variable of the environment. */
static void test_the_environment_is_not_read(void **state)
{
    (void)state;
    refused("default {}\nprovider x { mx = {\"${HOME}\"} }", "a.conf:2: '$' has no meaning here");
    refused("provider x { mx = {${HOME}} }", "'$' has no meaning here");
    struct rules *r = load("rule r { code = \"^4..$\" text = '^x$|${y}' " SAMPLE);
    assert_non_null(match(r, RULES_MAIL, 0, "421 x"));
    rules_free(r);
}

/* As one is written, or another way. */
static void test_addresses_are_compared_as_addresses(void **state)
{
    struct rules *r = load("default { source \"2001:DB8:0::1\" { connections = 3 } }\n"
                           "provider x { hosts = {\"a\"} mx = {\".a\"} domains = {\"a\", \"a\"} }");
    struct rules_place place = {0};
    struct rules_limits l;
    (void)state;
    rules_limits(r, &place, SLICE("2001:db8::1"), &l);
    assert_int_equal(l.connections, 3);
    rules_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mistakes_name_file_and_line),
        cmocka_unit_test(test_each_section_has_its_own_line),
        cmocka_unit_test(test_what_would_have_no_effect_is_refused),
        cmocka_unit_test(test_what_is_given_twice_is_refused),
        cmocka_unit_test(test_numbers_are_decimal),
        cmocka_unit_test(test_names_that_match_nothing_are_refused),
        cmocka_unit_test(test_the_environment_is_not_read),
        cmocka_unit_test(test_addresses_are_compared_as_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: postern_rules postern_core */
/* Files that include others, and change what these say. */
#include "rules_world.h"

static void test_included_files_belong_to_the_set(void **state)
{
    struct file files[] = {
        {"a.conf",
         "include = {\"b.conf\"}\nrule r { provider = \"p\" text = 'x' matches = {\"421 x\"} }"},
        {"b.conf", "provider p { mx = {\".p.test\"} }"},
        {NULL, NULL}};
    struct err e = {0, ""};
    struct rules *r = rules_load("a.conf", read_from, files, &e);
    (void)state;
    assert_non_null(r);
    assert_int_equal(rules_at(r, 0)->provider, 1);
    rules_free(r);
    files[1].text = "provider p { mx = {\".p.test\"}\n\n speed = 3 }";
    assert_null(rules_load("a.conf", read_from, files, &e));
    assert_non_null(strstr(e.text, "b.conf:3"));
}

static struct rules *load_two(const char *own, const char *shipped, struct err *e)
{
    struct file files[] = {{"a.conf", own}, {"b.conf", shipped}, {NULL, NULL}};
    *e = (struct err){0, ""};
    return rules_load("a.conf", read_from, files, e);
}

/* An operator's file beside the shipped one: what it says goes before, the rest stays, and each
 * change is told. */
static void test_a_section_may_override_that_of_an_included_file(void **state)
{
    static const char base[] =
        "default { message_rate = \"100/s\" connections = 20 }\n"
        "provider p { mx = {\".p.test\"} connections = 7 daily_cap = 50\n"
        "  source \"192.0.2.1\" { connections = 3 messages_per_connection = 9 } }\n";
    struct err e;
    struct rules_limits l;
    (void)state;
    struct rules *r =
        load_two("include = {\"b.conf\"}\n"
                 "default { override = true message_rate = \"5/s\" tls = \"encrypt\" }\n"
                 "provider P { override = true connections = 9\n"
                 "  source \"192.0.2.1\" { connections = 4 } }\n",
                 base, &e);
    assert_non_null(r);
    const struct slice host = SLICE("mx.p.test");
    struct rules_place place;
    rules_place(r, &host, 1, SLICE("d.test"), &place);
    rules_limits(r, &place, SLICE("192.0.2.2"), &l);
    assert_true(l.message_rate > 4.9 && l.message_rate < 5.1);
    assert_int_equal(l.tls, RULES_TLS_ENCRYPT);
    assert_int_equal(l.connections, 9);
    assert_int_equal(l.daily_cap, 50);
    rules_limits(r, &place, SLICE("192.0.2.1"), &l);
    assert_int_equal(l.connections, 4);
    assert_int_equal(l.messages_per_connection, 9);
    assert_string_equal(rules_override(r, 0),
                        "a.conf:3: changes provider p of b.conf:2; connections 9 instead of 7; "
                        "source 192.0.2.1: connections 4 instead of 3");
    assert_string_equal(rules_override(r, 1),
                        "a.conf:2: changes default of b.conf:1; message_rate 5/s instead of 100/s; "
                        "tls encrypt instead of nothing");
    assert_null(rules_override(r, 2));
    rules_free(r);
    /* how a provider is recognised */
    r = load_two("include = {\"b.conf\"}\nprovider p { override = true hosts = {\"x.test\"} }",
                 base, &e);
    const struct slice other = SLICE("x.test");
    rules_place(r, &other, 1, SLICE("d.test"), &place);
    assert_string_equal(place.provider, "p");
    rules_free(r);
}

static void test_an_override_without_its_section_is_a_mistake(void **state)
{
    static const char base[] = "default { connections = 2 }\nprovider p { mx = {\".p.test\"} }\n";
    static const struct {
        const char *own, *says;
    } cases[] = {
        {"provider q { override = true connections = 2 }",
         "a.conf:2: provider q: override = true, but"},
        {"site p { override = true connections = 2 }", "a.conf:2: site p: override = true, but"},
        {"provider p { mx = {\".p.test\"} }", "with override = true a section changes"},
        {"default { connections = 3 }", "there is one already (a.conf:2); write both as one, or"},
        {"default { override = true connections = 3 }\ndefault { override = true tls = \"may\" }",
         "a.conf:3: default: there is one already in line 2"},
    };
    struct err e;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char own[300];
        snprintf(own, sizeof own, "include = {\"b.conf\"}\n%s\n", cases[i].own);
        assert_null(load_two(own, base, &e));
        if (!strstr(e.text, cases[i].says))
            fail_msg("%s instead of %s", e.text, cases[i].says);
    }
    /* nobody changes what it does not include */
    assert_null(load_two("include = {\"b.conf\"}\ndefault { connections = 2 }\n",
                         "default { override = true connections = 3 }", &e));
    assert_non_null(strstr(e.text, "b.conf:1: default: override = true, but no file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_included_files_belong_to_the_set),
        cmocka_unit_test(test_a_section_may_override_that_of_an_included_file),
        cmocka_unit_test(test_an_override_without_its_section_is_a_mistake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

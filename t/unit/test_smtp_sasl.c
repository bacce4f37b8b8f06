/* libraries: postern_smtp postern_conf */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "conf/sasl.h"
#include "smtp/sasl.h"

static void base64_of_rfc_4648(void **state)
{
    /* section 10 */
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    char out[16];
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct buf b = BUF_INIT(100);
        struct slice plain = slice_str(pairs[i][0]), coded = slice_str(pairs[i][1]);
        assert_int_equal(base64_encode(plain, &b), 0);
        assert_true(slice_eq(buf_slice(&b), coded));
        assert_int_equal(base64_decode(coded, out, sizeof out), (long)plain.len);
        assert_memory_equal(out, plain.ptr, plain.len);
        if (plain.len)
            assert_int_equal(base64_decode(coded, out, plain.len - 1), -1);
        assert_int_equal(base64_decode(coded, out, plain.len), (long)plain.len);
        buf_free(&b);
    }
}

static void B14_base64_without_tolerance(void **state)
{
    static const char *const bad[] = {"Z",     "Zg",       "Zg=",  "Zg===",    "=",      "====",
                                      "Z===",  "Zh==",     "Zm9=", "Zm 9v",    "Zm9v\n", " Zm9v",
                                      "Zm9v=", "Zg==Zg==", "Zm-_", "Zm9v====", "Z=g="};
    char out[64];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (base64_decode(slice_str(bad[i]), out, sizeof out) >= 0)
            fail_msg("%s is taken", bad[i]);
    assert_int_equal(base64_decode(slice_make("Zm\0v", 4), out, sizeof out), -1);
    assert_int_equal(base64_decode(slice_make("Zm\xe9v", 4), out, sizeof out), -1);
}

static void plain_messages(void **state)
{
    struct sasl_plain p;
    char longest[2 * SASL_PASSWORD_MAX + 8];
    (void)state;
    assert_int_equal(sasl_plain_parse(SLICE("\0web\0secret"), &p), 0);
    assert_true(p.authzid.len == 0 && slice_eq(p.user, SLICE("web")) &&
                slice_eq(p.password, SLICE("secret")));
    assert_int_equal(sasl_plain_parse(SLICE("root\0web\0x"), &p), 0);
    assert_true(slice_eq(p.authzid, SLICE("root")));
    assert_int_equal(sasl_plain_parse(SLICE(""), &p), -1);
    assert_int_equal(sasl_plain_parse(SLICE("web"), &p), -1);
    assert_int_equal(sasl_plain_parse(SLICE("web\0secret"), &p), -1);
    assert_int_equal(sasl_plain_parse(SLICE("\0\0secret"), &p), -1);
    assert_int_equal(sasl_plain_parse(SLICE("\0web\0"), &p), -1);
    assert_int_equal(sasl_plain_parse(SLICE("\0web\0a\0b"), &p), -1);
    memset(longest, 'p', sizeof longest);
    memcpy(longest, "\0u\0", 3);
    assert_int_equal(sasl_plain_parse(slice_make(longest, 3 + SASL_PASSWORD_MAX), &p), 0);
    assert_int_equal(sasl_plain_parse(slice_make(longest, 4 + SASL_PASSWORD_MAX), &p), -1);
}

static void mechanism_names(void **state)
{
    (void)state;
    assert_true(sasl_is_mechanism(SLICE("SCRAM-SHA-256-PLUS")));
    assert_false(sasl_is_mechanism(SLICE("")));
    assert_false(sasl_is_mechanism(SLICE("plain")));
    assert_false(sasl_is_mechanism(SLICE("A B")));
    assert_false(sasl_is_mechanism(SLICE("AAAAAAAAAAAAAAAAAAAAA")));
}

static void options(void **state)
{
    unsigned plain = SASL_PLAINTEXT, scram = SASL_MUTUAL_AUTH;
    (void)state;
    assert_true(sasl_permits(sasl_options(""), plain));
    assert_true(sasl_permits(sasl_options("noanonymous"), plain));
    assert_false(sasl_permits(sasl_options("noanonymous, noplaintext"), plain));
    assert_true(sasl_permits(sasl_options("noanonymous noplaintext"), scram));
    assert_false(sasl_permits(sasl_options("mutual_auth"), plain));
    assert_true(sasl_permits(sasl_options("mutual_auth"), scram));
    assert_false(sasl_permits(sasl_options("mutual_auth forward_secrecy"), scram));
    assert_false(sasl_permits(sasl_options("noanonymous"), SASL_ANONYMOUS));
    assert_int_equal(sasl_option(SLICE("noplain")), 0);
}

static void which_mechanisms_a_filter_leaves(void **state)
{
    static const struct {
        const char *filter;
        bool scram, plain, external;
    } rows[] = {
        {"", true, true, true},
        {"plain, login", false, true, false},
        {"PLAIN", false, true, false},
        {"!external, static:rest", true, true, false}, /* Postfix's default */
        {"!external", false, false, false},
        {"static:all, !plain", true, true, true},
        {"!scram-sha-256 !scram-sha-256-plus static:all", false, true, true},
        {"plai, plainer, scram", false, false, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *f = rows[i].filter;
        assert_int_equal(sasl_filter_permits(f, SLICE("SCRAM-SHA-256")), rows[i].scram);
        assert_int_equal(sasl_filter_permits(f, SLICE("PLAIN")), rows[i].plain);
        assert_int_equal(sasl_filter_permits(f, SLICE("EXTERNAL")), rows[i].external);
        assert_int_equal(sasl_filter_leaves_any(f),
                         rows[i].scram || rows[i].plain || rows[i].external);
    }
    static const char *const good[] = {"plain", "!Login", "static:rest", "!static:all",
                                       "SCRAM-SHA-256-PLUS"};
    static const char *const bad[] = {
        "",       "!", "hash:/etc/x", "/etc/file", "a b", "pl\303\244in", "a-name-of-21-letters-",
        "!!plain"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(sasl_filter_element(slice_str(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(sasl_filter_element(slice_str(bad[i])));
}

static void where_dovecot_is(void **state)
{
    char out[SASL_ENDPOINT_MAX + 1], longest[SASL_ENDPOINT_MAX + 10];
    (void)state;
    assert_int_equal(sasl_endpoint("private/auth", out), 0);
    assert_string_equal(out, "unix:private/auth");
    assert_int_equal(sasl_endpoint("inet:127.0.0.1:12345", out), 0);
    assert_string_equal(out, "inet:127.0.0.1:12345");
    assert_int_equal(sasl_endpoint("unix:/run/dovecot/auth", out), 0);
    assert_string_equal(out, "unix:/run/dovecot/auth");
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(sasl_endpoint(longest, out), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_of_rfc_4648),
        cmocka_unit_test(B14_base64_without_tolerance),
        cmocka_unit_test(plain_messages),
        cmocka_unit_test(mechanism_names),
        cmocka_unit_test(options),
        cmocka_unit_test(which_mechanisms_a_filter_leaves),
        cmocka_unit_test(where_dovecot_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

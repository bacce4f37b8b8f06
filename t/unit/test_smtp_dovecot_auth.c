/* libraries: postern_smtp */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "smtp/dovecot_auth.h"

static struct dovecot_line parsed(const char *line)
{
    struct dovecot_line l;
    if (dovecot_parse(slice_str(line), &l) < 0)
        fail_msg("%s is not read", line);
    return l;
}

static void handshake(void **state)
{
    struct dovecot_line l = parsed("VERSION\t1\t2");
    (void)state;
    assert_int_equal(l.kind, DOVECOT_VERSION);
    assert_int_equal(l.number, 1);
    l = parsed("MECH\tSCRAM-SHA-256\tmutual-auth");
    assert_int_equal(l.kind, DOVECOT_MECH);
    assert_true(slice_eq(l.name, SLICE("SCRAM-SHA-256")));
    assert_int_equal(l.traits, SASL_MUTUAL_AUTH);
    l = parsed("MECH\tLOGIN\tplaintext\tnew-word");
    assert_int_equal(l.traits, SASL_PLAINTEXT);
    assert_int_equal(parsed("MECH\tX\tprivate").kind, DOVECOT_OTHER);
    assert_int_equal(parsed("DONE").kind, DOVECOT_DONE);
    assert_int_equal(parsed("COOKIE\tabc").kind, DOVECOT_OTHER);
    assert_int_equal(parsed("").kind, DOVECOT_OTHER);
}

static void answers(void **state)
{
    struct dovecot_line l = parsed("OK\t17\tuser=web@acme.test\tresp=dj1z");
    (void)state;
    assert_int_equal(l.kind, DOVECOT_OK);
    assert_int_equal(l.number, 17);
    assert_true(slice_eq(slice_make(l.user, l.user_len), SLICE("web@acme.test")));
    assert_true(slice_eq(l.data, SLICE("dj1z")));
    l = parsed("FAIL\t18\tuser=a\001tb\001n\0011\treason=no\001r");
    assert_int_equal(l.kind, DOVECOT_FAIL);
    assert_false(l.temporary);
    assert_true(slice_eq(slice_make(l.user, l.user_len), SLICE("a\tb\n\001")));
    assert_true(slice_eq(slice_make(l.reason, l.reason_len), SLICE("no\r")));
    l = parsed("FAIL\t19");
    assert_false(l.temporary);
    assert_int_equal(l.user_len, 0);
    l = parsed("CONT\t20\t");
    assert_int_equal(l.kind, DOVECOT_CONT);
    assert_int_equal(l.data.len, 0);
}

/* Lines as Dovecot 2.3.19 sends them, and the bare words of 2.2. */
static void why_a_login_fails(void **state)
{
    static const struct {
        const char *line, *why;
        bool temporary;
    } cases[] = {
        {"FAIL\t1\tuser=web\tcode=temp_fail\toriginal_user=web@acme.test", NULL, true},
        {"FAIL\t1\tuser=web\ttemp", NULL, true},
        {"FAIL\t1\tuser=web\toriginal_user=web@acme.test", NULL, false},
        {"FAIL\t1\tuser=web\tcode=user_disabled", "the user is disabled", false},
        {"FAIL\t1\tuser=web\tuser_disabled", "the user is disabled", false},
        {"FAIL\t1\tuser=web\tcode=pass_expired", "the password has expired", false},
        {"FAIL\t1\tuser=web\tcode=authz_fail", "may not act as the other user", false},
        {"FAIL\t1\tuser=web\tcode=new_word", NULL, false},
        {"FAIL\t1\tuser=temp\tcode=", NULL, false},
        {"OK\t1\tuser=web\ttemp", NULL, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct dovecot_line l = parsed(cases[i].line);
        assert_int_equal(l.temporary, cases[i].temporary);
        assert_true((l.why != NULL) == (cases[i].why != NULL));
        if (l.why)
            assert_string_equal(l.why, cases[i].why);
    }
}

static void B89_lines_that_break_the_protocol(void **state)
{
    static const char *const bad[] = {
        "VERSION", "VERSION\tx",   "OK",        "OK\t",
        "OK\t-1",  "FAIL\tuser=a", "CONT\tabc", "OK\t99999999999999999999"};
    struct dovecot_line l;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(dovecot_parse(slice_str(bad[i]), &l), -1);
}

static void requests(void **state)
{
    struct buf b = BUF_INIT(1000);
    struct slice initial = SLICE("AGE=");
    (void)state;
    dovecot_hello(42, &b);
    dovecot_request(&(struct dovecot_request){.number = 1,
                                              .mechanism = SLICE("PLAIN"),
                                              .client = SLICE("192.0.2.1"),
                                              .server = SLICE("192.0.2.2"),
                                              .secured = true,
                                              .initial = &initial},
                    &b);
    dovecot_request(&(struct dovecot_request){.number = 2, .mechanism = SLICE("LOGIN")}, &b);
    dovecot_continue(2, SLICE("d2Vi"), &b);
    dovecot_cancel(2, &b);
    assert_true(slice_eq(buf_slice(&b),
                         SLICE("VERSION\t1\t2\nCPID\t42\n"
                               "AUTH\t1\tPLAIN\tservice=smtp\tnologin\tsecured\trip=192.0.2.1"
                               "\tlip=192.0.2.2\tresp=AGE=\n"
                               "AUTH\t2\tLOGIN\tservice=smtp\tnologin\n"
                               "CONT\t2\td2Vi\nCANCEL\t2\n")));
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handshake),         cmocka_unit_test(answers),
        cmocka_unit_test(why_a_login_fails), cmocka_unit_test(B89_lines_that_break_the_protocol),
        cmocka_unit_test(requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

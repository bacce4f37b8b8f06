/* libraries: postern_tls */
/* MTA-STS records and policies (RFC 8461), TLSRPT records (RFC 8460). */
#include "unit.h"

#include <stdio.h>

#include "tls/mta_sts.h"
#include "tls/tlsrpt.h"

static const struct {
    const char *text, *id; /* NULL: no record */
} records[] = {
    {"v=STSv1; id=20160831085700Z;", "20160831085700Z"},
    {"v=STSv1;id=1", "1"},
    {"v=STSv1 ; other=x; id=a1 ; ", "a1"},
    {"v=STSv1; id=1; id=2;", "1"},
    {"v=STSv1; id=;", NULL},
    {"v=STSv1;", NULL},
    {"id=1; v=STSv1;", NULL},
    {"v=STSv2; id=1;", NULL},
    {"v=STSv1; id=not-alnum;", NULL},
    {"v=STSv1; id=123456789012345678901234567890123;", NULL},
    {"", NULL},
    {"v=spf1 -all", NULL},
};

static void test_record(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
        char id[MTA_STS_ID_MAX + 1] = "";
        int rc = mta_sts_record_parse(slice_str(records[i].text), id);
        if ((rc == 0) != (records[i].id != NULL) || (rc == 0 && strcmp(id, records[i].id) != 0))
            fail_msg("\"%s\": %d \"%s\"", records[i].text, rc, id);
    }
}

static void test_policy(void **state)
{
    (void)state;
    struct mta_sts_policy p;
    assert_int_equal(mta_sts_policy_parse(SLICE("version: STSv1\r\nmode: enforce\r\n"
                                                "mx: Mail.example.com\r\nmx: *.example.net\r\n"
                                                "x-other: 1\r\nmax_age: 604800\r\nmode: none\r\n"),
                                          &p, NULL),
                     0);
    assert_int_equal(p.mode, MTA_STS_ENFORCE);
    assert_int_equal(p.max_age, 604800);
    assert_slice_is(buf_slice(&p.mx), "mail.example.com *.example.net ");
    buf_free(&p.mx);
    assert_int_equal(
        mta_sts_policy_parse(SLICE("version:STSv1\nmode:none\nmax_age:9999999999"), &p, NULL), 0);
    assert_int_equal(p.mode, MTA_STS_NONE);
    assert_int_equal(p.max_age, MTA_STS_AGE_MAX);
    buf_free(&p.mx);
}

static void test_B75_policy_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "<html>not found</html>",
        "version: STSv1\nmode: enforce\nmax_age: 1\n",
        "version: STSv1\nmode: enforce\nmx: a.example\n",
        "version: STSv1\nmax_age: 1\nmx: a.example\n",
        "mode: enforce\nmax_age: 1\nmx: a.example\n",
        "version: STSv2\nmode: enforce\nmax_age: 1\nmx: a.example\n",
        "version: STSv1\nmode: strict\nmax_age: 1\nmx: a.example\n",
        "version: STSv1\nmode: enforce\nmax_age: -1\nmx: a.example\n",
        "version: STSv1\nmode: enforce\nmax_age: 99999999999\nmx: a.example\n",
        "version: STSv1\nmode: enforce\nmax_age: 1\nmx: *\n",
        "version: STSv1\nmode: enforce\nmax_age: 1\nmx: a.*.example\n",
        "version: STSv1\nmode: enforce\nmax_age: 1\nmx: a b\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct mta_sts_policy p;
        struct err e = {0, ""};
        if (mta_sts_policy_parse(slice_str(bad[i]), &p, &e) == 0 || !*e.text)
            fail_msg("\"%s\" is taken", bad[i]);
    }
}

static void test_B75_policy_limits(void **state)
{
    (void)state;
    struct mta_sts_policy p;
    struct buf text = BUF_INIT(2 * MTA_STS_POLICY_MAX);
    buf_addstr(&text, "version: STSv1\nmode: enforce\nmax_age: 1\n");
    for (int i = 0; i < MTA_STS_MX_MAX; i++)
        buf_printf(&text, "mx: mx%d.example\n", i);
    assert_int_equal(mta_sts_policy_parse(buf_slice(&text), &p, NULL), 0);
    assert_true(mta_sts_mx_matches(buf_slice(&p.mx), SLICE("mx99.example")));
    buf_free(&p.mx);
    buf_addstr(&text, "mx: more.example\n");
    assert_int_equal(mta_sts_policy_parse(buf_slice(&text), &p, NULL), -1);
    buf_clear(&text);
    while (text.len <= MTA_STS_POLICY_MAX)
        buf_addstr(&text, "x: y\n");
    assert_int_equal(mta_sts_policy_parse(buf_slice(&text), &p, NULL), -1);
    buf_free(&text);
}

static void test_mx_matches(void **state)
{
    (void)state;
    struct slice patterns = SLICE("mail.example.com *.example.net ");
    assert_true(mta_sts_mx_matches(patterns, SLICE("MAIL.example.com")));
    assert_true(mta_sts_mx_matches(patterns, SLICE("a.example.net")));
    assert_false(mta_sts_mx_matches(patterns, SLICE("a.b.example.net")));
    assert_false(mta_sts_mx_matches(patterns, SLICE("example.net")));
    assert_false(mta_sts_mx_matches(patterns, SLICE(".example.net")));
    assert_false(mta_sts_mx_matches(patterns, SLICE("mail.example.org")));
    assert_false(mta_sts_mx_matches(SLICE(""), SLICE("")));
}

static void test_tlsrpt(void **state)
{
    (void)state;
    struct tlsrpt_record r;
    assert_int_equal(tlsrpt_record_parse(SLICE("v=TLSRPTv1; rua=mailto:tls%2Brpt@example.com,"
                                               "https://x.example/y, mailto:b@example.org?z=1"),
                                         &r),
                     0);
    assert_int_equal(r.count, 2);
    assert_string_equal(r.mailbox[0], "tls+rpt@example.com");
    assert_string_equal(r.mailbox[1], "b@example.org");
    assert_int_equal(tlsrpt_record_parse(SLICE("v=TLSRPTv1;rua=https://x.example/"), &r), 0);
    assert_int_equal(r.count, 0);
    assert_int_equal(tlsrpt_record_parse(SLICE("v=TLSRPTv1"), &r), -1);
    assert_int_equal(tlsrpt_record_parse(SLICE("rua=mailto:a@b.example; v=TLSRPTv1"), &r), -1);
    static const char *const bad[] = {"a",
                                      "@b.example",
                                      "a@",
                                      "a b@c.example",
                                      "a@b..c",
                                      "a%0d%0ab@c.example",
                                      "<a@b.example>",
                                      "a%2",
                                      "a%zz@b.example",
                                      "a@b@c.example/"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[100];
        snprintf(text, sizeof text, "v=TLSRPTv1; rua=mailto:%s", bad[i]);
        assert_int_equal(tlsrpt_record_parse(slice_str(text), &r), 0);
        if (r.count)
            fail_msg("\"%s\" is taken", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_policy),
        cmocka_unit_test(test_B75_policy_refused),
        cmocka_unit_test(test_B75_policy_limits),
        cmocka_unit_test(test_mx_matches),
        cmocka_unit_test(test_tlsrpt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

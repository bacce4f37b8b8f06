/* libraries: postern_core postern_smtp */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "smtp/params.h"

static void test_B23_mail_parameters(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        int code; /* 0: taken */
        struct mail_params want;
    } rows[] = {
        {"", 0, {0}},
        {" ", 0, {0}},
        {" SIZE=1000 BODY=8BITMIME", 0, {.size = 1000, .body = BODY_8BITMIME}},
        {" size=0 body=7bit smtputf8", 0, {.body = BODY_7BIT, .smtputf8 = true}},
        {" RET=HDRS ENVID=QQ+2B+3D", 0, {.ret = RET_HDRS, .envid_len = 4, .envid = "QQ+="}},
        {" RET=full  SIZE=18446744073709551615", 0, {.ret = RET_FULL, .size = UINT64_MAX}},
        {" SIZE=-1", 501, {0}},
        {" SIZE=+1", 501, {0}},
        {" SIZE=1k", 501, {0}},
        {" SIZE=18446744073709551616", 501, {0}},
        {" SIZE=99999999999999999999999", 501, {0}},
        {" SIZE=", 501, {0}},
        {" SIZE", 501, {0}},
        {" SIZE=1 SIZE=1", 501, {0}},
        {" SMTPUTF8 SMTPUTF8", 501, {0}},
        {" SMTPUTF8=1", 501, {0}},
        {" REQUIRETLS", 0, {.requiretls = true}},
        {" REQUIRETLS=1", 501, {0}},
        {" BODY=BINARYMIME", 501, {0}},
        {" BODY=", 501, {0}},
        {" RET=ALL", 501, {0}},
        {" FOO", 555, {0}},
        {" FOO=BAR SIZE=1", 555, {0}},
        {" =1", 555, {0}},
        {" NOTIFY=NEVER", 555, {0}},
        /* B29 */
        {" ENVID=a+00", 501, {0}},
        {" ENVID=a+0A", 501, {0}},
        {" ENVID=a+GG", 501, {0}},
        {" ENVID=a+4", 501, {0}},
        {" ENVID=a+", 501, {0}},
        {" ENVID=a=b", 501, {0}},
        {" ENVID=+C3+A4", 501, {0}},
        {" ENVID=\xc3\xa4", 501, {0}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct mail_params p;
        struct refusal why = {0};
        int rc = mail_params_parse(slice_str(rows[i].in), &p, &why);
        if (rc != (rows[i].code ? -1 : 0) || why.code != rows[i].code)
            fail_msg("%s: %d, code %d", rows[i].in, rc, why.code);
        if (rc < 0) {
            assert_string_equal(why.enhanced, "5.5.4");
            continue;
        }
        assert_true(p.size == rows[i].want.size);
        assert_int_equal(p.body, rows[i].want.body);
        assert_int_equal(p.smtputf8, rows[i].want.smtputf8);
        assert_int_equal(p.requiretls, rows[i].want.requiretls);
        assert_int_equal(p.ret, rows[i].want.ret);
        assert_true(slice_eq(mail_envid(&p), mail_envid(&rows[i].want)));
    }
}

static void test_B29_recipient_parameters(void **state)
{
    (void)state;
    enum { ALL = NOTIFY_SUCCESS | NOTIFY_FAILURE | NOTIFY_DELAY };
    static const struct {
        const char *in;
        bool smtputf8;
        int code;
        uint8_t notify;
        const char *orcpt;
    } rows[] = {
        {"", false, 0, 0, ""},
        {" NOTIFY=NEVER", false, 0, NOTIFY_NEVER, ""},
        {" notify=success,FAILURE,delay", false, 0, ALL, ""},
        {" ORCPT=rfc822;Bob+2Bx@b.example NOTIFY=FAILURE", false, 0, NOTIFY_FAILURE,
         "rfc822;Bob+x@b.example"},
        {" ORCPT=utf-8;\\x{E4}@b", false, 0, 0, "utf-8;\xc3\xa4@b"},
        {" ORCPT=UTF-8;\\x{1F600}\\x{5C}@b", false, 0, 0, "UTF-8;\xf0\x9f\x98\x80\\@b"},
        {" ORCPT=utf-8;\xc3\xa4@b", true, 0, 0, "utf-8;\xc3\xa4@b"},
        {" ORCPT=utf-8;\xc3\xa4@b", false, 501, 0, ""},
        {" ORCPT=utf-8;\xc3@b", true, 501, 0, ""},
        {" ORCPT=utf-8;\\x{D800}", true, 501, 0, ""},
        {" ORCPT=utf-8;\\x{110000}", true, 501, 0, ""},
        {" ORCPT=utf-8;\\x{A}", true, 501, 0, ""},
        {" ORCPT=utf-8;\\x{}", true, 501, 0, ""},
        {" ORCPT=utf-8;\\x{41", true, 501, 0, ""},
        {" ORCPT=utf-8;\\n", true, 501, 0, ""},
        {" ORCPT=utf-8;a+2B", true, 501, 0, ""},
        {" NOTIFY=NEVER,FAILURE", false, 501, 0, ""},
        {" NOTIFY=FAILURE,FAILURE", false, 501, 0, ""},
        {" NOTIFY=", false, 501, 0, ""},
        {" NOTIFY=FAILURE,", false, 501, 0, ""},
        {" NOTIFY=,FAILURE", false, 501, 0, ""},
        {" NOTIFY=SOMETIMES", false, 501, 0, ""},
        {" NOTIFY=DELAY NOTIFY=DELAY", false, 501, 0, ""},
        {" ORCPT=a@b", false, 501, 0, ""},
        {" ORCPT=;a@b", false, 501, 0, ""},
        {" ORCPT=rfc822;", false, 501, 0, ""},
        {" ORCPT=rfc 822;a@b", false, 501, 0, ""},
        {" ORCPT=rfc822;a+00@b", false, 501, 0, ""},
        {" ORCPT=rfc822;a+0D+0A@b", false, 501, 0, ""},
        {" ORCPT=rfc822;a+zz@b", false, 501, 0, ""},
        {" SIZE=1", false, 555, 0, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct rcpt_params p;
        struct refusal why = {0};
        int rc = rcpt_params_parse(slice_str(rows[i].in), rows[i].smtputf8, &p, &why);
        if (rc != (rows[i].code ? -1 : 0) || why.code != rows[i].code)
            fail_msg("%s: %d, code %d", rows[i].in, rc, why.code);
        if (rc < 0)
            continue;
        assert_int_equal(p.notify, rows[i].notify);
        assert_true(slice_eq(rcpt_orcpt(&p), slice_str(rows[i].orcpt)));
    }
}

static void test_B29_long_values(void **state)
{
    (void)state;
    for (size_t extra = 0; extra < 2; extra++) {
        struct buf mail = BUF_INIT(2000), rcpt = BUF_INIT(2000);
        struct mail_params m;
        struct rcpt_params r;
        struct refusal why;
        buf_addstr(&mail, " ENVID=");
        buf_addstr(&rcpt, " ORCPT=rfc822;");
        for (size_t i = 0; i < ENVID_MAX + extra; i++)
            buf_addc(&mail, 'x');
        for (size_t i = sizeof "rfc822;" - 1; i < ORCPT_MAX + extra; i++)
            buf_addc(&rcpt, 'x');
        assert_int_equal(mail_params_parse(buf_slice(&mail), &m, &why), extra ? -1 : 0);
        assert_int_equal(rcpt_params_parse(buf_slice(&rcpt), false, &r, &why), extra ? -1 : 0);
        buf_free(&mail);
        buf_free(&rcpt);
    }
}

static void test_xtext_and_orcpt_are_encoded(void **state)
{
    (void)state;
    static const struct {
        const char *orcpt;
        bool smtputf8;
        const char *wire; /* NULL: cannot be */
    } rows[] = {
        {"rfc822;a+b=c d@e", false, "rfc822;a+2Bb+3Dc+20d@e"},
        {"utf-8;\xc3\xa4@b", false, "utf-8;\\x{E4}@b"},
        {"utf-8;\xc3\xa4@b", true, "utf-8;\xc3\xa4@b"},
        {"utf-8;\xe2\x82\xac\xf0\x9f\x98\x80", false, "utf-8;\\x{20AC}\\x{1F600}"},
        {"utf-8;a+b\\c d@e", true, "utf-8;a\\x{2B}b\\x{5C}c\\x{20}d@e"},
        {"no type", false, NULL},
        {"", false, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf out = BUF_INIT(1000), back = BUF_INIT(1000);
        int rc = orcpt_encode(slice_str(rows[i].orcpt), rows[i].smtputf8, &out);
        assert_int_equal(rc, rows[i].wire ? 0 : -1);
        assert_true(slice_eq(buf_slice(&out), slice_str(rows[i].wire)));
        if (rc == 0) {
            assert_int_equal(orcpt_decode(buf_slice(&out), rows[i].smtputf8, &back), 0);
            assert_true(slice_eq(buf_slice(&back), slice_str(rows[i].orcpt)));
        }
        buf_free(&out);
        buf_free(&back);
    }
    struct buf out = BUF_INIT(1000), back = BUF_INIT(1000);
    assert_int_equal(xtext_encode(SLICE("a\0\r\n\xff+="), &out), 0);
    assert_true(slice_eq(buf_slice(&out), SLICE("a+00+0D+0A+FF+2B+3D")));
    assert_int_equal(xtext_decode(buf_slice(&out), &back), 0);
    assert_true(slice_eq(buf_slice(&back), SLICE("a\0\r\n\xff+=")));
    buf_free(&out);
    buf_free(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_B23_mail_parameters),
        cmocka_unit_test(test_B29_recipient_parameters),
        cmocka_unit_test(test_B29_long_values),
        cmocka_unit_test(test_xtext_and_orcpt_are_encoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: postern_core postern_smtp */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "smtp/ehlo.h"

struct row {
    struct slice in;
    enum reply_status status;
    size_t consumed;
    int code;
    const char *enhanced, *text;
};
#define IN(text) SLICE(text)

static const struct row rows[] = {
    {IN("250 ok\r\n250 next\r\n"), REPLY_DONE, 8, 250, "", "ok"},
    {IN("250-a\r\n250-b\r\n250 c\r\n"), REPLY_DONE, 21, 250, "", "a b c"},
    {IN("550 5.1.1 No such user\r\n"), REPLY_DONE, 24, 550, "5.1.1", "5.1.1 No such user"},
    {IN("450 4.222.333\r\n"), REPLY_DONE, 15, 450, "4.222.333", "4.222.333"},
    {IN("550 4.1.1 class of another code\r\n"), REPLY_DONE, 33, 550, "", NULL},
    {IN("354 3.1.1 no such class\r\n"), REPLY_DONE, 25, 354, "", NULL},
    {IN("550 5.1.1.1 x\r\n"), REPLY_DONE, 15, 550, "", NULL},
    {IN("550 5.1111.1 x\r\n"), REPLY_DONE, 16, 550, "", NULL},
    {IN("550 5..1 x\r\n"), REPLY_DONE, 12, 550, "", NULL},
    {IN("250-\r\n250 \r\n"), REPLY_DONE, 12, 250, "", ""},
    {IN("250 ok\n"), REPLY_DONE, 7, 250, "", "ok"},
    {IN("250-ok\r\n"), REPLY_MORE, 8, 0, "", NULL},
    {IN("25"), REPLY_MORE, 2, 0, "", NULL},
    /* B41, B43: no text, no separator */
    {IN("250\r\n"), REPLY_DONE, 5, 250, "", ""},
    {IN("250\n"), REPLY_DONE, 4, 250, "", ""},
    {IN("250-a\r\n250\r\n"), REPLY_DONE, 12, 250, "", "a"},
    {IN("25\r\n"), REPLY_MALFORMED, 3, 0, "", NULL},
    {IN("999 no\r\n"), REPLY_MALFORMED, 1, 0, "", NULL},
    {IN("150 no\r\n"), REPLY_MALFORMED, 1, 0, "", NULL},
    {IN("2500 no\r\n"), REPLY_MALFORMED, 4, 0, "", NULL},
    {IN("250_no\r\n"), REPLY_MALFORMED, 4, 0, "", NULL},
    {IN("HTTP/1.1 400\r\n"), REPLY_MALFORMED, 1, 0, "", NULL},
    {IN("\r\n"), REPLY_MALFORMED, 1, 0, "", NULL},
    {IN("250\rx\r\n"), REPLY_MALFORMED, 5, 0, "", NULL},
    {IN("250 a\0b\r\n"), REPLY_MALFORMED, 9, 0, "", NULL},
    {IN("250 a\rb\r\n"), REPLY_MALFORMED, 9, 0, "", NULL},
    {IN("250 a\xe4\r\n"), REPLY_MALFORMED, 8, 0, "", NULL},
    {IN("250-ok\r\n\r\n"), REPLY_MALFORMED, 9, 0, "", NULL},
    /* B42 */
    {IN("250-a\r\n550 b\r\n"), REPLY_MIXED, 14, 0, "", NULL},
    /* B44: kept as it is, escaped where it is shown */
    {IN("550 \x1b[2J\\r\\n250 ok\r\n"), REPLY_DONE, 20, 550, "", "\x1b[2J\\r\\n250 ok"},
};

static void check(const struct row *row, struct smtp_reply *r, size_t step)
{
    enum reply_status status = REPLY_MORE;
    size_t consumed = 0;
    reply_reset(r);
    for (struct slice in = row->in; in.len && status == REPLY_MORE;) {
        size_t n;
        status = reply_feed(r, slice_first(in, step), &n);
        consumed += n;
        in = slice_from(in, n);
    }
    if (status != row->status || consumed != row->consumed)
        fail_msg("%.*s by %zu: status %d, consumed %zu", (int)row->in.len, row->in.ptr, step,
                 status, consumed);
    if (status != REPLY_DONE)
        return;
    assert_int_equal(r->code, row->code);
    assert_string_equal(r->enhanced, row->enhanced);
    struct buf text = BUF_INIT(1000);
    reply_text(r, &text, 1000);
    if (row->text)
        assert_true(slice_eq(buf_slice(&text), slice_str(row->text)));
    buf_free(&text);
}

static void test_B41_B44_replies_in_any_pieces(void **state)
{
    (void)state;
    struct smtp_reply r;
    reply_init(&r);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t step = 1; step < 60; step++)
            check(&rows[i], &r, step);
    reply_free(&r);
}

static void test_B40_endless_reply(void **state)
{
    (void)state;
    struct smtp_reply r;
    enum reply_status status = REPLY_MORE;
    size_t n;
    int lines = 0;
    reply_init(&r);
    for (; status == REPLY_MORE; lines++)
        status = reply_feed(&r, SLICE("250-x\r\n"), &n);
    assert_int_equal(status, REPLY_TOO_LONG);
    assert_int_equal(lines, REPLY_LINES_MAX);
    assert_int_equal(reply_feed(&r, SLICE("250 x\r\n"), &n), REPLY_TOO_LONG);
    assert_int_equal(n, 0);
    /* a last line that is the hundredth is fine */
    reply_reset(&r);
    for (int i = 1; i < REPLY_LINES_MAX; i++)
        assert_int_equal(reply_feed(&r, SLICE("250-x\r\n"), &n), REPLY_MORE);
    assert_int_equal(reply_feed(&r, SLICE("250 x\r\n"), &n), REPLY_DONE);
    /* one endless line */
    reply_reset(&r);
    status = reply_feed(&r, SLICE("250-"), &n);
    for (lines = 0; status == REPLY_MORE && lines < 10 * 1024; lines++)
        status = reply_feed(&r, SLICE("xxxxxxxxxxxxxxxx"), &n);
    assert_int_equal(status, REPLY_TOO_LONG);
    assert_true(r.text.len <= REPLY_BYTES_MAX);
    reply_free(&r);
}

static void test_utf8_where_it_was_asked_for(void **state)
{
    (void)state;
    struct smtp_reply r;
    size_t n;
    reply_init(&r);
    r.utf8 = true;
    assert_int_equal(reply_feed(&r, SLICE("250 \xc3\xa4\r\n"), &n), REPLY_DONE);
    reply_reset(&r);
    assert_int_equal(reply_feed(&r, SLICE("250 \xc3\r\n"), &n), REPLY_MALFORMED);
    reply_free(&r);
}

static void test_text_is_cut_at_its_limit(void **state)
{
    (void)state;
    struct smtp_reply r;
    struct buf text = BUF_INIT(100);
    size_t n;
    reply_init(&r);
    reply_feed(&r, SLICE("250-abc\r\n250-\r\n250 def\r\n"), &n);
    reply_text(&r, &text, 5);
    assert_true(slice_eq(buf_slice(&text), SLICE("abc d")));
    buf_free(&text);
    reply_free(&r);
}

static void test_ehlo_keywords(void **state)
{
    (void)state;
    struct smtp_reply r;
    struct ehlo e;
    size_t n;
    reply_init(&r);
    assert_int_equal(reply_feed(&r,
                                SLICE("250-SIZE 9 is no keyword here\r\n250-pipelining\r\n"
                                      "250-SIZE 10240000\r\n250-AUTH PLAIN  CRAM-MD5 X\r\n"
                                      "250-AUTH=LOGIN\r\n250-XFOO\r\n250-CHUNKINGX\r\n"
                                      "250-LIMITS RCPTMAX=50 mailmax=3 X=1 MAILMAX=0\r\n"
                                      "250-8BITMIME\r\n250 DSN\r\n"),
                                &n),
                     REPLY_DONE);
    ehlo_parse(&r, &e);
    assert_int_equal(e.features, EHLO_PIPELINING | EHLO_SIZE | EHLO_AUTH | EHLO_LIMITS |
                                     EHLO_8BITMIME | EHLO_DSN);
    assert_int_equal(e.auth, EHLO_AUTH_PLAIN | EHLO_AUTH_CRAM_MD5 | EHLO_AUTH_LOGIN);
    assert_true(e.size == 10240000 && e.mail_max == 3 && e.rcpt_max == 50);
    reply_reset(&r);
    reply_feed(&r, SLICE("250-host\r\n250-SIZE\r\n250 SIZE 99999999999999999999999\r\n"), &n);
    ehlo_parse(&r, &e);
    assert_int_equal(e.features, EHLO_SIZE);
    assert_true(e.size == 0);
    reply_free(&r);
}

static void test_B47_too_many_keywords(void **state)
{
    (void)state;
    struct smtp_reply r;
    size_t n;
    enum reply_status status = REPLY_MORE;
    reply_init(&r);
    for (int i = 0; i < 10000 && status == REPLY_MORE; i++)
        status = reply_feed(&r, SLICE("250-XKEYWORD\r\n"), &n);
    assert_int_equal(status, REPLY_TOO_LONG);
    assert_true(r.text.cap <= REPLY_BYTES_MAX);
    reply_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_B41_B44_replies_in_any_pieces),
        cmocka_unit_test(test_B40_endless_reply),
        cmocka_unit_test(test_utf8_where_it_was_asked_for),
        cmocka_unit_test(test_text_is_cut_at_its_limit),
        cmocka_unit_test(test_ehlo_keywords),
        cmocka_unit_test(test_B47_too_many_keywords),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

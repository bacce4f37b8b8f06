/* libraries: postern_core postern_mail */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mail/header.h"

static const struct header_limits limits = {.size = 1 << 20, .lines = 10000, .hops = 50};

struct row {
    const char *content;
    uint64_t size; /* of the header */
    bool no_blank_line;
    unsigned received, from;
    const char *message_id;
};

static const struct row rows[] = {
    {"From: a@b\r\nSubject: x\r\n\r\nbody: x\r\n", 25, false, 0, 1, ""},
    {"\r\nbody\r\n", 2, false, 0, 0, ""},
    {"", 0, false, 0, 0, ""},
    {"From: a\r\n", 9, false, 0, 1, ""},
    {"Received: a\r\n\tb\r\n c\r\nRECEIVED : d\r\n\r\n", 37, false, 2, 0, ""},
    {"From: a\r\nFROM: b\r\n\r\n", 20, false, 0, 2, ""},
    {"X-From: a\r\nFroms: b\r\n\r\n", 23, false, 0, 0, ""},
    {"Message-Id:  <a@b> \r\nMessage-ID: <c@d>\r\n\r\n", 42, false, 0, 0, "<a@b>"},
    {"Message-ID:\r\n <a@b>\r\n\r\n", 23, false, 0, 0, "<a@b>"},
    {"Message-ID:\r\n\r\n", 15, false, 0, 0, ""},
    /* B32: no blank line, leading space */
    {"just text\r\nFrom: a\r\n", 0, true, 0, 0, ""},
    {"just text", 0, true, 0, 0, ""},
    {" leading space\r\nFrom: a\r\n\r\n", 0, true, 0, 0, ""},
    {"\tFrom: a\r\n\r\n", 0, true, 0, 0, ""},
    {": no name\r\n\r\n", 0, true, 0, 0, ""},
    {"From: a\r\nthen text\r\n\r\nx: y\r\n", 9, true, 0, 1, ""},
    {"From: a\r\nna\xefve: b\r\n\r\n", 9, true, 0, 1, ""},
    {"From: a\r\nNoColon\r\n\r\n", 9, true, 0, 1, ""},
};

static void test_B32_headers_in_any_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t step = 1; step < 50; step++) {
            const struct row *r = &rows[i];
            struct slice in = slice_str(r->content);
            struct header_scan h;
            header_scan_init(&h, &limits);
            for (struct slice rest = in; rest.len; rest = slice_from(rest, step))
                header_scan_feed(&h, slice_first(rest, step));
            header_scan_end(&h);
            if (!h.done || h.size != r->size || h.no_blank_line != r->no_blank_line)
                fail_msg("row %zu by %zu: size %d", i, step, (int)h.size);
            assert_int_equal(h.count[HEADER_RECEIVED], r->received);
            assert_int_equal(h.count[HEADER_FROM], r->from);
            assert_true(
                slice_eq(slice_make(h.message_id, h.message_id_len), slice_str(r->message_id)));
            assert_null(header_refusal(&h));
            assert_int_equal(header_length(in), r->size);
        }
}

static void test_tls_required(void **state)
{
    static const struct {
        const char *content;
        bool no;
    } cases[] = {
        {"TLS-Required: No\r\n\r\n", true},
        {"tls-required:no\r\n\r\n", true},
        {"TLS-Required: \r\n NO \r\n\r\n", true},
        {"TLS-Required: Yes\r\n\r\n", false},
        {"TLS-Required: None\r\n\r\n", false},
        {"TLS-Required:\r\n\r\n", false},
        {"X: a\r\n\r\nTLS-Required: No\r\n", false},
        {"TLS-Required: x\r\nTLS-Required: No\r\n\r\n", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t step = 1; step < 40; step++) {
            struct header_scan h;
            header_scan_init(&h, &limits);
            for (struct slice rest = slice_str(cases[i].content); rest.len;
                 rest = slice_from(rest, step))
                header_scan_feed(&h, slice_first(rest, step));
            header_scan_end(&h);
            if (h.tls_not_required != cases[i].no)
                fail_msg("case %zu by %zu", i, step);
        }
}

static const struct refusal *feed_lines(const char *line, int count, const struct header_limits *l)
{
    struct header_scan h;
    header_scan_init(&h, l);
    for (int i = 0; i < count; i++)
        header_scan_feed(&h, slice_str(line));
    header_scan_feed(&h, SLICE("\r\n"));
    header_scan_end(&h);
    return header_refusal(&h);
}

/* Fed byte by byte, which splits everything. */
static void scan(struct header_scan *h, const char *text)
{
    const struct header_limits generous = {100000, 1000, 50};
    header_scan_init(h, &generous);
    header_scan_class(h, SLICE("X-Mail-Class"));
    for (struct slice rest = slice_str(text); rest.len; rest = slice_from(rest, 1))
        header_scan_feed(h, slice_first(rest, 1));
}

static void test_the_domain_that_answers_for_a_message(void **state)
{
    static const struct {
        const char *text, *domain;
    } cases[] = {
        {"From: \"x@y.test\" <a@News.Example.COM>\r\n\r\n", "news.example.com"},
        {"From: a@news.signer.test\r\nDKIM-Signature: v=1; a=rsa-sha256;\r\n\tbh=d=ab; d = Sig\r\n "
         "ner.test ; s=k; b=dd=\r\nDKIM-Signature: d=second.test\r\n\r\n",
         "signer.test"},
        /* anybody can write the domain of another */
        {"DKIM-Signature: d=victim.test; b=\r\nFrom: a@own.test\r\n\r\n", "own.test"},
        {"DKIM-Signature: d=test; b=\r\nFrom: a@own.test\r\n\r\n", "own.test"},
        {"DKIM-Signature: d=wn.test; b=\r\nFrom: a@own.test\r\n\r\n", "own.test"},
        {"DKIM-Signature: d=x1.own.test; b=\r\nFrom: a@own.test\r\n\r\n", "own.test"},
        {"From: a@own.test (x@victim.test)\r\n\r\n", "own.test"},
        {"From: Me (a \\) (b) c@victim.test) <a@own.test> (d@victim.test)\r\n\r\n", "own.test"},
        {"From: \"\\\" x@victim.test\" <a@own.test>\r\n\r\n", "own.test"},
        {"From: x@victim.test <a@own.test>\r\n\r\n", "own.test"},
        {"From: <a@own.test>, <b@victim.test>\r\n\r\n", "own.test"},
        {"From: a@own.test, b@victim.test\r\n\r\n", "own.test"},
        {"DKIM-Signature: v=1; dd=wrong.test; x=d=no; b=\r\nFrom: a@from.test\r\n\r\n",
         "from.test"},
        {"From: a@b\303\274cher.test\r\n\r\n", "b\303\274cher.test"},
        {"From: \303\234 <a@News.b\303\274cher.test>\r\nDKIM-Signature: d=b\303\274cher.test; "
         "b=\r\n\r\n",
         "b\303\274cher.test"},
        {"DKIM-Signature: d=own.test\303\274; b=\r\nFrom: a@x.own.test\r\n\r\n", "x.own.test"},
        {"DKIM-Signature: d=only.test", ""},
        {"Subject: d=x\r\n\r\nFrom: a@body.test\r\n", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct header_scan h;
        scan(&h, cases[i].text);
        struct slice got = header_signer_domain(&h.signer);
        assert_int_equal(got.len, strlen(cases[i].domain));
        assert_memory_equal(got.ptr, cases[i].domain, got.len);
    }
}

static void test_words_that_tell_the_class(void **state)
{
    struct header_scan h;
    (void)state;
    scan(&h, "precedence:  BULK \r\nX-mail-class: Transactional\r\nX-Mail-Class: bulk\r\n"
             "List-Unsubscribe: <mailto:x@y>\r\n\r\n");
    assert_int_equal(h.precedence.len, 4);
    assert_memory_equal(h.precedence.text, "bulk", 4);
    assert_int_equal(h.mail_class.len, 13); /* the first one counts */
    assert_memory_equal(h.mail_class.text, "transactional", 13);
    assert_int_equal(h.count[HEADER_LIST_UNSUBSCRIBE], 1);
    scan(&h, "X-Mail-Class: a-word-that-is-much-longer-than-any\r\n\r\n");
    assert_int_equal(h.mail_class.len, HEADER_WORD_MAX);
}

static void test_B31_too_many_hops(void **state)
{
    (void)state;
    assert_null(feed_lines("Received: x\r\n", 50, &limits));
    const struct refusal *no = feed_lines("Received: x\r\n", 51, &limits);
    assert_non_null(no);
    assert_int_equal(no->code, 554);
    assert_string_equal(no->enhanced, "5.4.6");
    assert_non_null(feed_lines("received:\r\n", 150, &limits));
}

static void test_B32_huge_headers(void **state)
{
    (void)state;
    static const struct header_limits small = {.size = 1000, .lines = 10, .hops = 50};
    assert_null(feed_lines("A: b\r\n", 10, &small));
    assert_int_equal(feed_lines("A: b\r\n", 11, &small)->code, 554);
    assert_int_equal(feed_lines("A: b\r\n", 100000, &limits)->code, 554);
    /* one line without end, and one field folded without end */
    assert_int_equal(feed_lines("A: bbbbbbbbbbbbbbbbbbbbbbbbbbbb", 5000000 / 30, &limits)->code,
                     554);
    assert_int_equal(feed_lines("A: b\r\n c", 100000, &limits)->code, 554);
}

static void test_long_values_are_bounded(void **state)
{
    (void)state;
    struct header_scan h;
    header_scan_init(&h, &limits);
    header_scan_feed(&h, SLICE("Message-ID: "));
    for (int i = 0; i < 1000; i++)
        header_scan_feed(&h, SLICE("x"));
    header_scan_feed(&h, SLICE("\r\n\r\n"));
    assert_true(h.done);
    assert_int_equal(h.message_id_len, HEADER_MESSAGE_ID_MAX);
    /* a name without end is no field */
    header_scan_init(&h, &limits);
    for (int i = 0; i <= HEADER_NAME_MAX; i++)
        header_scan_feed(&h, SLICE("x"));
    assert_true(h.done && h.no_blank_line);
}

static void test_fields_are_walked_and_unfolded(void **state)
{
    (void)state;
    struct slice content = SLICE("Subject: one\r\n\ttwo\r\n three \r\nTo : x\r\n\r\nBody: y\r\n");
    struct slice rest = content;
    struct header_field f;
    struct buf out = BUF_INIT(100);
    assert_true(header_next(&rest, &f));
    assert_true(slice_eq(f.name, SLICE("Subject")));
    assert_true(slice_eq(f.body, SLICE(" one\r\n\ttwo\r\n three ")));
    assert_int_equal(header_unfold(f.body, &out), 0);
    assert_true(slice_eq(buf_slice(&out), SLICE("one\ttwo three")));
    assert_true(header_next(&rest, &f));
    assert_true(slice_eq(f.name, SLICE("To")));
    assert_true(slice_eq(f.raw, SLICE("To : x\r\n")));
    assert_false(header_next(&rest, &f));
    assert_true(slice_eq(rest, SLICE("Body: y\r\n")));
    assert_true(header_find(content, SLICE("to"), &f));
    assert_false(header_find(content, SLICE("Body"), &f));
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_B32_headers_in_any_pieces),
        cmocka_unit_test(test_tls_required),
        cmocka_unit_test(test_the_domain_that_answers_for_a_message),
        cmocka_unit_test(test_words_that_tell_the_class),
        cmocka_unit_test(test_B31_too_many_hops),
        cmocka_unit_test(test_B32_huge_headers),
        cmocka_unit_test(test_long_values_are_bounded),
        cmocka_unit_test(test_fields_are_walked_and_unfolded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: bounce_parts postern_ipc postern_mail postern_core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "bounce/notice.h"
#include "mail/dsn_field.h"

static const struct notice_identity identity = {.hostname = {"relay.example.net", 17},
                                                .from = {"MAILER-DAEMON@example.net", 25},
                                                .contact = {"postmaster@example.net", 22}};
static const int64_t NOW = INT64_C(1732220986000000); /* 2024-11-21 20:29:46 UTC */

#define ORIGINAL                                                                                   \
    "Received: from a by b; Thu, 21 Nov 2024 20:00:00 +0000\r\nSubject: hello\r\n\r\n"             \
    "line one\r\nline two\r\n"

static struct ipc_notice_request basic(void)
{
    return (struct ipc_notice_request){
        .tag = 7,
        .kind = NOTICE_FAILURE,
        .notice_id = SLICE("4XyzAbCdeFz0001F0"),
        .id = SLICE("4XyzAbCdeFz0001"),
        .arrival = NOW - INT64_C(3600000000),
        .sender = SLICE("alice@customer.example"),
        .original_sender = SLICE("alice@customer.example"),
        .ret = RET_HDRS,
        .size = sizeof ORIGINAL - 1,
        .content = SLICE(ORIGINAL),
    };
}

static struct ipc_notice_rcpt unknown_user(void)
{
    return (struct ipc_notice_rcpt){
        .address = SLICE("bob@b.example"),
        .action = ACTION_FAILED,
        .status = SLICE("5.1.1"),
        .diagnostic = SLICE("550 5.1.1 <bob@b.example>: user unknown"),
        .remote = 1,
        .remote_mta = SLICE("mx1.b.example"),
        .last_attempt = NOW,
    };
}

/* Every line ends in CRLF, is short enough and has neither NUL nor lone CR. */
static void assert_lines(const struct buf *b)
{
    size_t line = 0;
    assert_true(b->len >= 2 && b->len <= NOTICE_CONTENT_MAX);
    for (size_t i = 0; i < b->len; i++) {
        char c = b->data[i];
        assert_int_not_equal(c, '\0');
        if (c == '\r') {
            assert_true(i + 1 < b->len && b->data[i + 1] == '\n');
            assert_true(line <= DSN_LINE_MAX);
            line = 0;
            i++;
        } else {
            assert_int_not_equal(c, '\n');
            line++;
        }
    }
    assert_int_equal(line, 0);
}

static char *compose(const struct ipc_notice_request *request, struct buf *out, uint32_t *flags)
{
    struct err e;
    buf_clear(out);
    assert_int_equal(notice_compose(request, &identity, NOW, out, flags, &e), 0);
    assert_lines(out);
    buf_addc(out, '\0');
    return out->data;
}

static size_t occurrences(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
        n++;
    return n;
}

static void assert_has(const char *text, const char *what)
{
    if (!strstr(text, what))
        fail_msg("missing: %s\nin:\n%s", what, text);
}

static void assert_lacks(const char *text, const char *what)
{
    if (strstr(text, what))
        fail_msg("must not hold: %s\nin:\n%s", what, text);
}

/* Composes one notice about these recipients; the caller frees out. */
static char *notice_about(struct ipc_notice_request *request, const struct ipc_notice_rcpt *rcpts,
                          size_t count, struct buf *out, uint32_t *flags)
{
    struct buf list = BUF_INIT(IPC_FRAME_MAX);
    *out = BUF_INIT(NOTICE_CONTENT_MAX + 1);
    for (size_t i = 0; i < count; i++)
        ipc_notice_rcpt_add(&list, &rcpts[i]);
    request->recipients = buf_slice(&list);
    char *text = compose(request, out, flags);
    buf_free(&list);
    return text;
}

static void test_failure_notice(void **state)
{
    (void)state;
    struct ipc_notice_request request = basic();
    struct ipc_notice_rcpt rcpt = unknown_user();
    struct buf out;
    uint32_t flags;
    request.envid = SLICE("QQ314159");
    rcpt.orcpt = SLICE("rfc822;Bob@B.example");
    const char *text = notice_about(&request, &rcpt, 1, &out, &flags);

    static const char *const expected[] = {
        "Date: Thu, 21 Nov 2024 20:29:46 +0000\r\n",
        "From: Mail Delivery System <MAILER-DAEMON@example.net>\r\n",
        "To: <alice@customer.example>\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "Message-ID: <4XyzAbCdeFz0001F0@relay.example.net>\r\n",
        "multipart/report; report-type=delivery-status;",
        "There is no such mailbox at this domain.",
        "The mail server mx1.b.example said:\r\n        550 5.1.1 <bob@b.example>: user "
        "unknown\r\n",
        "Content-Type: message/delivery-status\r\n",
        "Original-Envelope-Id: QQ314159\r\nReporting-MTA: dns; relay.example.net\r\n",
        "X-Postern-Queue-ID: 4XyzAbCdeFz0001\r\nX-Postern-Sender: rfc822; "
        "alice@customer.example\r\n",
        "Arrival-Date: Thu, 21 Nov 2024 19:29:46 +0000\r\n\r\n"
        "Original-Recipient: rfc822; Bob@B.example\r\nFinal-Recipient: rfc822; bob@b.example\r\n"
        "Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx1.b.example\r\n"
        "Diagnostic-Code: smtp; 550 5.1.1 <bob@b.example>: user unknown\r\n"
        "Last-Attempt-Date: Thu, 21 Nov 2024 20:29:46 +0000\r\n",
        "Content-Type: text/rfc822-headers\r\n",
        "Subject: hello\r\n",
        "postmaster@example.net",
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_has(text, expected[i]);
    assert_lacks(text, "line one"); /* RET=HDRS: no body */
    assert_int_equal(flags, MESSAGE_NOTICE);
    buf_free(&out);
}

/* RFC 8689 section 5: qmgr gives nothing of the message then, and the text says why. */
static void test_message_that_required_tls(void **state)
{
    (void)state;
    struct ipc_notice_request request = basic();
    struct ipc_notice_rcpt rcpt = unknown_user();
    struct buf out;
    uint32_t flags;
    request.flags = MESSAGE_REQUIRETLS;
    request.content = SLICE("");
    const char *text = notice_about(&request, &rcpt, 1, &out, &flags);
    assert_has(text, "Your message required TLS on its whole way (REQUIRETLS).");
    assert_has(text, "Content-Type: message/delivery-status\r\n");
    assert_lacks(text, "text/rfc822-headers");
    assert_int_equal(flags, MESSAGE_NOTICE);
    buf_free(&out);

    request.flags = 0;
    assert_lacks(notice_about(&request, &rcpt, 1, &out, &flags), "REQUIRETLS");
    buf_free(&out);
}

static void test_full_message_is_returned(void **state)
{
    (void)state;
    struct ipc_notice_request request = basic();
    struct ipc_notice_rcpt rcpt = unknown_user();
    struct buf out;
    uint32_t flags;
    request.ret = RET_FULL;
    const char *text = notice_about(&request, &rcpt, 1, &out, &flags);
    assert_has(text, "Content-Type: message/rfc822\r\n");
    assert_has(text, ORIGINAL);
    buf_free(&out);

    request.size++; /* qmgr sent less than all */
    text = notice_about(&request, &rcpt, 1, &out, &flags);
    assert_has(text, "Content-Type: text/rfc822-headers\r\n");
    assert_has(text, "too large");
    assert_lacks(text, "line one");
    buf_free(&out);
}

static void test_kinds(void **state)
{
    (void)state;
    static const struct {
        uint8_t kind, action;
        const char *status, *expected[4];
    } rows[] = {
        {NOTICE_DELAY,
         ACTION_DELAYED,
         "4.4.1",
         {"Action: delayed\r\n", "Will-Retry-Until: Fri, 22 Nov 2024 20:29:46 +0000\r\n",
          "has not yet been delivered", "does not answer"}},
        {NOTICE_SUCCESS,
         ACTION_DELIVERED,
         "2.0.0",
         {"Action: delivered\r\n", "Status: 2.0.0\r\n", "The message was delivered.",
          "You asked for a report"}},
        {NOTICE_SUCCESS,
         ACTION_RELAYED,
         "2.0.0",
         {"Action: relayed\r\n", "does not report", "Status: 2.0.0\r\n",
          "Auto-Submitted: auto-replied\r\n"}},
        {NOTICE_DOUBLE,
         ACTION_FAILED,
         "5.1.1",
         {"cannot be told", "To: <ops@example.net>\r\n", "Auto-Submitted: auto-generated\r\n",
          "sender was <alice@customer.example>"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ipc_notice_request request = basic();
        struct ipc_notice_rcpt rcpt = unknown_user();
        struct buf out;
        uint32_t flags;
        request.kind = rows[i].kind;
        if (request.kind == NOTICE_DOUBLE)
            request.sender = SLICE("ops@example.net");
        rcpt.action = rows[i].action;
        rcpt.status = slice_str(rows[i].status);
        rcpt.retry_until = NOW + INT64_C(86400000000);
        const char *text = notice_about(&request, &rcpt, 1, &out, &flags);
        for (size_t k = 0; k < 4; k++)
            assert_has(text, rows[i].expected[k]);
        buf_free(&out);
    }
}

static void test_B44_diagnostics_cannot_leave_their_place(void **state)
{
    (void)state;
    struct ipc_notice_request request = basic();
    struct ipc_notice_rcpt rcpt = unknown_user();
    struct buf out;
    uint32_t flags;
    rcpt.diagnostic =
        SLICE("550 no\r\n\r\nFinal-Recipient: rfc822; evil@x\r\n--=_0_\x1b[31m\0\xff");
    rcpt.address = SLICE("b\r\nBcc: x@b.example");
    rcpt.remote_mta = SLICE("mx\nAction: delivered");
    rcpt.status = SLICE("5.1\r\n.1");
    request.sender = SLICE("a\r\nX-Evil: 1@b");
    request.envid = SLICE("e\r\nX-Evil: 2");
    const char *text = notice_about(&request, &rcpt, 1, &out, &flags);
    assert_lacks(text, "\nBcc:");
    assert_lacks(text, "\nX-Evil");
    assert_lacks(text, "\nAction: delivered");
    assert_int_equal(occurrences(text, "\nFinal-Recipient:"), 1);
    assert_lacks(text, "\x1b");
    assert_has(text, "\\x1b[31m\\x00\\xff");
    assert_has(text, "Status: 5.0.0\r\n"); /* an unusable status */
    buf_free(&out);
}

static void test_empty_diagnostics(void **state)
{
    (void)state;
    struct ipc_notice_request request = basic();
    struct ipc_notice_rcpt rcpt = {.address = SLICE("bob@b.example"), .action = 99};
    struct buf out;
    uint32_t flags;
    request.content = SLICE("");
    request.kind = 99;
    const char *text = notice_about(&request, &rcpt, 1, &out, &flags);
    assert_has(text, "Action: failed\r\nStatus: 5.0.0\r\n");
    assert_lacks(text, "Diagnostic-Code");
    assert_lacks(text, "said:");
    assert_lacks(text, "rfc822-headers");
    buf_free(&out);
}

static void test_1000_recipients_fit_a_frame(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    static struct ipc_notice_rcpt rcpts[COUNT];
    static char addresses[COUNT][40];
    for (int i = 0; i < COUNT; i++) {
        rcpts[i] = unknown_user();
        int len = snprintf(addresses[i], sizeof addresses[i], "user%04d@b.example", i);
        rcpts[i].address = slice_make(addresses[i], (size_t)len);
        rcpts[i].diagnostic = SLICE("550 5.1.1 user unknown");
        rcpts[i].remote_mta = SLICE("");
    }
    struct ipc_notice_request request = basic();
    struct buf out;
    uint32_t flags;
    const char *text = notice_about(&request, rcpts, COUNT, &out, &flags);
    assert_int_equal(occurrences(text, "\nFinal-Recipient: "), COUNT); /* P3: none left out */
    assert_has(text, "the following 1000 recipients");
    assert_has(text, "lists the other 950 recipients");
    assert_has(text, "Subject: hello\r\n");
    assert_lacks(text, "did not fit");
    buf_free(&out);
}

static void test_large_original_is_cut_to_its_header(void **state)
{
    (void)state;
    struct buf content = BUF_INIT(IPC_FRAME_MAX), out;
    uint32_t flags;
    buf_addstr(&content, "Subject: long\r\nX-Long: ");
    for (int i = 0; i < 5000; i++)
        buf_addc(&content, 'x');
    buf_addstr(&content, "\r\nX-Bare: a\nb\r\n\r\n");
    while (content.len < 120000)
        buf_addstr(&content, "0123456789 body\r\n");
    struct ipc_notice_request request = basic();
    struct ipc_notice_rcpt rcpt = unknown_user();
    request.ret = RET_FULL;
    request.size = content.len;
    request.content = buf_slice(&content);
    const char *text = notice_about(&request, &rcpt, 1, &out, &flags);
    assert_has(text, "text/rfc822-headers");
    assert_has(text, "too large");
    assert_lacks(text, "0123456789 body");
    buf_free(&out);

    /* a header alone that does not fit */
    buf_clear(&content);
    while (content.len < 120000)
        buf_addstr(&content, "X-Filler: 0123456789\r\n");
    request.size = content.len;
    request.content = buf_slice(&content);
    text = notice_about(&request, &rcpt, 1, &out, &flags);
    assert_has(text, "The beginning of the header");
    buf_free(&out);
    buf_free(&content);
}

static void test_international_notice(void **state)
{
    (void)state;
    struct ipc_notice_request request = basic();
    struct ipc_notice_rcpt rcpt = unknown_user();
    struct buf out;
    uint32_t flags;
    request.content = SLICE("Subject: gr\xc3\xbc\xc3\x9f\x65\r\n\r\nbody\r\n");
    request.size = request.content.len;
    request.ret = RET_FULL;
    rcpt.address = SLICE("j\xc3\xb6rg@b.example");
    rcpt.status = SLICE("5.6.7");

    request.flags = MESSAGE_SMTPUTF8;
    const char *text = notice_about(&request, &rcpt, 1, &out, &flags);
    assert_has(text, "Content-Type: message/global-delivery-status\r\n");
    assert_has(text, "Final-Recipient: utf-8; j\xc3\xb6rg@b.example\r\n");
    assert_has(text, "Content-Type: message/global\r\n");
    assert_int_equal(flags, MESSAGE_NOTICE | MESSAGE_8BIT | MESSAGE_SMTPUTF8);
    buf_free(&out);

    /* an original without SMTPUTF8: the report stays ASCII */
    request.flags = MESSAGE_8BIT;
    text = notice_about(&request, &rcpt, 1, &out, &flags);
    assert_has(text, "Content-Type: message/delivery-status\r\n");
    assert_has(text, "Final-Recipient: utf-8; j\\x{F6}rg@b.example\r\n");
    assert_int_equal(flags, MESSAGE_NOTICE | MESSAGE_8BIT);
    buf_free(&out);
}

static void test_boundary_is_not_in_the_original(void **state)
{
    (void)state;
    struct ipc_notice_request request = basic();
    struct ipc_notice_rcpt rcpt = unknown_user();
    struct buf out;
    uint32_t flags;
    request.ret = RET_FULL;
    request.content =
        SLICE("Subject: x\r\n\r\n--=_0_4XyzAbCdeFz0001F0--\r\n=_1_4XyzAbCdeFz0001F0\r\n");
    request.size = request.content.len;
    const char *text = notice_about(&request, &rcpt, 1, &out, &flags);
    assert_has(text, "boundary=\"=_2_4XyzAbCdeFz0001F0\"");
    assert_int_equal(occurrences(text, "\r\n--=_2_4XyzAbCdeFz0001F0"), 4);
    buf_free(&out);
}

static void test_malformed_recipients_are_refused(void **state)
{
    (void)state;
    struct ipc_notice_request request = basic();
    struct buf out = BUF_INIT(NOTICE_CONTENT_MAX);
    uint32_t flags;
    struct err e;
    request.recipients = SLICE("\xff\xff\xff\xff");
    assert_int_equal(notice_compose(&request, &identity, NOW, &out, &flags, &e), -1);
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failure_notice),
        cmocka_unit_test(test_message_that_required_tls),
        cmocka_unit_test(test_full_message_is_returned),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_B44_diagnostics_cannot_leave_their_place),
        cmocka_unit_test(test_empty_diagnostics),
        cmocka_unit_test(test_1000_recipients_fit_a_frame),
        cmocka_unit_test(test_large_original_is_cut_to_its_header),
        cmocka_unit_test(test_international_notice),
        cmocka_unit_test(test_boundary_is_not_in_the_original),
        cmocka_unit_test(test_malformed_recipients_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

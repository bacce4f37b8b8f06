/* libraries: postern_core postern_mail */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "core/clock.h"
#include "mail/date.h"
#include "mail/message_id.h"
#include "mail/received.h"

static void set_zone(const char *zone)
{
    setenv("TZ", zone, 1);
    tzset();
}

static void test_dates(void **state)
{
    (void)state;
    static const struct {
        const char *zone;
        int64_t seconds;
        const char *text;
    } rows[] = {
        {"CET-1", 1700594986, "Tue, 21 Nov 2023 20:29:46 +0100 (CET)"},
        {"UTC0", 1700594987, "Tue, 21 Nov 2023 19:29:47 +0000 (UTC)"},
        {"NST3:30", 1700594988, "Tue, 21 Nov 2023 15:59:48 -0330 (NST)"},
        {"<+0545>-5:45", 0, "Thu, 01 Jan 1970 05:45:00 +0545"},
        {"UTC0", 951827696, "Tue, 29 Feb 2000 12:34:56 +0000 (UTC)"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        set_zone(rows[i].zone);
        struct slice text = mail_date(rows[i].seconds * CLOCK_SECOND + 999999);
        if (!slice_eq(text, slice_str(rows[i].text)))
            fail_msg("%.*s", SLICE_ARG(text));
        assert_true(slice_eq(mail_date(rows[i].seconds * CLOCK_SECOND), text));
    }
}

static struct received example(void)
{
    return (struct received){.helo = SLICE("mail.example"),
                             .client_name = SLICE("unknown"),
                             .client_addr = SLICE("192.0.2.1"),
                             .myhostname = SLICE("relay.example"),
                             .protocol = SLICE("ESMTP"),
                             .id = SLICE("4SPWtV2s0dz4abc"),
                             .arrival = 1700594986 * CLOCK_SECOND};
}

static void check_received(const struct received *r, const char *want)
{
    struct buf out = BUF_INIT(2000);
    assert_int_equal(received_compose(r, &out), 0);
    if (!slice_eq(buf_slice(&out), slice_str(want)))
        fail_msg("%.*s", (int)out.len, out.data);
    buf_free(&out);
}

static void test_received(void **state)
{
    (void)state;
    set_zone("UTC0");
    struct received r = example();
    check_received(&r, "Received: from mail.example (unknown [192.0.2.1])\r\n"
                       "\tby relay.example (Postern) with ESMTP id 4SPWtV2s0dz4abc;\r\n"
                       "\tTue, 21 Nov 2023 19:29:46 +0000 (UTC)\r\n");
    r.client_addr = SLICE("2001:db8::1");
    r.recipient = SLICE("a@b.example");
    check_received(&r, "Received: from mail.example (unknown [IPv6:2001:db8::1])\r\n"
                       "\tby relay.example (Postern) with ESMTP id 4SPWtV2s0dz4abc\r\n"
                       "\tfor <a@b.example>; Tue, 21 Nov 2023 19:29:46 +0000 (UTC)\r\n");
}

static void test_peer_text_stays_in_its_place(void **state)
{
    (void)state;
    set_zone("UTC0");
    struct received r = example();
    r.helo = SLICE("a (b\r\nX: \"y\";\0\xff");
    check_received(&r, "Received: from a??b??X:??y???? (unknown [192.0.2.1])\r\n"
                       "\tby relay.example (Postern) with ESMTP id 4SPWtV2s0dz4abc;\r\n"
                       "\tTue, 21 Nov 2023 19:29:46 +0000 (UTC)\r\n");
}

static void test_full_buffer_is_left_as_it_was(void **state)
{
    (void)state;
    struct received r = example();
    for (size_t max = 1; max < 140; max++) {
        struct buf out = BUF_INIT(max);
        buf_addc(&out, 'x');
        assert_int_equal(received_compose(&r, &out), -1);
        assert_int_equal(out.len, 1);
        buf_free(&out);
    }
}

static void test_message_id(void **state)
{
    (void)state;
    struct buf out = BUF_INIT(100);
    assert_int_equal(message_id_make(&out, 1700594986 * CLOCK_SECOND, SLICE("4SPWtV2s0dz4abc"),
                                     SLICE("relay.example")),
                     0);
    assert_true(slice_eq(buf_slice(&out), SLICE("<20231121192946.4SPWtV2s0dz4abc@relay.example>")));
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_received),
        cmocka_unit_test(test_peer_text_stays_in_its_place),
        cmocka_unit_test(test_full_buffer_is_left_as_it_was),
        cmocka_unit_test(test_message_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* libraries: qmgr_parts */
#include "qmgr/qmgr.h"
#include "unit.h"

static const struct config config = {.minimal_backoff_time = 300,
                                     .maximal_backoff_time = 4000,
                                     .maximal_queue_lifetime = 1000,
                                     .bounce_queue_lifetime = 10};

/* ---- answers ------------------------------------------------------------------ */

static void test_answers_are_described_as_postfix_does(void **state)
{
    static const struct {
        uint16_t code;
        uint8_t stage;
        bool local;
        const char *enhanced, *text, *host, *expected;
    } rows[] = {
        {250, STAGE_DOT, false, "2.0.0", "2.0.0 Ok: queued as X", "h", "250 2.0.0 Ok: queued as X"},
        {250, STAGE_DOT, false, "", "Ok", "h", "250 Ok"},
        {550, STAGE_RCPT, false, "5.1.1", "5.1.1 no", "h",
         "host h[192.0.2.1] said: 550 5.1.1 no (in reply to RCPT TO command)"},
        {452, STAGE_MAIL, false, "4.3.1", "full", "h",
         "host h[192.0.2.1] said: 452 4.3.1 full (in reply to MAIL FROM command)"},
        {554, STAGE_DOT, false, "", "spam", "h",
         "host h[192.0.2.1] said: 554 spam (in reply to end of DATA command)"},
        {421, STAGE_GREETING, false, "", "busy", "h",
         "host h[192.0.2.1] refused to talk to me: 421 busy"},
        {0, STAGE_CONNECT, true, "4.4.1", "connect to h: Connection refused", "h",
         "connect to h: Connection refused"},
        /* B44: what would forge a line or drive a terminal stays visible and harmless */
        {550, STAGE_RCPT, false, "", "a\r\n250 \033[2Jok\xff", "h",
         "host h[192.0.2.1] said: 550 a\\x0d\\x0a250 \\x1b[2Jok\\xff "
         "(in reply to RCPT TO command)"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct answer *a =
            answer_new(rows[i].code, slice_str(rows[i].enhanced), slice_str(rows[i].text),
                       slice_str(rows[i].host), SLICE("192.0.2.1"));
        struct buf b = BUF_INIT(8192);
        a->stage = rows[i].stage;
        a->local = rows[i].local;
        answer_describe(a, &b);
        buf_addc(&b, '\0');
        assert_string_equal(b.data, rows[i].expected);
        buf_free(&b);
        answer_unref(a);
    }
}

static void test_answers_are_cut(void **state)
{
    static char big[100000];
    (void)state;
    memset(big, 'x', sizeof big);
    struct slice s = slice_make(big, sizeof big);
    struct answer *a = answer_new(550, s, s, s, s);
    assert_int_equal(answer_text(a).len, ANSWER_TEXT_MAX);
    assert_int_equal(answer_host(a).len, ANSWER_HOST_MAX);
    assert_int_equal(strlen(a->enhanced), ENHANCED_MAX);
    answer_unref(a);
}

static void test_status_codes_that_fit_their_class(void **state)
{
    static const struct {
        const char *given;
        char class;
        const char *expected;
    } rows[] = {
        {"5.1.1", '5', "5.1.1"},    {"4.2.1", '5', "5.0.0"},         {"", '4', "4.0.0"},
        {"5.1", '5', "5.0.0"},      {"5.1.1.1", '5', "5.0.0"},       {"5.1.\n", '5', "5.0.0"},
        {"2.1234.1", '2', "2.0.0"}, {"2.123.999", '2', "2.123.999"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char buffer[ENHANCED_MAX + 1];
        struct answer *a =
            answer_new(500, slice_str(rows[i].given), SLICE("x"), SLICE(""), SLICE(""));
        struct slice s = answer_status(a, rows[i].class, buffer);
        assert_true(slice_eq(s, slice_str(rows[i].expected)));
        answer_unref(a);
    }
}

/* ---- times ---------------------------------------------------------------------- */

static void test_backoff_doubles_with_jitter(void **state)
{
    static const int64_t expected[] = {300, 600, 1200, 2400, 4000, 4000};
    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        int64_t low = INT64_MAX, high = 0;
        for (int k = 0; k < 1000; k++) {
            int64_t wait = retry_backoff(&config, i + 1);
            low = wait < low ? wait : low;
            high = wait > high ? wait : high;
        }
        int64_t middle = expected[i] * CLOCK_SECOND;
        assert_true(low >= middle - middle / 10 && low < middle);
        assert_true(high <= middle + middle / 10 && high > middle);
    }
    assert_true(retry_backoff(&config, UINT32_MAX) < 4401 * CLOCK_SECOND);
}

static void test_notices_live_shorter(void **state)
{
    struct service s = {.config = &config};
    struct qmgr q = {.s = &s, .now = 100 * CLOCK_SECOND};
    struct message m = {.born = 50 * CLOCK_SECOND, .recipient_count = 1};
    (void)state;
    m.env = envelope_new(1, 3);
    m.env->sender_len = 3;
    assert_false(retry_expired(&q, &m));
    m.flags = MESSAGE_NOTICE;
    assert_true(retry_expired(&q, &m));
    m.flags = 0;
    q.now = 1049 * CLOCK_SECOND;
    assert_false(retry_expired(&q, &m));
    q.now = 1050 * CLOCK_SECOND;
    assert_true(retry_expired(&q, &m));
    m.env->held = 30; /* is no part of its life */
    assert_false(retry_expired(&q, &m));
    q.now = 1079 * CLOCK_SECOND;
    assert_false(retry_expired(&q, &m));
    q.now = 1080 * CLOCK_SECOND;
    assert_true(retry_expired(&q, &m));
    m.arrival = 7 * CLOCK_SECOND;
    assert_int_equal(retry_until(&q, &m), (7 + 30 + 1000) * CLOCK_SECOND);
    envelope_free(m.env, 1);
}

/* ---- what the spool says ------------------------------------------------------------ */

static uint32_t second_of(int64_t wall, void *arg)
{
    (void)arg;
    return (uint32_t)(wall / CLOCK_SECOND);
}

static void add_record(struct buf *out, const struct id *id, uint8_t type, uint32_t rcpt,
                       uint32_t flags)
{
    char index[4] = {(char)rcpt, 0, 0, 0};
    struct spool_record r = {
        .type = type,
        .notice = 3,
        .code = 450,
        .attempts = 7,
        .flags = flags,
        .next = 99 * CLOCK_SECOND,
        .recipient_count = type == SPOOL_RECORD_FLAGS || type == SPOOL_RECORD_DELAY_SENT ? 0 : 1,
        .recipients = slice_make(index, sizeof index),
        .text = SLICE("later"),
        .host = SLICE("mx")};
    if (r.recipient_count == 0)
        r.recipients.len = 0;
    assert_int_equal(spool_record_encode(out, id, &r), 0);
}

static void test_message_from_the_spool(void **state)
{
    struct buf list = BUF_INIT(1000), records = BUF_INIT(10000);
    struct message m = {.id = id_new()};
    (void)state;
    for (char c = 'a'; c < 'e'; c++) {
        struct spool_rcpt r = {slice_make(&c, 1), SLICE("orcpt"), NOTIFY_FAILURE};
        spool_rcpt_add(&list, &r);
    }
    struct spool_envelope e = {.arrival = 5,
                               .flags = MESSAGE_8BIT,
                               .ret = RET_HDRS,
                               .mail_class = CLASS_BULK,
                               .account = SLICE("acct"),
                               .sender = SLICE("s@x"),
                               .envid = SLICE("env"),
                               .recipient_count = 4,
                               .recipients = buf_slice(&list)};
    add_record(&records, &m.id, SPOOL_RECORD_DEFERRED, 1, 0);
    add_record(&records, &m.id, SPOOL_RECORD_FAILED, 2, 0);
    add_record(&records, &m.id, SPOOL_RECORD_FLAGS, 0, MESSAGE_8BIT | MESSAGE_HOLD);
    add_record(&records, &m.id, SPOOL_RECORD_DELAY_SENT, 0, 0);
    struct store_found found = {
        .id = m.id, .envelope = &e, .status = "PPPS", .records = buf_slice(&records)};
    assert_int_equal(message_build(&m, &found, second_of, NULL), 0);
    assert_true(slice_eq(message_account(&m), SLICE("acct")));
    assert_true(slice_eq(message_sender(&m), SLICE("s@x")));
    assert_true(slice_eq(message_envid(&m), SLICE("env")));
    assert_true(slice_eq(recipient_address(&m, 3), SLICE("d")));
    assert_true(slice_eq(recipient_orcpt(&m, 0), SLICE("orcpt")));
    assert_int_equal(m.env->left, 3);
    assert_int_equal(m.env->recipients[0].state, RCPT_WAITING);
    assert_int_equal(m.env->next_due, 0);
    assert_int_equal(m.env->recipients[1].due, 99);
    assert_int_equal(m.env->recipients[1].attempts, 7);
    assert_true(slice_eq(answer_text(m.env->recipients[1].answer), SLICE("later")));
    assert_int_equal(m.env->recipients[2].state, RCPT_FAILED);
    assert_int_equal(m.env->recipients[2].notice, 3);
    assert_int_equal(m.env->notice_next, 4);
    assert_int_equal(m.env->recipients[3].state, RCPT_DONE);
    assert_int_equal(m.flags, MESSAGE_8BIT | MESSAGE_HOLD);
    assert_true(m.env->delay_sent);
    envelope_free(m.env, m.recipient_count);
    buf_free(&list);
    buf_free(&records);
}

static void test_a_message_is_small(void **state)
{
    (void)state;
    /* one recipient, 60 bytes of addresses */
    assert_true(sizeof(struct message) + sizeof(struct envelope) + sizeof(struct recipient) + 60 <=
                400);
    assert_true(sizeof(struct recipient) <= 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_described_as_postfix_does),
        cmocka_unit_test(test_answers_are_cut),
        cmocka_unit_test(test_status_codes_that_fit_their_class),
        cmocka_unit_test(test_backoff_doubles_with_jitter),
        cmocka_unit_test(test_notices_live_shorter),
        cmocka_unit_test(test_message_from_the_spool),
        cmocka_unit_test(test_a_message_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

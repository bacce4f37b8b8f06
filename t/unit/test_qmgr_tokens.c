/* libraries: qmgr_parts */
/* Each token lets one message in, once, while it holds. */
#include <stdlib.h>

#include "core/mem.h"
#include "qmgr/qmgr.h"
#include "unit.h"

enum { BEFORE = 1000 /* seconds since the machine's start when the tokens are made */ };

static struct tokens fresh(void)
{
    struct tokens t;
    tokens_init(&t);
    t.used = xcalloc(TOKEN_WINDOW / 64, sizeof *t.used);
    return t;
}

static struct ipc_commit message(void)
{
    return (struct ipc_commit){.id = SLICE("4XVPmK1fJDz7Bkq"),
                               .account = SLICE("acme/web"),
                               .sender = SLICE("a@acme.test"),
                               .recipient_count = 2,
                               .prefix = SLICE("Received: x\r\n"),
                               .body = SLICE("\r\nhello\r\n")};
}

/* As quota makes it. */
static enum token_verdict commit(struct tokens *t, uint64_t serial, uint8_t hold, uint32_t flags,
                                 int64_t seconds)
{
    struct ipc_commit m = message();
    const struct token_claim claim = {
        .id = m.id, .owner = m.account, .sender = m.sender, .recipients = 2, .size = m.body.len};
    const struct token made = {.hold = hold, .at = BEFORE, .serial = serial};
    char text[TOKEN_BYTES];
    assert_int_equal(token_make(t->key, &claim, &made, text), 0);
    m.token = slice_make(text, sizeof text);
    m.flags = flags;
    return tokens_check(t, &m, (BEFORE + seconds) * CLOCK_SECOND);
}

static void test_each_number_once_in_any_order(void **state)
{
    enum { COUNT = 5000, RANGE = 20000 };
    static bool seen[RANGE];
    struct tokens t = fresh();
    (void)state;
    srand(7);
    for (int i = 0; i < COUNT; i++) {
        size_t serial = (size_t)rand() % RANGE;
        enum token_verdict v = commit(&t, 1 + serial, 0, 0, 0);
        if (v != (seen[serial] ? TOKEN_AGAIN : TOKEN_GOOD))
            fail_msg("number %zu, seen %d: %d", serial, seen[serial], v);
        seen[serial] = true;
    }
    free(t.used);
}

static void test_the_window_forgets_what_is_far_behind(void **state)
{
    const uint64_t first = UINT64_C(1) << 40, second = UINT64_C(2) << 40;
    struct tokens t = fresh();
    (void)state;
    assert_int_equal(commit(&t, first, 0, 0, 0), TOKEN_FALSE); /* there was no channel */
    t.channels = 2;
    assert_int_equal(commit(&t, UINT64_MAX, 0, 0, 0), TOKEN_FALSE); /* nor ever so many */
    assert_int_equal(commit(&t, first, 0, 0, 0), TOKEN_GOOD);
    assert_int_equal(commit(&t, first + TOKEN_WINDOW - 1, 0, 0, 0), TOKEN_GOOD);
    assert_int_equal(commit(&t, first, 0, 0, 0), TOKEN_AGAIN);
    assert_int_equal(commit(&t, first + TOKEN_WINDOW, 0, 0, 0), TOKEN_GOOD);
    assert_int_equal(commit(&t, first, 0, 0, 0), TOKEN_LATE);
    assert_int_equal(commit(&t, first + 1, 0, 0, 0), TOKEN_GOOD);
    assert_int_equal(commit(&t, first + 1, 0, 0, 0), TOKEN_AGAIN);
    /* a new channel to quota: those of the one before end with its first */
    assert_int_equal(commit(&t, first + TOKEN_WINDOW + 1, 0, 0, 0), TOKEN_GOOD);
    assert_int_equal(commit(&t, second + 9, 0, 0, 0), TOKEN_GOOD);
    assert_int_equal(commit(&t, second, 0, 0, 0), TOKEN_GOOD);
    assert_int_equal(commit(&t, first + TOKEN_WINDOW + 2, 0, 0, 0), TOKEN_LATE);
    assert_int_equal(commit(&t, second + 9, 0, 0, 0), TOKEN_AGAIN);
    free(t.used);
}

static void test_a_token_holds_for_its_time(void **state)
{
    struct tokens t = fresh();
    (void)state;
    assert_int_equal(commit(&t, 1, 0, 0, TOKEN_SECONDS), TOKEN_GOOD);
    assert_int_equal(commit(&t, 2, 0, 0, TOKEN_SECONDS + 1), TOKEN_LATE);
    /* quota's second may begin before ours */
    assert_int_equal(commit(&t, 3, 0, 0, -1), TOKEN_GOOD);
    free(t.used);
}

static void test_a_hold_that_is_left_out_uses_nothing_up(void **state)
{
    struct tokens t = fresh();
    (void)state;
    assert_int_equal(commit(&t, 1, MESSAGE_HOLD, 0, 0), TOKEN_NOT_HELD);
    assert_int_equal(commit(&t, 1, MESSAGE_HOLD, MESSAGE_HOLD_RATE, 0), TOKEN_NOT_HELD);
    assert_int_equal(commit(&t, 1, MESSAGE_HOLD, MESSAGE_HOLD, 0), TOKEN_GOOD);
    assert_int_equal(commit(&t, 2, MESSAGE_HOLD_RATE, MESSAGE_HELD, 0), TOKEN_GOOD);
    /* who wants its own mail held may */
    assert_int_equal(commit(&t, 3, 0, MESSAGE_HELD, 0), TOKEN_GOOD);
    free(t.used);
}

static void test_another_message_than_was_reserved(void **state)
{
    struct tokens t = fresh();
    struct ipc_commit m = message();
    (void)state;
    assert_int_equal(tokens_check(&t, &m, 0), TOKEN_FALSE);
    m.token = SLICE("twenty-nine bytes of anything");
    assert_int_equal(m.token.len, TOKEN_BYTES);
    assert_int_equal(tokens_check(&t, &m, 0), TOKEN_FALSE);
    struct tokens without = fresh(); /* no quota was ever there */
    xfree(&without.used);
    assert_int_equal(commit(&without, 1, 0, 0, 0), TOKEN_FALSE);
    free(t.used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_number_once_in_any_order),
        cmocka_unit_test(test_the_window_forgets_what_is_far_behind),
        cmocka_unit_test(test_a_token_holds_for_its_time),
        cmocka_unit_test(test_a_hold_that_is_left_out_uses_nothing_up),
        cmocka_unit_test(test_another_message_than_was_reserved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

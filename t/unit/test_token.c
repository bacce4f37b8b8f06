/* libraries: postern_token */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "token/mac.h"
#include "token/token.h"
#include "unit.h"

static const unsigned char key[TOKEN_KEY] = "a key of 32 bytes for this test.";

static struct token_claim usual(void)
{
    return (struct token_claim){.id = SLICE("4XVPmK1fJDz7Bkq"),
                                .owner = SLICE("acme/web"),
                                .sender = SLICE("a@acme.test"),
                                .recipients = 3,
                                .size = 10000};
}

/* RFC 4231 section 4.2 has a key of 20 bytes; padded with zeros it is the same key (RFC 2104). */
static void test_mac_is_hmac_sha256(void **state)
{
    static const unsigned char expected[] = {0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53,
                                             0x5c, 0xa8, 0xaf, 0xce, 0xaf, 0x0b, 0xf1, 0x2b,
                                             0x88, 0x1d, 0xc2, 0x00, 0xc9, 0x83, 0x3d, 0xa7,
                                             0x26, 0xe9, 0x37, 0x6c, 0x2e, 0x32, 0xcf, 0xf7};
    unsigned char padded[MAC_BYTES] = {0}, out[MAC_BYTES];
    (void)state;
    memset(padded, 0x0b, 20);
    for (int again = 0; again < 2; again++) {
        mac_sha256(padded, SLICE("Hi There"), out);
        assert_memory_equal(out, expected, sizeof out);
    }
}

static void test_what_was_made_is_read(void **state)
{
    const struct token_claim c = usual();
    const struct token made = {.hold = 160, .at = UINT32_MAX, .serial = UINT64_MAX - 1};
    struct token t;
    char text[TOKEN_BYTES];
    (void)state;
    assert_int_equal(token_make(key, &c, &made, text), 0);
    assert_int_equal(token_read(key, &c, slice_make(text, sizeof text), &t), 0);
    assert_int_equal(t.hold, made.hold);
    assert_int_equal(t.at, made.at);
    assert_true(t.serial == made.serial);
}

/* Each bit of it counts, and so does its length. */
static void test_a_changed_token_is_none(void **state)
{
    const struct token_claim c = usual();
    struct token t = {.serial = 7};
    char text[TOKEN_BYTES + 1] = "";
    (void)state;
    assert_int_equal(token_make(key, &c, &t, text), 0);
    for (size_t bit = 0; bit < 8 * TOKEN_BYTES; bit++) {
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
        if (token_read(key, &c, slice_make(text, TOKEN_BYTES), &t) == 0)
            fail_msg("bit %zu was changed", bit);
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
    }
    for (size_t len = 0; len <= sizeof text; len++)
        assert_int_equal(token_read(key, &c, slice_make(text, len), &t),
                         len == TOKEN_BYTES ? 0 : -1);
}

static void test_a_token_of_another_message_or_key_is_none(void **state)
{
    struct token_claim others[] = {usual(), usual(), usual(), usual(), usual(), usual()};
    const struct token_claim c = usual();
    struct token t = {0};
    unsigned char another[TOKEN_KEY];
    char text[TOKEN_BYTES];
    (void)state;
    others[0].id = SLICE("4XVPmK1fJDz7Bkr");
    others[1].owner = SLICE("acme/web2");
    others[2].sender = SLICE("b@acme.test");
    others[3].recipients = 4;
    others[4].size = 9999;
    /* the same bytes, cut at another place */
    others[5].owner = SLICE("acme/weba");
    others[5].sender = SLICE("@acme.test");
    assert_int_equal(token_make(key, &c, &t, text), 0);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (token_read(key, &others[i], slice_make(text, sizeof text), &t) == 0)
            fail_msg("claim %zu", i);
    memcpy(another, key, sizeof another);
    another[31] ^= 1;
    assert_int_equal(token_read(another, &c, slice_make(text, sizeof text), &t), -1);
}

static void test_texts_have_their_limits(void **state)
{
    static char much[TOKEN_SENDER_MAX + 1];
    struct token t = {0};
    char text[TOKEN_BYTES];
    (void)state;
    for (size_t more = 0; more < 2; more++) {
        int rc = more ? -1 : 0;
        struct token_claim owner = usual(), sender = usual(), id = usual();
        owner.owner = slice_make(much, TOKEN_OWNER_MAX + more);
        sender.sender = slice_make(much, TOKEN_SENDER_MAX + more);
        id.id = slice_make(much, 17 + more);
        const struct token_claim *all[] = {&owner, &sender, &id};
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(token_make(key, all[i], &t, text), rc);
            assert_int_equal(token_read(key, all[i], slice_make(text, sizeof text), &t), rc);
        }
    }
}

/* Each message of an account is made one and checked once: POSTERN_BENCH=1 tells what it costs. */
static void test_cost(void **state)
{
    enum { ROUNDS = 200000 };
    const struct token_claim c = usual();
    struct token t = {0};
    struct timespec a, b;
    char text[TOKEN_BYTES];
    (void)state;
    if (!getenv("POSTERN_BENCH"))
        skip();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    for (int i = 0; i < ROUNDS; i++) {
        t.serial++;
        assert_int_equal(token_make(key, &c, &t, text), 0);
        assert_int_equal(token_read(key, &c, slice_make(text, sizeof text), &t), 0);
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    double us = (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3;
    printf("a token made and checked: %.2f us\n", us / ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mac_is_hmac_sha256),
        cmocka_unit_test(test_what_was_made_is_read),
        cmocka_unit_test(test_a_changed_token_is_none),
        cmocka_unit_test(test_a_token_of_another_message_or_key_is_none),
        cmocka_unit_test(test_texts_have_their_limits),
        cmocka_unit_test(test_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

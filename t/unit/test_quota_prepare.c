/* libraries: quota_parts */
/* Names and passwords as Unicode has them, and what is remembered of those that were
 * right. */
#include "quota/prepare.h"
#include "quota/recent.h"
#include "quota/scram.h"
#include "unit.h"

#define TEXT(literal)                                                                              \
    {                                                                                              \
        literal, sizeof(literal) - 1                                                               \
    }

/* RFC 4013 section 3, and what it refuses. */
static void test_examples_of_rfc_4013(void **state)
{
    static const struct {
        struct slice in, out;
    } rows[] = {
        {TEXT("I\xC2\xADX"), TEXT("IX")},      /* a soft hyphen is nothing */
        {TEXT("user"), TEXT("user")},          /* nothing to do */
        {TEXT("USER"), TEXT("USER")},          /* case stays */
        {TEXT("\xC2\xAA"), TEXT("a")},         /* compatibility */
        {TEXT("\xE2\x85\xA8"), TEXT("IX")},    /* Roman nine */
        {TEXT("a\xC2\xA0z"), TEXT("a z")},     /* a space that does not break */
        {TEXT("u\xCC\x88"), TEXT("\xC3\xBC")}, /* composed */
        /* refused, and so left alone: control characters, mixed directions */
        {TEXT("\x07"), TEXT("\x07")},
        {TEXT("\xD8\xA7\x31"), TEXT("\xD8\xA7\x31")},
        {TEXT("\xC3\xBC\x07u\xCC\x88"), TEXT("\xC3\xBC\x07u\xCC\x88")},
        /* no UTF-8, a NUL, nothing left */
        {TEXT("caf\xE9"), TEXT("caf\xE9")},
        {TEXT("\xC3\xBC\0u\xCC\x88"), TEXT("\xC3\xBC\0u\xCC\x88")},
        {TEXT("\xC2\xAD"), TEXT("\xC2\xAD")},
        /* newer than Unicode 3.2: passes */
        {TEXT("\xF0\x9F\x90\x8E u\xCC\x88"), TEXT("\xF0\x9F\x90\x8E \xC3\xBC")},
        {TEXT(""), TEXT("")},
    };
    char text[PASSWORD_MAX];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct slice out = slice_make(text, prepare_password(rows[i].in, text));
        if (!slice_eq(out, rows[i].out))
            fail_msg("row %zu: \"%.*s\" is not \"%.*s\"", i, SLICE_ARG(out),
                     SLICE_ARG(rows[i].out));
    }
}

/* One ligature becomes 18 characters: too long a password stays as it is. */
static void test_a_password_that_grows(void **state)
{
    char in[PASSWORD_MAX], out[PASSWORD_MAX];
    struct password_forms forms;
    (void)state;
    for (size_t i = 0; i + 3 <= sizeof in; i += 3)
        memcpy(in + i, "\xEF\xB7\xBA", 3);
    size_t len = sizeof in / 3 * 3;
    assert_int_equal(prepare_password(slice_make(in, len), out), len);
    assert_memory_equal(out, in, len);
    password_forms(slice_make(in, len), &forms);
    assert_int_equal(forms.count, 1);
    assert_int_equal(prepare_password(slice_make(in, 3), out), 33);
}

static void test_forms_of_a_password(void **state)
{
    struct password_forms f;
    (void)state;
    password_forms(SLICE("plain ASCII"), &f);
    assert_int_equal(f.count, 1);
    password_forms(SLICE("\xC3\xBC"), &f); /* composed: the decomposed one is another */
    assert_int_equal(f.count, 2);
    assert_slice_is(slice_make(f.text[1], f.len[1]), "u\xCC\x88");
    /* a ligature, a composed letter and a decomposed one: all four differ */
    password_forms(SLICE("\xEF\xAC\x81\xC3\xBCu\xCC\x88"), &f);
    assert_int_equal(f.count, 4);
    assert_slice_is(slice_make(f.text[0], f.len[0]), "fi\xC3\xBC\xC3\xBC");
    assert_slice_is(slice_make(f.text[1], f.len[1]), "\xEF\xAC\x81\xC3\xBCu\xCC\x88");
    assert_slice_is(slice_make(f.text[2], f.len[2]), "\xEF\xAC\x81\xC3\xBC\xC3\xBC");
    assert_slice_is(slice_make(f.text[3], f.len[3]), "\xEF\xAC\x81u\xCC\x88u\xCC\x88");
    password_forms(SLICE("caf\xE9"), &f); /* Latin 1 */
    assert_int_equal(f.count, 1);
    password_forms(SLICE(""), &f);
    assert_int_equal(f.count, 1);
    assert_int_equal(f.len[0], 0);
}

static void test_login_names(void **state)
{
    char login[LOGIN_MAX + 1];
    (void)state;
    assert_int_equal(prepare_login(SLICE("Shop@Example.com"), login), 0);
    assert_string_equal(login, "shop@example.com");
    /* wide letters, and a soft hyphen */
    assert_int_equal(prepare_login(SLICE("\xEF\xBC\xB3h\xC2\xADop"), login), 0);
    assert_string_equal(login, "shop");
    assert_int_equal(prepare_login(SLICE("m\xC3\xBCller"), login), -1);
    assert_int_equal(prepare_login(SLICE("a\xC2\xA0z"), login), -1);     /* a space */
    assert_int_equal(prepare_login(SLICE("a\xEF\xBC\x8Fz"), login), -1); /* a wide '/' */
    assert_int_equal(prepare_login(SLICE("a\0z"), login), -1);
    assert_int_equal(prepare_login(SLICE("\xFF"), login), -1);
    assert_int_equal(prepare_login(SLICE(""), login), -1);
}

static void test_scram_keys_know_their_password(void **state)
{
    struct scram_keys k;
    (void)state;
    assert_int_equal(
        scram_parse(SLICE("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7Bke"
                          "ZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="),
                    &k),
        0);
    assert_int_equal(scram_verify(&k, SLICE("pencil")), HASH_MATCH);
    assert_int_equal(scram_verify(&k, SLICE("Pencil")), HASH_MISMATCH);
    assert_int_equal(scram_verify(&k, SLICE("")), HASH_MISMATCH);
}

static bool knows(struct recent *r, const char *login, const char *password, int64_t now)
{
    unsigned char digest[RECENT_DIGEST];
    recent_digest(r, login, slice_str(password), digest);
    return recent_knows(r, login, digest, now);
}

static void add(struct recent *r, const char *login, const char *password, int64_t until)
{
    unsigned char digest[RECENT_DIGEST];
    recent_digest(r, login, slice_str(password), digest);
    recent_add(r, login, digest, r->changes, until, 3);
}

static void test_a_change_forgets_one_user(void **state)
{
    struct recent r;
    (void)state;
    assert_int_equal(recent_init(&r), 0);
    add(&r, "a", "one", 100);
    add(&r, "b", "two", 100);
    assert_true(knows(&r, "a", "one", 50));
    assert_false(knows(&r, "a", "two", 50));
    assert_false(knows(&r, "b", "one", 50));
    recent_forget(&r, "a");
    assert_false(knows(&r, "a", "one", 50));
    assert_true(knows(&r, "b", "two", 50));
    recent_forget(&r, "nobody");
    assert_true(knows(&r, "b", "two", 50));
    recent_free(&r);
}

/* A password that is compared with the old hash while it is changed. */
static void test_what_was_compared_before_a_change_is_not_remembered(void **state)
{
    struct recent r;
    unsigned char digest[RECENT_DIGEST];
    (void)state;
    assert_int_equal(recent_init(&r), 0);
    uint64_t changes = r.changes;
    recent_digest(&r, "a", SLICE("old"), digest);
    recent_forget(&r, "a");
    recent_add(&r, "a", digest, changes, 100, 3);
    assert_false(knows(&r, "a", "old", 50));
    recent_free(&r);
}

static void test_what_is_remembered_is_bounded(void **state)
{
    struct recent r;
    (void)state;
    assert_int_equal(recent_init(&r), 0);
    add(&r, "a", "one", 100);
    add(&r, "b", "two", 110);
    add(&r, "a", "new", 120); /* the last one of a user counts */
    assert_false(knows(&r, "a", "one", 50));
    assert_true(knows(&r, "a", "new", 50));
    add(&r, "c", "three", 130);
    add(&r, "d", "four", 140); /* the fourth: the oldest goes */
    assert_int_equal(r.users.count, 3);
    assert_false(knows(&r, "b", "two", 50));
    assert_true(knows(&r, "c", "three", 129));
    assert_false(knows(&r, "c", "three", 130));
    assert_true(knows(&r, "d", "four", 139));
    assert_int_equal(r.users.count, 1);
    recent_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples_of_rfc_4013),
        cmocka_unit_test(test_a_password_that_grows),
        cmocka_unit_test(test_forms_of_a_password),
        cmocka_unit_test(test_login_names),
        cmocka_unit_test(test_scram_keys_know_their_password),
        cmocka_unit_test(test_a_change_forgets_one_user),
        cmocka_unit_test(test_what_was_compared_before_a_change_is_not_remembered),
        cmocka_unit_test(test_what_is_remembered_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

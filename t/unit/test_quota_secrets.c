/* libraries: quota_parts */
#include <stdio.h>
#include <stdlib.h>

#include "quota/hash.h"
#include "quota/scram.h"
#include "unit.h"

static const struct scram_binding no_binding;

static void test_hashes_of_other_systems(void **state)
{
    static const struct {
        const char *hash, *password;
    } rows[] = {
        {"$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/"
         "UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
         "Hello world!"},
        {"$5$saltsalt$7nms7uea33j6nUc5B/QNWbGgEhGAZc61YUN0rQzogB0", "Hello world!"},
        {"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
        {"$pbkdf2-sha256$6400$0ZrzXitFSGltTQnBWOsdAw$Y11AchqV4b0sUisdZd0Xr97KWoymNE0LNNrnEgY4H9M",
         "password"},
        {"$1$0123456789abcdef$5000$88b0ca84e9400b46bbef58ed30232a4c8d699ee2", "secret"},
        {"pbkdf2_sha256$1000$salt$qN+JnzxPIE2WfgrWPAkph8EAVeuwF7PZ0ordIY1Peq0=", "secret"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct slice text = slice_str(rows[i].hash);
        assert_true(hash_known(&text));
        if (hash_verify(rows[i].hash, slice_str(rows[i].password)) != HASH_MATCH)
            fail_msg("%s does not match", rows[i].hash);
        assert_int_equal(hash_verify(rows[i].hash, SLICE("another")), HASH_MISMATCH);
        assert_int_equal(hash_verify(rows[i].hash, SLICE("")), HASH_MISMATCH);
    }
}

static void test_new_hashes_are_yescrypt_and_salted(void **state)
{
    char one[HASH_TEXT_MAX + 1], two[HASH_TEXT_MAX + 1], longest[PASSWORD_MAX + 2];
    (void)state;
    assert_int_equal(hash_make(SLICE("pass word"), one), 0);
    assert_int_equal(hash_make(SLICE("pass word"), two), 0);
    assert_int_equal(strncmp(one, "$y$", 3), 0);
    assert_string_not_equal(one, two);
    assert_int_equal(hash_verify(one, SLICE("pass word")), HASH_MATCH);
    assert_int_equal(hash_verify(one, SLICE("pass worD")), HASH_MISMATCH);
    assert_int_equal(hash_verify(one, SLICE("pass word\0x")), HASH_MISMATCH);
    memset(longest, 'x', sizeof longest);
    assert_int_equal(hash_make(slice_make(longest, PASSWORD_MAX), one), 0);
    assert_int_equal(hash_verify(one, slice_make(longest, PASSWORD_MAX)), HASH_MATCH);
    assert_int_equal(hash_make(slice_make(longest, PASSWORD_MAX + 1), one), -1);
    assert_int_equal(hash_make(SLICE("a\0b"), one), -1);
}

static void test_what_is_no_hash(void **state)
{
    static const char *const bad[] = {"",
                                      "secret",
                                      "$1$x",
                                      "$1$saltsalt$nfUgMOrxpg8SkjXhu1Az7.",
                                      "$1$salt$0$88b0ca84e9400b46bbef58ed30232a4c8d699ee2",
                                      "$1$$5000$88b0ca84e9400b46bbef58ed30232a4c8d699ee2",
                                      "$1$salt$5000$88b0ca84e9400b46bbef58ed30232a4c8d699ee",
                                      "$1$salt$5000$88b0ca84e9400b46bbef58ed30232a4c8d699eeg",
                                      "$pbkdf2-sha256$0$AAAA$AAAA",
                                      "$y$",
                                      "*",
                                      "$6$bad hash with spaces in it here"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct slice text = slice_str(bad[i]);
        if (hash_known(&text))
            fail_msg("%s was taken for a hash", bad[i]);
    }
    assert_int_equal(hash_verify("secret", SLICE("secret")), HASH_MISMATCH);
    assert_int_equal(hash_verify("*", SLICE("secret")), HASH_UNUSABLE);
    struct slice prefixed = SLICE("{BLF-CRYPT}$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0X");
    assert_true(hash_known(&prefixed));
    assert_true(slice_starts(prefixed, SLICE("$2y$")));
    prefixed = SLICE("{PBKDF2}$1$0123456789abcdef$5000$88b0ca84e9400b46bbef58ed30232a4c8d699ee2");
    assert_true(hash_known(&prefixed));
}

/* The example of RFC 7677 section 3. */
static void test_scram_example_of_rfc_7677(void **state)
{
    struct scram s;
    struct scram_keys k;
    struct buf out = BUF_INIT(200);
    (void)state;
    assert_int_equal(
        scram_parse(SLICE("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7Bke"
                          "ZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="),
                    &k),
        0);
    scram_init(&s);
    assert_int_equal(scram_first(&s, SLICE("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"), &no_binding), 0);
    assert_string_equal(s.user, "user");
    assert_int_equal(scram_challenge(&s, &k, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"), 0);
    assert_slice_is(buf_slice(&s.challenge), "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                                             "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
    struct slice final = SLICE("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                               "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    int rc = scram_final(&s, final, &out);
    assert_int_equal(rc, 0);
    assert_slice_is(buf_slice(&out), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    /* one bit of the proof, the nonce or the binding is not right */
    char wrong[200];
    for (size_t i = 2; i < final.len; i++) {
        memcpy(wrong, final.ptr, final.len);
        wrong[i] = wrong[i] == 'A' ? 'B' : 'A';
        if (i == final.len - 1 || i == final.len - 2) /* padding, bits that count for nothing */
            continue;
        if (scram_final(&s, slice_make(wrong, final.len), &out) == 0)
            fail_msg("taken with a change at %zu", i);
    }
    scram_free(&s);
    buf_free(&out);
}

static void test_scram_keys_of_the_example_s_password(void **state)
{
    struct scram_keys a, b;
    char text[SCRAM_TEXT_MAX + 1];
    (void)state;
    assert_int_equal(scram_make(SLICE("pencil"), 4096, &a), 0);
    scram_print(&a, text);
    assert_int_equal(scram_parse(slice_str(text), &b), 0);
    assert_memory_equal(a.stored, b.stored, SCRAM_DIGEST);
    assert_memory_equal(a.server, b.server, SCRAM_DIGEST);
    assert_int_equal(b.iterations, 4096);
    scram_fake(SLICE("secret"), SLICE("nobody"), 4096, &a);
    scram_fake(SLICE("secret"), SLICE("nobody"), 4096, &b);
    assert_memory_equal(a.salt, b.salt, SCRAM_SALT);
    scram_fake(SLICE("secret"), SLICE("somebody"), 4096, &b);
    assert_memory_not_equal(a.salt, b.salt, SCRAM_SALT);
}

static void test_scram_refuses(void **state)
{
    static const char *const bad[] = {"",
                                      "n",
                                      "n,,",
                                      "p=tls-unique,,n=user,r=abc",
                                      "n,other,n=user,r=abc",
                                      "n,a=,n=user,r=abc",
                                      "n,a==2X,n=user,r=abc",
                                      "n,,n=,r=abc",
                                      "n,,n=user,r=",
                                      "n,,r=abc,n=user",
                                      "n,,m=x,n=user,r=abc",
                                      "n,,n=us=er,r=abc",
                                      "n,,n=user,r=a\x01",
                                      "x,,n=user,r=abc"};
    struct scram s;
    (void)state;
    scram_init(&s);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (scram_first(&s, slice_str(bad[i]), &no_binding) == 0)
            fail_msg("taken: %s", bad[i]);
    assert_int_equal(scram_first(&s, SLICE("y,,n=a=2Cb=3Dc,r=abc,x=ext"), &no_binding), 0);
    assert_string_equal(s.user, "a,b=c");
    char longest[SCRAM_MESSAGE_MAX + 8] = "n,,n=";
    memset(longest + 5, 'x', sizeof longest - 5);
    assert_int_equal(scram_first(&s, slice_make(longest, sizeof longest), &no_binding), -1);
    scram_free(&s);
}

/* Channel binding: which first messages are taken, and what c= has to be then. */
static void test_scram_channel_binding(void **state)
{
    static const struct scram_binding with = {true, true, {"\1\2\3", 3}, {"end", 3}};
    static const struct scram_binding without = {true, false, {"\1\2\3", 3}, {"end", 3}};
    static const struct scram_binding resumed = {true, true, {"\1\2\3", 3}, {"", 0}};
    static const struct {
        const char *first;
        const struct scram_binding *binding;
        const char *c; /* NULL: refused */
        const char *problem;
    } rows[] = {
        {"n,,n=u,r=x", &no_binding, "biws", NULL},
        {"y,,n=u,r=x", &no_binding, "eSws", NULL},
        {"n,,n=u,r=x", &without, "biws", NULL},
        /* a client that can bind, and was told that we cannot */
        {"y,,n=u,r=x", &without, NULL, "somebody"},
        {"y,,n=u,r=x", &with, NULL, "malformed"},
        {"n,,n=u,r=x", &with, NULL, "malformed"},
        {"p=tls-exporter,,n=u,r=x", &with, "cD10bHMtZXhwb3J0ZXIsLAECAw==", NULL},
        {"p=tls-server-end-point,,n=u,r=x", &with, "cD10bHMtc2VydmVyLWVuZC1wb2ludCwsZW5k", NULL},
        {"p=tls-server-end-point,,n=u,r=x", &resumed, NULL, "not to be had"},
        {"p=tls-unique,,n=u,r=x", &with, NULL, "not to be had"},
        {"p=tls-exporter,,n=u,r=x", &without, NULL, "not to be had"},
        {"p=tls-exporter,a=other,n=u,r=x", &with, "cD10bHMtZXhwb3J0ZXIsYT1vdGhlciwBAgM=", NULL},
        {"p=,,n=u,r=x", &with, NULL, "not to be had"},
    };
    struct scram s;
    (void)state;
    scram_init(&s);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int rc = scram_first(&s, slice_str(rows[i].first), rows[i].binding);
        if ((rc == 0) != (rows[i].c != NULL) ||
            (rc == 0 ? strcmp(s.binding, rows[i].c) != 0
                     : strstr(s.problem, rows[i].problem) == NULL))
            fail_msg("row %zu: %d %s %s", i, rc, s.binding, s.problem ? s.problem : "");
    }
    scram_free(&s);
}

/* As whom it wants to act, and the longest that it can say of that. */
static void test_scram_authorization(void **state)
{
    char first[SCRAM_MESSAGE_MAX] = "p=tls-server-end-point,a=", data[SCRAM_BINDING_DATA_MAX] = "";
    const struct scram_binding longest = {true, true, {"", 0}, {data, sizeof data}};
    struct scram s;
    (void)state;
    scram_init(&s);
    assert_int_equal(scram_first(&s, SLICE("n,a=J=2CJ,n=user,r=abc"), &no_binding), 0);
    assert_string_equal(s.authorization, "J,J");
    assert_string_equal(s.user, "user");
    assert_int_equal(scram_first(&s, SLICE("n,,n=user,r=abc"), &no_binding), 0);
    assert_string_equal(s.authorization, "");
    for (int i = 0; i < SCRAM_USER_MAX; i++)
        strcat(first, "=2C");
    strcat(first, ",n=u,r=x");
    assert_int_equal(scram_first(&s, slice_str(first), &longest), 0);
    assert_int_equal(strlen(s.authorization), SCRAM_USER_MAX);
    assert_true(strlen(s.binding) < sizeof s.binding);
    scram_free(&s);
}

/* The right proof over another connection's binding is refused, and the log can say why. */
static void test_scram_of_somebody_between(void **state)
{
    static const struct scram_binding b = {true, true, {"ours", 4}, {"", 0}};
    struct scram s;
    struct scram_keys k;
    struct buf out = BUF_INIT(200);
    (void)state;
    assert_int_equal(scram_make(SLICE("pencil"), 4096, &k), 0);
    scram_init(&s);
    assert_int_equal(scram_first(&s, SLICE("p=tls-exporter,,n=u,r=x"), &b), 0);
    assert_int_equal(scram_challenge(&s, &k, "y"), 0);
    assert_int_equal(scram_final(&s,
                                 SLICE("c=cD10bHMtZXhwb3J0ZXIsLHRoZWlycw==,r=xy,p="
                                       "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="),
                                 &out),
                     -1);
    assert_non_null(strstr(s.problem, "another connection"));
    scram_free(&s);
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hashes_of_other_systems),
        cmocka_unit_test(test_new_hashes_are_yescrypt_and_salted),
        cmocka_unit_test(test_what_is_no_hash),
        cmocka_unit_test(test_scram_example_of_rfc_7677),
        cmocka_unit_test(test_scram_keys_of_the_example_s_password),
        cmocka_unit_test(test_scram_refuses),
        cmocka_unit_test(test_scram_channel_binding),
        cmocka_unit_test(test_scram_authorization),
        cmocka_unit_test(test_scram_of_somebody_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

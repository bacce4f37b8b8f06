/* libraries: postern_certs postern_core postern_io */
/* Files of keys and certificates: what is in them, and what is said of those that
 * cannot be used. */
#include "certs/pem.h"
#include "tls_world.h"
#include "unit.h"

static struct made ec, rsa, small;

static void test_parts(void **state)
{
    char *both = xasprintf("%s%s%s", ec.key_pem, ec.certificate_pem, rsa.certificate_pem);
    char *turned = xasprintf("# note\n%s%s", ec.certificate_pem, ec.key_pem);
    struct pem_parts p;
    struct err e = {0, ""};
    (void)state;
    assert_int_equal(pem_split(slice_str(both), &p, &e), 0);
    assert_non_null(p.key);
    assert_non_null(strstr(p.chain, "-----BEGIN CERTIFICATE-----"));
    assert_memory_equal(p.key_id, p.certificate_id, CERTS_KEY_ID);
    assert_true(p.not_before < p.not_after);
    pem_free(&p);
    assert_int_equal(pem_split(slice_str(turned), &p, &e), 0);
    assert_memory_equal(p.key_id, p.certificate_id, CERTS_KEY_ID);
    pem_free(&p);
    assert_int_equal(pem_split(slice_str(ec.certificate_pem), &p, &e), 0);
    assert_null(p.key);
    pem_free(&p);
    assert_int_equal(pem_split(slice_str(rsa.key_pem), &p, &e), 0);
    assert_null(p.chain);
    pem_free(&p);
    assert_int_equal(pem_split(SLICE("nothing"), &p, &e), 0);
    assert_true(!p.key && !p.chain);
    free(both);
    free(turned);
}

static void test_what_cannot_be_used(void **state)
{
    struct buf many = BUF_INIT(1 << 20);
    char *cut = xasprintf("%s%.200s", ec.certificate_pem, ec.certificate_pem);
    for (int i = 0; i < 20; i++)
        buf_addstr(&many, ec.certificate_pem);
    const struct {
        struct slice text;
        const char *error;
    } rows[] = {
        {slice_str(small.key_pem), "the private key is of 1024 bits and type RSA; use"},
        {slice_str(cut), "certificate 2 in it is damaged"},
        {buf_slice(&many), "there are more than 16 certificates in it"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct pem_parts p;
        struct err e = {0, ""};
        assert_int_equal(pem_split(rows[i].text, &p, &e), -1);
        assert_non_null(strstr(e.text, rows[i].error));
    }
    buf_free(&many);
    free(cut);
}

static void test_a_passphrase(void **state)
{
    struct pem_parts p;
    struct err e = {0, ""};
    BIO *bio = BIO_new(BIO_s_mem());
    (void)state;
    PEM_write_bio_PKCS8PrivateKey(bio, ec.key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL);
    char *text = bio_text(bio);
    assert_int_equal(pem_split(slice_str(text), &p, &e), -1);
    assert_non_null(strstr(e.text, "has a passphrase"));
    free(text);
}

static int make_all(void **state)
{
    (void)state;
    tls_library();
    ec = make_certificate("ec.example", 0, NULL);
    rsa = make_certificate("rsa.example", 2048, NULL);
    small = make_certificate("small.example", 1024, NULL);
    return 0;
}

static int free_all(void **state)
{
    (void)state;
    made_free(&ec);
    made_free(&rsa);
    made_free(&small);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_what_cannot_be_used),
        cmocka_unit_test(test_a_passphrase),
    };
    return cmocka_run_group_tests(tests, make_all, free_all);
}

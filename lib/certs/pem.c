#include "certs/pem.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "core/mem.h"
#include "io/tls.h"

enum { CHAIN_MAX = 16, RSA_LEAST = 2048, RSA_MOST = 8192 };

static int no_passphrase(char *out, int size, int writing, void *arg)
{
    (void)out;
    (void)size;
    (void)writing;
    *(bool *)arg = true;
    return -1;
}

/* What identifies a key pair: the hash of its public part. */
static int key_id(const EVP_PKEY *key, unsigned char id[CERTS_KEY_ID])
{
    unsigned char *der = NULL;
    unsigned len = 0;
    int size = i2d_PUBKEY(key, &der);
    int good = size > 0 && EVP_Digest(der, (size_t)size, id, &len, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    return good ? 0 : -1;
}

static char *text_of(BIO *bio)
{
    char *data = NULL;
    long len = BIO_get_mem_data(bio, &data);
    return slice_dup(slice_make(data, (size_t)len));
}

static int check_kind(const EVP_PKEY *key, struct err *e)
{
    int bits = EVP_PKEY_get_bits(key);
    if (EVP_PKEY_is_a(key, "RSA") && bits >= RSA_LEAST && bits <= RSA_MOST)
        return 0;
    if (EVP_PKEY_is_a(key, "EC") && bits >= 256)
        return 0;
    return err_set(e,
                   "the private key is of %d bits and type %s; use ECDSA (P-256, P-384) or RSA of "
                   "%d to %d bits",
                   bits, EVP_PKEY_get0_type_name(key) ? EVP_PKEY_get0_type_name(key) : "unknown",
                   RSA_LEAST, RSA_MOST);
}

static int take_key(struct slice text, struct pem_parts *out, struct err *e)
{
    bool encrypted = false;
    int rc = 0;
    BIO *in = BIO_new_mem_buf(text.ptr, (int)text.len);
    EVP_PKEY *key = in ? PEM_read_bio_PrivateKey(in, NULL, no_passphrase, &encrypted) : NULL;
    BIO_free(in);
    ERR_clear_error();
    if (encrypted)
        return err_set(e, "the private key has a passphrase; store it without one: openssl pkey "
                          "-in OLD -out NEW");
    if (!key)
        return 0;
    BIO *bio = BIO_new(BIO_s_secmem());
    rc = check_kind(key, e);
    if (rc == 0 && (!bio || key_id(key, out->key_id) < 0 ||
                    PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1))
        rc = err_set(e, "the private key cannot be used");
    if (rc == 0)
        out->key = text_of(bio);
    BIO_free(bio);
    EVP_PKEY_free(key);
    return rc;
}

static int take_times(const X509 *x, struct pem_parts *out)
{
    struct tm begin = {0}, end = {0};
    if (ASN1_TIME_to_tm(X509_get0_notBefore(x), &begin) != 1 ||
        ASN1_TIME_to_tm(X509_get0_notAfter(x), &end) != 1)
        return -1;
    out->not_before = timegm(&begin);
    out->not_after = timegm(&end);
    return 0;
}

static int take_certificates(struct slice text, struct pem_parts *out, struct err *e)
{
    int count = 0, rc = 0;
    X509 *x;
    BIO *in = BIO_new_mem_buf(text.ptr, (int)text.len), *bio = BIO_new(BIO_s_mem());
    while (in && bio && rc == 0 && (x = PEM_read_bio_X509(in, NULL, NULL, NULL))) {
        if (++count > CHAIN_MAX)
            rc = err_set(e, "there are more than %d certificates in it", CHAIN_MAX);
        else if (PEM_write_bio_X509(bio, x) != 1)
            rc = err_set(e, "a certificate cannot be used");
        if (count == 1 && rc == 0 &&
            (take_times(x, out) < 0 || key_id(X509_get0_pubkey(x), out->certificate_id) < 0))
            rc = err_set(e, "its certificate has no usable key or dates");
        X509_free(x);
    }
    if (rc == 0 && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        rc = err_set(e, "certificate %d in it is damaged", count + 1);
    ERR_clear_error();
    if (rc == 0 && count)
        out->chain = text_of(bio);
    BIO_free(in);
    BIO_free(bio);
    return rc;
}

int pem_check_authorities(struct slice text, struct err *e)
{
    int count = 0;
    X509 *x;
    tls_library();
    ERR_clear_error();
    BIO *in = BIO_new_mem_buf(text.ptr, (int)text.len);
    while (in && (x = PEM_read_bio_X509_AUX(in, NULL, NULL, NULL))) {
        X509_free(x);
        count++;
    }
    bool good = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    BIO_free(in);
    if (count && !good)
        return err_set(e, "certificate %d in it is damaged", count + 1);
    return count ? 0 : err_set(e, "there is no certificate in it (-----BEGIN CERTIFICATE-----)");
}

int pem_split(struct slice text, struct pem_parts *out, struct err *e)
{
    *out = (struct pem_parts){.key = NULL};
    tls_library();
    ERR_clear_error();
    if (take_key(text, out, e) == 0 && take_certificates(text, out, e) == 0)
        return 0;
    pem_free(out);
    return -1;
}

void pem_free(struct pem_parts *p)
{
    if (p->key)
        OPENSSL_cleanse(p->key, strlen(p->key));
    xfree(&p->key);
    xfree(&p->chain);
}

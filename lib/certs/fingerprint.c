/* How a certificate is known: the SHA-256 of it, or of its public key. */
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "certs/certs.h"

static bool digest_key(const X509 *x, unsigned char out[static EVP_MAX_MD_SIZE])
{
    unsigned char *der = NULL;
    int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der);
    bool good = size > 0 && EVP_Digest(der, (size_t)size, out, NULL, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    return good;
}

int certs_fingerprint(const char *path, bool of_key, char out[static CERTS_FINGERPRINT + 1],
                      struct err *e)
{
    static const char digits[] = "0123456789ABCDEF";
    unsigned char bytes[EVP_MAX_MD_SIZE];
    FILE *in = fopen(path, "re");
    if (!in)
        return err_sys(e, "%s: cannot read the certificate", path);
    X509 *x = PEM_read_X509(in, NULL, NULL, NULL);
    fclose(in);
    ERR_clear_error();
    if (!x)
        return err_set(e, "%s: has no certificate in PEM form (-----BEGIN CERTIFICATE-----)", path);
    bool good = of_key ? digest_key(x, bytes) : X509_digest(x, EVP_sha256(), bytes, NULL) == 1;
    X509_free(x);
    if (!good)
        return err_set(e, "%s: the certificate has no fingerprint", path);
    for (size_t i = 0; i < CERTS_KEY_ID; i++) {
        out[3 * i] = digits[bytes[i] >> 4];
        out[3 * i + 1] = digits[bytes[i] & 15];
        out[3 * i + 2] = ':';
    }
    out[CERTS_FINGERPRINT] = '\0';
    return 0;
}

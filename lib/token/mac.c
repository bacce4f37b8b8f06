#include "token/mac.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "core/mem.h"

static EVP_MAC_CTX *make_context(void)
{
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *c = hmac ? EVP_MAC_CTX_new(hmac) : NULL;
    EVP_MAC_free(hmac); /* the context has its own reference */
    if (!c || EVP_MAC_CTX_set_params(c, params) != 1)
        panic("OpenSSL has no HMAC-SHA-256");
    return c;
}

void mac_sha256(const unsigned char key[static MAC_BYTES], struct slice text,
                unsigned char out[static MAC_BYTES])
{
    static EVP_MAC_CTX *context; /* for the life of the process */
    size_t len = 0;
    if (!context)
        context = make_context();
    if (EVP_MAC_init(context, key, MAC_BYTES, NULL) != 1 ||
        EVP_MAC_update(context, (const unsigned char *)text.ptr, text.len) != 1 ||
        EVP_MAC_final(context, out, &len, MAC_BYTES) != 1 || len != MAC_BYTES)
        panic("OpenSSL computes no HMAC-SHA-256");
}

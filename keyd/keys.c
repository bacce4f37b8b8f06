#include "keyd/keys.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <unistd.h>

#include "core/mem.h"
#include "keyd/handshake.h"

struct key {
    uint32_t number;
    enum key_purpose purpose;
    bool rsa;
    EVP_PKEY *pair;
};

static struct slice number_of(const void *value)
{
    const struct key *k = value;
    return slice_make(&k->number, sizeof k->number);
}

static void key_free(void *value)
{
    struct key *k = value;
    EVP_PKEY_free(k->pair); /* wipes it */
    free(k);
}

void keys_init(struct keys *k)
{
    map_init(&k->all, number_of);
}

void keys_free(struct keys *k)
{
    map_clear(&k->all, key_free);
    map_free(&k->all);
}

void keys_forget(struct keys *k, uint32_t number)
{
    void *old = map_remove(&k->all, slice_make(&number, sizeof number));
    if (old)
        key_free(old);
}

/* ---- taking one --------------------------------------------------------------------- */

static EVP_PKEY *read_pair(int fd, struct err *e)
{
    char text[KEY_PEM_MAX];
    size_t len = 0;
    ssize_t n;
    while ((n = pread(fd, text + len, sizeof text - len, (off_t)len)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 || (size_t)n == sizeof text - len)
            break;
        len += (size_t)n;
    }
    EVP_PKEY *pair = NULL;
    BIO *bio = n == 0 ? BIO_new_mem_buf(text, (int)len) : NULL;
    if (bio)
        pair = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    OPENSSL_cleanse(text, sizeof text);
    ERR_clear_error();
    if (!pair)
        err_set(e, "no private key came from master");
    return pair;
}

int keys_add(struct keys *k, uint32_t number, enum key_purpose purpose, int fd, struct err *e)
{
    if (purpose != KEY_TLS && purpose != KEY_DKIM)
        return err_set(e, "purpose %d of a key", (int)purpose);
    if (k->all.count >= KEYS_MAX)
        return err_set(e, "more than %d keys", KEYS_MAX);
    EVP_PKEY *pair = read_pair(fd, e);
    if (!pair)
        return -1;
    struct key *fresh = xcalloc(1, sizeof *fresh);
    *fresh = (struct key){number, purpose, EVP_PKEY_is_a(pair, "RSA") == 1, pair};
    struct key *old = map_put(&k->all, fresh);
    if (old)
        key_free(old);
    return 0;
}

/* ---- signing -------------------------------------------------------------------------- */

static size_t sign(const struct key *k, const struct handshake_scheme *s, struct slice content,
                   unsigned char out[SIGNATURE_MAX])
{
    size_t len = SIGNATURE_MAX;
    EVP_PKEY_CTX *options = NULL; /* belongs to c */
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool good = c && EVP_DigestSignInit_ex(c, &options, s->digest, NULL, NULL, k->pair, NULL) == 1;
    if (good && s->pss)
        good = EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1 &&
               EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) == 1;
    good =
        good && EVP_DigestSign(c, out, &len, (const unsigned char *)content.ptr, content.len) == 1;
    EVP_MD_CTX_free(c);
    ERR_clear_error();
    return good ? len : 0;
}

size_t keys_sign_handshake(struct keys *k, uint32_t number, uint16_t scheme, struct slice content,
                           unsigned char out[SIGNATURE_MAX], struct err *e)
{
    const struct key *key = map_get(&k->all, slice_make(&number, sizeof number));
    struct handshake_scheme s;
    if (!key) {
        err_set(e, "there is no key %u", number);
        return 0;
    }
    if (key->purpose != KEY_TLS || !handshake_scheme(scheme, &s) || s.rsa != key->rsa) {
        err_set(e, "key %u is not for scheme 0x%04x of TLS", number, scheme);
        return 0;
    }
    if (!handshake_is_servers(scheme, content)) {
        err_set(e, "%zu bytes that are no part of a TLS server's handshake", content.len);
        return 0;
    }
    size_t len = sign(key, &s, content, out);
    if (len == 0)
        err_set(e, "key %u cannot sign", number);
    return len;
}

#include "quota/hash.h"

#include <crypt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "core/mem.h"

enum { DIGEST_MAX = 64, SALT_MAX = 256, ITERATIONS_MAX = 10000000 };

/* ---- PBKDF2 -------------------------------------------------------------------- */

struct pbkdf2 {
    const EVP_MD *md;
    int iterations;
    unsigned char salt[SALT_MAX], digest[DIGEST_MAX];
    int salt_len, digest_len;
};

/* Base64 with or without padding; passlib writes '.' for '+'. Bytes, or -1. */
static int decode(struct slice s, unsigned char *out, size_t size)
{
    char padded[2 * SALT_MAX];
    unsigned char raw[2 * SALT_MAX];
    while (s.len && s.ptr[s.len - 1] == '=')
        s.len--;
    size_t pad = (4 - s.len % 4) % 4;
    if (s.len + pad > sizeof padded || pad == 3)
        return -1;
    for (size_t i = 0; i < s.len; i++)
        padded[i] = s.ptr[i] == '.' ? '+' : s.ptr[i];
    memset(padded + s.len, '=', pad);
    int n = EVP_DecodeBlock(raw, (const unsigned char *)padded, (int)(s.len + pad));
    if (n < (int)pad || (size_t)n - pad > size)
        return -1;
    memcpy(out, raw, (size_t)n - pad);
    return n - (int)pad;
}

static int take_iterations(struct slice *s, struct pbkdf2 *p)
{
    uint64_t n;
    if (slice_u64(slice_cut(s, '$'), &n) < 0 || n == 0 || n > ITERATIONS_MAX)
        return -1;
    p->iterations = (int)n;
    return 0;
}

static bool take_prefix(struct slice *s, struct slice prefix)
{
    if (!slice_starts(*s, prefix))
        return false;
    *s = slice_from(*s, prefix.len);
    return true;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Dovecot's {PBKDF2}, which is SHA-1: the salt as it is, iterations, 40 hexadecimal digits. What
 * crypt(3) calls $1$ has no third part. */
static int dovecot_parse(struct slice s, struct pbkdf2 *p)
{
    enum { SHA1_BYTES = 20 };
    struct slice salt = slice_cut(&s, '$');
    if (salt.len == 0 || salt.len > SALT_MAX || take_iterations(&s, p) < 0 ||
        s.len != (size_t)SHA1_BYTES * 2)
        return -1;
    p->md = EVP_sha1();
    memcpy(p->salt, salt.ptr, salt.len);
    p->salt_len = (int)salt.len;
    p->digest_len = SHA1_BYTES;
    for (size_t i = 0; i < SHA1_BYTES; i++) {
        int high = hex_value(s.ptr[2 * i]), low = hex_value(s.ptr[2 * i + 1]);
        if (high < 0 || low < 0)
            return -1;
        p->digest[i] = (unsigned char)(high << 4 | low);
    }
    return 0;
}

static int pbkdf2_parse(struct slice s, struct pbkdf2 *p)
{
    bool django = false;
    if (take_prefix(&s, SLICE("$1$")))
        return dovecot_parse(s, p);
    if (take_prefix(&s, SLICE("$pbkdf2-sha256$")))
        p->md = EVP_sha256();
    else if (take_prefix(&s, SLICE("$pbkdf2-sha512$")))
        p->md = EVP_sha512();
    else if (take_prefix(&s, SLICE("$pbkdf2$")))
        p->md = EVP_sha1();
    else if ((django = take_prefix(&s, SLICE("pbkdf2_sha256$"))))
        p->md = EVP_sha256();
    else
        return -1;
    if (take_iterations(&s, p) < 0)
        return -1;
    struct slice salt = slice_cut(&s, '$');
    if (django && salt.len <= SALT_MAX) {
        memcpy(p->salt, salt.ptr, salt.len);
        p->salt_len = (int)salt.len;
    } else {
        p->salt_len = django ? -1 : decode(salt, p->salt, sizeof p->salt);
    }
    p->digest_len = decode(s, p->digest, sizeof p->digest);
    return p->salt_len < 0 || p->digest_len < 16 ? -1 : 0;
}

static enum hash_verdict pbkdf2_verify(const struct pbkdf2 *p, struct slice password)
{
    unsigned char digest[DIGEST_MAX];
    if (PKCS5_PBKDF2_HMAC(password.ptr, (int)password.len, p->salt, p->salt_len, p->iterations,
                          p->md, p->digest_len, digest) != 1)
        return HASH_UNUSABLE;
    bool same = CRYPTO_memcmp(digest, p->digest, (size_t)p->digest_len) == 0;
    OPENSSL_cleanse(digest, sizeof digest);
    return same ? HASH_MATCH : HASH_MISMATCH;
}

/* ---- crypt(3) ------------------------------------------------------------------ */

static enum hash_verdict crypt_verify(const char *stored, const char *password)
{
    void *data = NULL;
    int size = 0;
    const char *made = crypt_ra(password, stored, &data, &size);
    enum hash_verdict verdict = HASH_UNUSABLE;
    if (made && made[0] != '*') {
        size_t len = strlen(stored);
        bool same = strlen(made) == len && CRYPTO_memcmp(made, stored, len) == 0;
        verdict = same ? HASH_MATCH : HASH_MISMATCH;
    }
    if (data)
        OPENSSL_cleanse(data, (size_t)size);
    free(data);
    return verdict;
}

enum hash_verdict hash_verify(const char *stored, struct slice password)
{
    struct pbkdf2 p;
    char text[PASSWORD_MAX + 1];
    if (password.len > PASSWORD_MAX || memchr(password.ptr ? password.ptr : "", '\0', password.len))
        return HASH_MISMATCH;
    if (pbkdf2_parse(slice_str(stored), &p) == 0)
        return pbkdf2_verify(&p, password);
    if (password.len)
        memcpy(text, password.ptr, password.len);
    text[password.len] = '\0';
    enum hash_verdict verdict = crypt_verify(stored, text);
    OPENSSL_cleanse(text, sizeof text);
    return verdict;
}

int hash_make(struct slice password, char out[static HASH_TEXT_MAX + 1])
{
    char text[PASSWORD_MAX + 1], salt[CRYPT_GENSALT_OUTPUT_SIZE];
    void *data = NULL;
    int size = 0, rc = -1;
    if (password.len > PASSWORD_MAX || memchr(password.ptr ? password.ptr : "", '\0', password.len))
        return -1;
    if (password.len)
        memcpy(text, password.ptr, password.len);
    text[password.len] = '\0';
    if (crypt_gensalt_rn("$y$", 0, NULL, 0, salt, sizeof salt)) {
        const char *made = crypt_ra(text, salt, &data, &size);
        if (made && made[0] != '*' && strlen(made) <= HASH_TEXT_MAX) {
            snprintf(out, HASH_TEXT_MAX + 1, "%s", made);
            rc = 0;
        }
    }
    if (data)
        OPENSSL_cleanse(data, (size_t)size);
    free(data);
    OPENSSL_cleanse(text, sizeof text);
    return rc;
}

bool hash_known(struct slice *text)
{
    static const char *const prefixes[] = {"$y$",  "$gy$", "$7$", "$2a$",
                                           "$2b$", "$2y$", "$5$", "$6$"};
    struct pbkdf2 p;
    if (text->len && text->ptr[0] == '{') {
        size_t end = slice_chr(*text, '}');
        *text = slice_from(*text, end + 1);
    }
    if (text->len > HASH_TEXT_MAX)
        return false;
    for (size_t i = 0; i < text->len; i++)
        if (text->ptr[i] <= ' ' || text->ptr[i] > '~')
            return false;
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (slice_starts(*text, slice_str(prefixes[i])) && text->len > 20)
            return true;
    return pbkdf2_parse(*text, &p) == 0;
}

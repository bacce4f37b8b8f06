#include "quota/scram.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>

enum { NONCE_BYTES = 18, NONCE_MAX = 512, BASE64_DIGEST = 44, ITERATIONS_MAX = 10000000 };

/* ---- pieces -------------------------------------------------------------------- */

static void mac(const unsigned char key[static SCRAM_DIGEST], struct slice text,
                unsigned char out[static SCRAM_DIGEST])
{
    unsigned len = SCRAM_DIGEST;
    HMAC(EVP_sha256(), key, SCRAM_DIGEST, (const unsigned char *)text.ptr, text.len, out, &len);
}

static void encode64(const unsigned char *data, size_t len, char *out)
{
    EVP_EncodeBlock((unsigned char *)out, data, (int)len);
}

/* Strict base64 with padding; bytes or -1. */
static int decode64(struct slice s, unsigned char *out, size_t size)
{
    unsigned char raw[512];
    if (s.len == 0 || s.len % 4 || s.len / 4 * 3 > sizeof raw)
        return -1;
    int n = EVP_DecodeBlock(raw, (const unsigned char *)s.ptr, (int)s.len);
    if (n < 0)
        return -1;
    n -= s.ptr[s.len - 1] == '=';
    n -= s.ptr[s.len - 2] == '=';
    if ((size_t)n > size)
        return -1;
    memcpy(out, raw, (size_t)n);
    return n;
}

/* ---- keys ---------------------------------------------------------------------- */

static void derive(const unsigned char salted[static SCRAM_DIGEST], struct scram_keys *k)
{
    unsigned char client[SCRAM_DIGEST];
    mac(salted, SLICE("Client Key"), client);
    SHA256(client, sizeof client, k->stored);
    mac(salted, SLICE("Server Key"), k->server);
    OPENSSL_cleanse(client, sizeof client);
}

/* Fills the keys from the password, with their salt and iterations. */
static int derive_from(struct slice password, struct scram_keys *k)
{
    unsigned char salted[SCRAM_DIGEST];
    if (PKCS5_PBKDF2_HMAC(password.ptr, (int)password.len, k->salt, k->salt_len, (int)k->iterations,
                          EVP_sha256(), sizeof salted, salted) != 1)
        return -1;
    derive(salted, k);
    OPENSSL_cleanse(salted, sizeof salted);
    return 0;
}

int scram_make(struct slice password, uint32_t iterations, struct scram_keys *out)
{
    unsigned char salt[SCRAM_SALT];
    return RAND_bytes(salt, sizeof salt) == 1 ? scram_make_with(password, iterations, salt, out)
                                              : -1;
}

int scram_make_with(struct slice password, uint32_t iterations,
                    const unsigned char salt[static SCRAM_SALT], struct scram_keys *out)
{
    out->iterations = iterations;
    out->salt_len = SCRAM_SALT;
    memcpy(out->salt, salt, SCRAM_SALT);
    return derive_from(password, out);
}

enum hash_verdict scram_verify(const struct scram_keys *k, struct slice password)
{
    struct scram_keys made = *k;
    if (derive_from(password, &made) < 0)
        return HASH_UNUSABLE;
    bool same = CRYPTO_memcmp(made.stored, k->stored, SCRAM_DIGEST) == 0;
    OPENSSL_cleanse(&made, sizeof made);
    return same ? HASH_MATCH : HASH_MISMATCH;
}

int scram_parse(struct slice text, struct scram_keys *out)
{
    uint64_t n;
    if (!slice_starts(text, SLICE("SCRAM-SHA-256$")))
        return -1;
    text = slice_from(text, 14);
    if (slice_u64(slice_cut(&text, ':'), &n) < 0 || n == 0 || n > ITERATIONS_MAX)
        return -1;
    struct slice salt = slice_cut(&text, '$'), stored = slice_cut(&text, ':');
    int len = decode64(salt, out->salt, sizeof out->salt);
    if (len < 1 || decode64(stored, out->stored, SCRAM_DIGEST) != SCRAM_DIGEST ||
        decode64(text, out->server, SCRAM_DIGEST) != SCRAM_DIGEST)
        return -1;
    out->iterations = (uint32_t)n;
    out->salt_len = (uint8_t)len;
    return 0;
}

void scram_print(const struct scram_keys *k, char out[static SCRAM_TEXT_MAX + 1])
{
    char salt[SCRAM_SALT_MAX * 2], stored[BASE64_DIGEST + 1], server[BASE64_DIGEST + 1];
    encode64(k->salt, k->salt_len, salt);
    encode64(k->stored, SCRAM_DIGEST, stored);
    encode64(k->server, SCRAM_DIGEST, server);
    snprintf(out, SCRAM_TEXT_MAX + 1, "SCRAM-SHA-256$%u:%s$%s:%s", k->iterations, salt, stored,
             server);
}

void scram_fake(struct slice secret, struct slice user, uint32_t iterations, struct scram_keys *out)
{
    unsigned char digest[SCRAM_DIGEST];
    unsigned len = sizeof digest;
    HMAC(EVP_sha256(), secret.ptr, (int)secret.len, (const unsigned char *)user.ptr, user.len,
         digest, &len);
    *out = (struct scram_keys){.iterations = iterations, .salt_len = SCRAM_SALT};
    memcpy(out->salt, digest, SCRAM_SALT);
    mac(digest, SLICE("no stored key"), out->stored);
    mac(digest, SLICE("no server key"), out->server);
}

/* ---- the exchange ---------------------------------------------------------------- */

void scram_init(struct scram *s)
{
    *s = (struct scram){.bare = BUF_INIT(SCRAM_MESSAGE_MAX),
                        .challenge = BUF_INIT(2 * SCRAM_MESSAGE_MAX)};
}

void scram_free(struct scram *s)
{
    buf_free(&s->bare);
    buf_free(&s->challenge);
    OPENSSL_cleanse(&s->keys, sizeof s->keys);
}

/* The value of "x=..." up to the next comma; -1 if another attribute is there. */
static int attribute(struct slice *message, char name, struct slice *value)
{
    struct slice part = slice_cut(message, ',');
    if (part.len < 2 || part.ptr[0] != name || part.ptr[1] != '=')
        return -1;
    *value = slice_from(part, 2);
    return 0;
}

static bool is_nonce(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < '!' || s.ptr[i] > '~' || s.ptr[i] == ',')
            return false;
    return s.len > 0 && s.len <= NONCE_MAX;
}

/* The GS2 header's first part is "n" (no binding), "y" (none, since none is offered) or
 * "p=NAME". *data is what the connection is known by under that name. */
static const char *check_binding(struct slice flag, const struct scram_binding *b,
                                 struct slice *data)
{
    *data = SLICE("");
    if (!b->plus && slice_eq(flag, SLICE("n")))
        return NULL;
    if (!b->plus && slice_eq(flag, SLICE("y")))
        return b->offered ? "the client did not see that channel binding is offered: somebody may "
                            "be between it and us"
                          : NULL;
    if (slice_eq(flag, SLICE("p=tls-exporter")))
        *data = b->exporter;
    else if (slice_eq(flag, SLICE("p=tls-server-end-point")))
        *data = b->endpoint;
    else if (!slice_starts(flag, SLICE("p=")))
        return "malformed SCRAM message";
    return b->plus && data->len && data->len <= SCRAM_BINDING_DATA_MAX
               ? NULL
               : "the client wants a kind of channel binding that is not to be had";
}

/* "=2C" is ',' and "=3D" '='. */
static int decode_user(struct slice s, char out[static SCRAM_USER_MAX + 1])
{
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c == '=') {
            struct slice code = slice_first(slice_from(s, i + 1), 2);
            if (slice_eq(code, SLICE("2C")))
                c = ',';
            else if (!slice_eq(code, SLICE("3D")))
                return -1;
            i += 2;
        }
        if (n == SCRAM_USER_MAX || c == '\0')
            return -1;
        out[n++] = c;
    }
    out[n] = '\0';
    return n ? 0 : -1;
}

/* Both parts of the header, and what c= must be. */
static int take_header(struct scram *s, struct slice *message, const struct scram_binding *b)
{
    struct slice whole = *message, data;
    struct slice flag = slice_cut(message, ','), who = slice_cut(message, ',');
    s->problem = check_binding(flag, b, &data);
    if (s->problem)
        return -1;
    s->problem = "malformed SCRAM message";
    s->authorization[0] = '\0';
    if (who.len &&
        (!slice_starts(who, SLICE("a=")) || decode_user(slice_from(who, 2), s->authorization) < 0))
        return -1;
    struct buf text = BUF_INIT(SCRAM_BINDING_MAX);
    buf_adds(&text, slice_first(whole, (size_t)(message->ptr - whole.ptr)));
    buf_adds(&text, data);
    encode64((const unsigned char *)text.data, text.len, s->binding);
    buf_free(&text);
    return 0;
}

int scram_first(struct scram *s, struct slice message, const struct scram_binding *binding)
{
    struct slice user, nonce;
    s->problem = "malformed SCRAM message";
    if (message.len > SCRAM_MESSAGE_MAX || take_header(s, &message, binding) < 0)
        return -1;
    struct slice bare = message;
    if (attribute(&message, 'n', &user) < 0 || attribute(&message, 'r', &nonce) < 0 ||
        decode_user(user, s->user) < 0 || !is_nonce(nonce))
        return -1;
    buf_clear(&s->bare);
    if (buf_adds(&s->bare, bare) < 0)
        return -1;
    s->nonce_at = (size_t)(nonce.ptr - bare.ptr);
    s->nonce_len = nonce.len;
    s->problem = NULL;
    return 0;
}

int scram_challenge(struct scram *s, const struct scram_keys *keys, const char *nonce)
{
    unsigned char random[NONCE_BYTES];
    char own[NONCE_BYTES * 2], salt[SCRAM_SALT_MAX * 2];
    s->keys = *keys;
    if (!nonce) {
        if (RAND_bytes(random, sizeof random) != 1)
            return -1;
        encode64(random, sizeof random, own);
        nonce = own;
    }
    encode64(keys->salt, keys->salt_len, salt);
    struct slice theirs = slice_make(s->bare.data + s->nonce_at, s->nonce_len);
    buf_clear(&s->challenge);
    if (buf_printf(&s->challenge, "r=%.*s%s,s=%s,i=%u", SLICE_ARG(theirs), nonce, salt,
                   keys->iterations) < 0)
        return -1;
    s->nonce_at = 2;
    s->nonce_len += strlen(nonce);
    return 0;
}

/* StoredKey is the digest of ClientKey, which the proof hides under a signature. */
static bool proof_fits(const struct scram *s, const unsigned char proof[static SCRAM_DIGEST],
                       struct slice auth_message)
{
    unsigned char signature[SCRAM_DIGEST], client[SCRAM_DIGEST], digest[SCRAM_DIGEST];
    mac(s->keys.stored, auth_message, signature);
    for (int i = 0; i < SCRAM_DIGEST; i++)
        client[i] = proof[i] ^ signature[i];
    SHA256(client, sizeof client, digest);
    bool fits = CRYPTO_memcmp(digest, s->keys.stored, SCRAM_DIGEST) == 0;
    OPENSSL_cleanse(client, sizeof client);
    return fits;
}

int scram_final(struct scram *s, struct slice message, struct buf *out)
{
    unsigned char proof[SCRAM_DIGEST], signature[SCRAM_DIGEST];
    char text[BASE64_DIGEST + 1];
    struct slice rest = message, binding, nonce, encoded;
    s->problem = "malformed SCRAM message";
    if (message.len > SCRAM_MESSAGE_MAX || attribute(&rest, 'c', &binding) < 0 ||
        attribute(&rest, 'r', &nonce) < 0)
        return -1;
    size_t without = message.len - rest.len - 1; /* up to the comma before the proof */
    if (attribute(&rest, 'p', &encoded) < 0 || rest.len ||
        decode64(encoded, proof, sizeof proof) != SCRAM_DIGEST)
        return -1;
    if (!slice_eq(binding, slice_str(s->binding))) {
        s->problem = "the channel binding is that of another connection: somebody may be between "
                     "the client and us";
        return -1;
    }
    s->problem = NULL;
    if (!slice_eq(nonce, slice_make(s->challenge.data + s->nonce_at, s->nonce_len)))
        return -1; /* of another exchange */
    struct buf all = BUF_INIT(8 * SCRAM_MESSAGE_MAX);
    buf_adds(&all, buf_slice(&s->bare));
    buf_addc(&all, ',');
    buf_adds(&all, buf_slice(&s->challenge));
    buf_addc(&all, ',');
    buf_adds(&all, slice_first(message, without));
    bool fits = proof_fits(s, proof, buf_slice(&all));
    mac(s->keys.server, buf_slice(&all), signature);
    buf_free(&all);
    if (!fits)
        return -1;
    encode64(signature, sizeof signature, text);
    buf_clear(out);
    return buf_printf(out, "v=%s", text);
}

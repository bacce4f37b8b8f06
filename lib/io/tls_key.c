/*
 * Private keys that are in another process, as an OpenSSL provider. Its keys are
 * a public key (of OpenSSL's own provider) and a number; its only operation is to
 * sign, which pauses the job that the handshake runs in (ASYNC_start_job) until
 * the answer is there. It gets what is signed as a whole, so the keeper of the
 * key can see that it belongs to a handshake.
 */
#include <openssl/async.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include "core/mem.h"
#include "io/tls_private.h"

#define PROVIDER "postern"
#define PROPERTIES "provider=" PROVIDER
#define PARAM_NUMBER "postern-key"

/* ---- keys ------------------------------------------------------------------------ */

struct elsewhere {
    EVP_PKEY *public_key;
    uint32_t number;
};

static void *key_new(void *context)
{
    (void)context;
    return xcalloc(1, sizeof(struct elsewhere));
}

static void key_free(void *data)
{
    struct elsewhere *k = data;
    if (k)
        EVP_PKEY_free(k->public_key);
    free(k);
}

static int key_has(const void *data, int selection)
{
    const struct elsewhere *k = data;
    (void)selection;
    return k && k->public_key;
}

static int key_match(const void *a, const void *b, int selection)
{
    const struct elsewhere *x = a, *y = b;
    (void)selection;
    return x->public_key && y->public_key && EVP_PKEY_eq(x->public_key, y->public_key) == 1;
}

static int import(struct elsewhere *k, const char *type, const OSSL_PARAM params[])
{
    const OSSL_PARAM *number = OSSL_PARAM_locate_const(params, PARAM_NUMBER);
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(NULL, type, "provider=default");
    int good = c && !k->public_key && (!number || OSSL_PARAM_get_uint32(number, &k->number)) &&
               EVP_PKEY_fromdata_init(c) == 1 &&
               EVP_PKEY_fromdata(c, &k->public_key, EVP_PKEY_PUBLIC_KEY,
                                 (OSSL_PARAM *)(uintptr_t)params) == 1;
    EVP_PKEY_CTX_free(c);
    return good;
}

static int ec_import(void *data, int selection, const OSSL_PARAM params[])
{
    (void)selection;
    return import(data, "EC", params);
}

static int rsa_import(void *data, int selection, const OSSL_PARAM params[])
{
    (void)selection;
    return import(data, "RSA", params);
}

static const OSSL_PARAM *ec_import_types(int selection)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_uint32(PARAM_NUMBER, NULL),
        OSSL_PARAM_END,
    };
    (void)selection;
    return types;
}

static const OSSL_PARAM *rsa_import_types(int selection)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
        OSSL_PARAM_uint32(PARAM_NUMBER, NULL),
        OSSL_PARAM_END,
    };
    (void)selection;
    return types;
}

static int key_get_params(void *data, OSSL_PARAM params[])
{
    const struct elsewhere *k = data;
    return k->public_key && EVP_PKEY_get_params(k->public_key, params);
}

static const OSSL_PARAM *key_gettable_params(void *context)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)context;
    return types;
}

/* Names that OpenSSL's own provider does not have: whoever asks for "ECDSA" gets
 * the real one. */
static const char *ec_operation(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? "POSTERN-ECDSA" : NULL;
}

static const char *rsa_operation(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? "POSTERN-RSA" : NULL;
}

/* ---- signatures --------------------------------------------------------------------- */

struct signing {
    const struct elsewhere *key;
    bool rsa, pss;
    unsigned bits; /* of the digest */
    size_t len;
    unsigned char content[TLS_SIGNED_MAX];
};

static struct tls *current;

void tls_key_current(struct tls *t)
{
    current = t;
}

static void *ec_signing(void *context, const char *properties)
{
    (void)context;
    (void)properties;
    return xcalloc(1, sizeof(struct signing));
}

static void *rsa_signing(void *context, const char *properties)
{
    struct signing *s = ec_signing(context, properties);
    s->rsa = true;
    return s;
}

static void signing_free(void *context)
{
    free(context);
}

static unsigned digest_bits(const char *name)
{
    static const struct {
        const char *name;
        unsigned bits;
    } digests[] = {{"SHA256", 256},   {"SHA2-256", 256}, {"SHA384", 384},
                   {"SHA2-384", 384}, {"SHA512", 512},   {"SHA2-512", 512}};
    for (size_t i = 0; name && i < sizeof digests / sizeof digests[0]; i++)
        if (slice_caseeq(slice_str(name), slice_str(digests[i].name)))
            return digests[i].bits;
    return 0;
}

static bool is_text(const OSSL_PARAM *p, const char *text)
{
    return p->data_type == OSSL_PARAM_UTF8_STRING && p->data && strcmp(p->data, text) == 0;
}

static int set_padding(struct signing *s, const OSSL_PARAM *p)
{
    enum { PKCS1 = 1, PSS = 6 }; /* RSA_PKCS1_PADDING, RSA_PKCS1_PSS_PADDING */
    int mode = is_text(p, OSSL_PKEY_RSA_PAD_MODE_PSS)       ? PSS
               : is_text(p, OSSL_PKEY_RSA_PAD_MODE_PKCSV15) ? PKCS1
                                                            : 0;
    if (!mode && !OSSL_PARAM_get_int(p, &mode))
        return 0;
    s->pss = mode == PSS;
    return mode == PSS || mode == PKCS1;
}

/* The salt of PSS is as long as the digest: the only one that TLS has. */
static int check_salt(const OSSL_PARAM *p)
{
    int len = 0;
    return is_text(p, OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST) ||
           (OSSL_PARAM_get_int(p, &len) && len == -1);
}

static int set_params(void *context, const OSSL_PARAM params[])
{
    struct signing *s = context;
    const OSSL_PARAM *p;
    if (!params)
        return 1;
    if ((p = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE)) && !set_padding(s, p))
        return 0;
    if ((p = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PSS_SALTLEN)) && !check_salt(p))
        return 0;
    return 1;
}

static const OSSL_PARAM *settable_params(void *context, void *provider)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)context;
    (void)provider;
    return types;
}

static int sign_init(void *context, const char *digest, void *key, const OSSL_PARAM params[])
{
    struct signing *s = context;
    s->key = key;
    s->bits = digest_bits(digest);
    s->len = 0;
    return s->key && s->bits && set_params(s, params);
}

static int sign_update(void *context, const unsigned char *data, size_t len)
{
    struct signing *s = context;
    if (len > sizeof s->content - s->len)
        return 0;
    if (len)
        memcpy(s->content + s->len, data, len);
    s->len += len;
    return 1;
}

/* SignatureScheme: RFC 8446 section 4.2.3. */
static uint16_t scheme_of(const struct signing *s)
{
    unsigned level = s->bits == 256 ? 0 : s->bits == 384 ? 1 : 2;
    if (s->rsa && s->pss)
        return (uint16_t)(0x0804 + level);
    return (uint16_t)(0x0401 + 0x100 * level + (s->rsa ? 0 : 2));
}

/* Stops the handshake, whose job is this one, until there is an answer. */
static int ask(const struct signing *s, unsigned char *out, size_t *len, size_t room)
{
    struct tls *t = current;
    if (!t || !ASYNC_get_current_job() || t->sign_state != SIGN_NONE)
        return 0;
    t->signing = (struct tls_signing){
        .key = s->key->number, .scheme = scheme_of(s), .content = slice_make(s->content, s->len)};
    t->sign_state = SIGN_WANTED;
    while (t->sign_state == SIGN_WANTED)
        if (!ASYNC_pause_job())
            return 0;
    struct slice answer = t->signature;
    t->sign_state = SIGN_NONE;
    if (answer.len == 0 || answer.len > room)
        return 0;
    memcpy(out, answer.ptr, answer.len);
    *len = answer.len;
    return 1;
}

static int sign_final(void *context, unsigned char *out, size_t *len, size_t room)
{
    const struct signing *s = context;
    if (out)
        return ask(s, out, len, room);
    *len = (size_t)EVP_PKEY_get_size(s->key->public_key);
    return 1;
}

/* In one call, as TLS does it. */
static int sign(void *context, unsigned char *out, size_t *len, size_t room,
                const unsigned char *content, size_t content_len)
{
    if (out && !sign_update(context, content, content_len))
        return 0;
    return sign_final(context, out, len, room);
}

/* ---- the provider --------------------------------------------------------------------- */

#define DISPATCH(number, function)                                                                 \
    {                                                                                              \
        number, (void (*)(void))function                                                           \
    }
#define KEY_COMMON                                                                                 \
    DISPATCH(OSSL_FUNC_KEYMGMT_NEW, key_new), DISPATCH(OSSL_FUNC_KEYMGMT_FREE, key_free),          \
        DISPATCH(OSSL_FUNC_KEYMGMT_HAS, key_has), DISPATCH(OSSL_FUNC_KEYMGMT_MATCH, key_match),    \
        DISPATCH(OSSL_FUNC_KEYMGMT_GET_PARAMS, key_get_params),                                    \
        DISPATCH(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, key_gettable_params)
#define SIGNATURE_COMMON                                                                           \
    DISPATCH(OSSL_FUNC_SIGNATURE_FREECTX, signing_free),                                           \
        DISPATCH(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, sign_init),                                 \
        DISPATCH(OSSL_FUNC_SIGNATURE_DIGEST_SIGN, sign),                                           \
        DISPATCH(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, sign_update),                             \
        DISPATCH(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, sign_final),                               \
        DISPATCH(OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, set_params),                                  \
        DISPATCH(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, settable_params)

static const OSSL_DISPATCH ec_keys[] = {
    KEY_COMMON,
    DISPATCH(OSSL_FUNC_KEYMGMT_IMPORT, ec_import),
    DISPATCH(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, ec_import_types),
    DISPATCH(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, ec_operation),
    {0, NULL}};
static const OSSL_DISPATCH rsa_keys[] = {
    KEY_COMMON,
    DISPATCH(OSSL_FUNC_KEYMGMT_IMPORT, rsa_import),
    DISPATCH(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, rsa_import_types),
    DISPATCH(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, rsa_operation),
    {0, NULL}};
static const OSSL_DISPATCH ec_signatures[] = {
    SIGNATURE_COMMON, DISPATCH(OSSL_FUNC_SIGNATURE_NEWCTX, ec_signing), {0, NULL}};
static const OSSL_DISPATCH rsa_signatures[] = {
    SIGNATURE_COMMON, DISPATCH(OSSL_FUNC_SIGNATURE_NEWCTX, rsa_signing), {0, NULL}};

static const OSSL_ALGORITHM keys[] = {
    {"EC:id-ecPublicKey:1.2.840.10045.2.1", PROPERTIES, ec_keys, ""},
    {"RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTIES, rsa_keys, ""},
    {NULL, NULL, NULL, NULL}};
static const OSSL_ALGORITHM signatures[] = {{"POSTERN-ECDSA", PROPERTIES, ec_signatures, ""},
                                            {"POSTERN-RSA", PROPERTIES, rsa_signatures, ""},
                                            {NULL, NULL, NULL, NULL}};

static const OSSL_ALGORITHM *query(void *context, int operation, int *no_cache)
{
    (void)context;
    *no_cache = 0;
    return operation == OSSL_OP_KEYMGMT ? keys : operation == OSSL_OP_SIGNATURE ? signatures : NULL;
}

static int provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
                         const OSSL_DISPATCH **out, void **context)
{
    static const OSSL_DISPATCH functions[] = {DISPATCH(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query),
                                              {0, NULL}};
    (void)in;
    *out = functions;
    *context = (void *)(uintptr_t)handle;
    return 1;
}

void tls_library(void)
{
    static OSSL_PROVIDER *standard, *ours; /* for the life of the process */
    if (ours)
        return;
    /* what openssl.cnf says is for other programs; in a jail it cannot be read */
    if (!OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) ||
        !OSSL_PROVIDER_add_builtin(NULL, PROVIDER, provider_init) ||
        !(standard = OSSL_PROVIDER_load(NULL, "default")) ||
        !(ours = OSSL_PROVIDER_load(NULL, PROVIDER)) ||
        !EVP_set_default_properties(NULL, "?provider=default"))
        panic("OpenSSL cannot be set up");
}

EVP_PKEY *tls_key_elsewhere(const EVP_PKEY *public_key, uint32_t number)
{
    const char *type = EVP_PKEY_is_a(public_key, "EC")    ? "EC"
                       : EVP_PKEY_is_a(public_key, "RSA") ? "RSA"
                                                          : NULL;
    OSSL_PARAM own[] = {OSSL_PARAM_uint32(PARAM_NUMBER, &number), OSSL_PARAM_END};
    OSSL_PARAM *public_params = NULL, *all = NULL;
    EVP_PKEY *result = NULL;
    EVP_PKEY_CTX *c = type ? EVP_PKEY_CTX_new_from_name(NULL, type, PROPERTIES) : NULL;
    if (c && EVP_PKEY_todata(public_key, EVP_PKEY_PUBLIC_KEY, &public_params) == 1)
        all = OSSL_PARAM_merge(public_params, own);
    if (all && EVP_PKEY_fromdata_init(c) == 1)
        EVP_PKEY_fromdata(c, &result, EVP_PKEY_KEYPAIR, all);
    OSSL_PARAM_free(all == own ? NULL : all);
    OSSL_PARAM_free(public_params);
    EVP_PKEY_CTX_free(c);
    return result;
}

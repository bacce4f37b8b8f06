#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "core/mem.h"
#include "io/tls_private.h"

enum { CHAIN_CERTIFICATES_MAX = 16, NAMES_MAX = 100000 };

/* ---- making one -------------------------------------------------------------------- */

/* Any certificate of a client is taken: what it is worth is asked of tls_peer. Verification goes
 * on, and the last problem is what it ends with; that a chain is too long (B71) is the cause of
 * those behind it, and stays. */
static int on_verify(int good, X509_STORE_CTX *store)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls *t = tls_of(ssl);
    int too_long = X509_V_ERR_CERT_CHAIN_TOO_LONG;
    if (good || SSL_get_verify_mode(ssl) & SSL_VERIFY_FAIL_IF_NO_PEER_CERT)
        return good;
    t->chain_too_long |= X509_STORE_CTX_get_error(store) == too_long;
    if (t->chain_too_long)
        X509_STORE_CTX_set_error(store, too_long);
    return 1;
}

static void set_server(struct tls_context *c, SSL_CTX *native)
{
    const struct tls_settings *s = &c->settings;
    int mode = SSL_VERIFY_NONE;
    if (s->ask_certificate || s->require_certificate)
        mode = SSL_VERIFY_PEER | SSL_VERIFY_CLIENT_ONCE |
               (s->require_certificate ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);
    SSL_CTX_set_verify(native, mode, on_verify);
    SSL_CTX_set_options(native, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                                    SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(native, 0);
    SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(native, c->session_context, (unsigned)s->session_context.len);
    SSL_CTX_set_timeout(native, s->session_seconds);
    tls_tickets_install(c, native);
}

static int set_lists(SSL_CTX *native, const struct tls_settings *s, struct err *e)
{
    const char *ciphers = s->ciphers ? s->ciphers : "HIGH:!aNULL:!eNULL:!PSK:!SRP";
    if (SSL_CTX_set_cipher_list(native, ciphers) != 1)
        return tls_library_error(e, "no such ciphers");
    if (s->groups && *s->groups && SSL_CTX_set1_groups_list(native, s->groups) != 1)
        return tls_library_error(e, "no such key exchange groups");
    int least = s->min_version ? s->min_version : TLS1_2_VERSION;
    if (least < TLS1_2_VERSION || SSL_CTX_set_min_proto_version(native, least) != 1 ||
        SSL_CTX_set_max_proto_version(native, s->max_version) != 1)
        return err_set(e, "no such protocol versions");
    return 0;
}

/* What all identities of a context have in common. */
static SSL_CTX *make_native(struct tls_context *c, struct err *e)
{
    SSL_CTX *native = SSL_CTX_new(c->settings.server ? TLS_server_method() : TLS_client_method());
    if (!native) {
        tls_library_error(e, "cannot make a TLS context");
        return NULL;
    }
    SSL_CTX_set_security_level(native, c->settings.security_level);
    if (set_lists(native, &c->settings, e) < 0) {
        SSL_CTX_free(native);
        return NULL;
    }
    SSL_CTX_set_options(native, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    /* a connection that is idle has no buffers */
    SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                 SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_max_cert_list(native, TLS_PEER_CERTIFICATES);
    SSL_CTX_set_verify_depth(native, TLS_DEPTH_MAX);
    if (c->settings.server)
        set_server(c, native);
    return native;
}

/* ---- authorities ------------------------------------------------------------------- */

static int add_authorities(struct tls_context *c, struct slice pem, struct err *e)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    X509_STORE *store = SSL_CTX_get_cert_store(c->native);
    X509 *x;
    size_t count = 0;
    while (bio && (x = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL))) {
        X509_STORE_add_cert(store, x); /* one that is there already does no harm */
        if (c->settings.server)
            SSL_CTX_add_client_CA(c->native, x);
        X509_free(x);
        count++;
    }
    bool good = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    BIO_free(bio);
    if (count && good) {
        ERR_clear_error();
        return 0;
    }
    return count ? tls_library_error(e, "a damaged certificate")
                 : err_set(e, "holds no certificate (-----BEGIN CERTIFICATE-----)");
}

static struct slice identity_key(const void *value)
{
    return slice_str(((const struct tls_identity *)value)->name);
}

/* ---- server names (RFC 6066 section 3) ----------------------------------------------- */

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
}

/* The identity of a name, or of the nearest domain that it is below, or NULL. */
static const struct tls_identity *find_name(const struct tls_context *c, struct slice name)
{
    char low[TLS_NAME_MAX + 1];
    if (name.len == 0 || name.len > TLS_NAME_MAX)
        return NULL;
    for (size_t i = 0; i < name.len; i++)
        low[i] = lower(name.ptr[i]);
    name.ptr = low;
    const struct tls_identity *found = map_get(&c->names, name);
    while (!found && slice_chr(name, '.') < name.len) {
        name = slice_from(name, slice_chr(name, '.'));
        found = map_get(&c->names, name);
        name = slice_from(name, 1);
    }
    return found;
}

static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    const struct tls_context *c = arg;
    (void)alert;
    const struct tls_identity *found =
        find_name(c, slice_str(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name)));
    if (found)
        SSL_set_SSL_CTX(ssl, found->native);
    return SSL_TLSEXT_ERR_OK; /* a name that nobody has gets the default certificate */
}

/* The host name in a client's extension (RFC 6066 section 3), as it stands there; empty if there
 * is none, or it is malformed, which OpenSSL will say. */
static struct slice asked_name(SSL *ssl)
{
    const unsigned char *p;
    size_t len;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &len) != 1 || len < 5 ||
        p[2] != TLSEXT_NAMETYPE_host_name)
        return SLICE("");
    struct slice name = slice_make(p + 5, len - 5);
    size_t said = (size_t)p[3] << 8 | p[4];
    return said == name.len && said <= TLS_NAME_MAX ? name : SLICE("");
}

/* A session is resumed under the name that it was made for only (RFC 6066 section 3): the name
 * is part of what OpenSSL compares of sessions. Here, because a ticket of TLS 1.2 is looked at
 * before the callback of names is called. With TLS 1.3, which leaves it to the server, the same:
 * another name may have another certificate, which the client of a resumed session never sees. */
static int on_client_hello(SSL *ssl, int *alert, void *arg)
{
    const struct tls_context *c = arg;
    char what[1 + sizeof c->session_context + TLS_NAME_MAX];
    unsigned char digest[EVP_MAX_MD_SIZE];
    struct slice name = asked_name(ssl);
    size_t len = 0, known = c->settings.session_context.len;
    what[0] = (char)known;
    memcpy(what + 1, c->session_context, known);
    for (size_t i = 0; i < name.len; i++)
        what[1 + known + i] = lower(name.ptr[i]);
    if (EVP_Q_digest(NULL, "SHA256", NULL, what, 1 + known + name.len, digest, &len) == 1 &&
        SSL_set_session_id_context(ssl, digest, (unsigned)len) == 1)
        return SSL_CLIENT_HELLO_SUCCESS;
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_CLIENT_HELLO_ERROR;
}

struct tls_context *tls_context_new(const struct tls_settings *settings, struct err *e)
{
    struct tls_context *c = xcalloc(1, sizeof *c);
    tls_library();
    c->references = 1;
    c->settings = *settings;
    map_init(&c->names, identity_key);
    if (settings->session_context.len > sizeof c->session_context)
        panic("a session context of %zu bytes", settings->session_context.len);
    if (settings->session_context.len)
        memcpy(c->session_context, settings->session_context.ptr, settings->session_context.len);
    c->settings.ciphers = c->ciphers = settings->ciphers ? xstrdup(settings->ciphers) : NULL;
    c->settings.groups = c->groups = settings->groups ? xstrdup(settings->groups) : NULL;
    c->native = make_native(c, e);
    if (!c->native ||
        (settings->authorities.len && add_authorities(c, settings->authorities, e) < 0)) {
        tls_context_free(c);
        return NULL;
    }
    c->settings.authorities = SLICE(""); /* the caller's */
    if (settings->server) {
        SSL_CTX_set_tlsext_servername_callback(c->native, on_server_name);
        SSL_CTX_set_tlsext_servername_arg(c->native, c);
        SSL_CTX_set_client_hello_cb(c->native, on_client_hello, c);
    }
    return c;
}

struct tls_context *tls_context_use(struct tls_context *c)
{
    c->references++;
    return c;
}

static void identity_free(void *value)
{
    struct tls_identity *i = value;
    SSL_CTX_free(i->native);
    free(i->name);
    free(i);
}

void tls_context_free(struct tls_context *c)
{
    if (!c || --c->references)
        return;
    map_clear(&c->names, identity_free);
    map_free(&c->names);
    SSL_CTX_free(c->native);
    OPENSSL_cleanse(c->tickets, sizeof c->tickets);
    free(c->ciphers);
    free(c->groups);
    free(c);
}

SSL_CTX *tls_context_native(struct tls_context *c)
{
    return c->native;
}

/* ---- certificates -------------------------------------------------------------------- */

/* The certificates of a PEM text; NULL on an error. */
static STACK_OF(X509) * read_chain(struct slice pem, struct err *e)
{
    STACK_OF(X509) *chain = sk_X509_new_null();
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    X509 *x;
    while (bio && chain && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
        sk_X509_push(chain, x);
    bool good = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    int count = sk_X509_num(chain);
    BIO_free(bio);
    if (count < 1)
        err_set(e, "holds no certificate (-----BEGIN CERTIFICATE-----)");
    else if (!good)
        tls_library_error(e, "a damaged certificate");
    else if (count > CHAIN_CERTIFICATES_MAX)
        err_set(e, "holds more than %d certificates", CHAIN_CERTIFICATES_MAX);
    else {
        ERR_clear_error();
        return chain;
    }
    ERR_clear_error();
    sk_X509_pop_free(chain, X509_free);
    return NULL;
}

static int no_passphrase(char *out, int size, int writing, void *arg)
{
    (void)out;
    (void)size;
    (void)writing;
    *(bool *)arg = true;
    return -1;
}

static EVP_PKEY *read_key(const struct tls_key *key, X509 *certificate, struct err *e)
{
    bool encrypted = false;
    EVP_PKEY *result = NULL;
    if (key->pem.len == 0) {
        result = tls_key_elsewhere(X509_get0_pubkey(certificate), key->number);
        if (!result)
            err_set(e, "the certificate's key is neither RSA nor ECDSA");
        ERR_clear_error();
        return result;
    }
    BIO *bio = BIO_new_mem_buf(key->pem.ptr, (int)key->pem.len);
    if (bio)
        result = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &encrypted);
    BIO_free(bio);
    if (!result && encrypted)
        err_set(e, "the private key has a passphrase: store it without one");
    else if (!result)
        err_set(e, "holds no private key (-----BEGIN PRIVATE KEY-----)");
    else if (X509_check_private_key(certificate, result) != 1)
        err_set(e, "the private key is not that of the certificate");
    else
        return result;
    ERR_clear_error();
    EVP_PKEY_free(result);
    return NULL;
}

static int use(SSL_CTX *native, STACK_OF(X509) * chain, EVP_PKEY *key, struct err *e)
{
    if (SSL_CTX_use_certificate(native, sk_X509_value(chain, 0)) != 1)
        return tls_library_error(e, "the certificate cannot be used");
    if (SSL_CTX_use_PrivateKey(native, key) != 1)
        return tls_library_error(e, "the private key cannot be used");
    SSL_CTX_clear_chain_certs(native);
    for (int i = 1; i < sk_X509_num(chain); i++)
        if (SSL_CTX_add1_chain_cert(native, sk_X509_value(chain, i)) != 1)
            return tls_library_error(e, "a certificate of the chain cannot be used");
    return 0;
}

/* The context of a name, made if need be. */
static SSL_CTX *native_of(struct tls_context *c, struct slice name, struct err *e)
{
    if (name.len == 0)
        return c->native;
    struct tls_identity *i = map_get(&c->names, name);
    if (i)
        return i->native;
    if (name.len > TLS_NAME_MAX || c->names.count >= NAMES_MAX) {
        err_set(e, "too long, or more than %d names", NAMES_MAX);
        return NULL;
    }
    SSL_CTX *native = make_native(c, e);
    if (!native)
        return NULL;
    SSL_CTX_set1_cert_store(native, SSL_CTX_get_cert_store(c->native));
    i = xcalloc(1, sizeof *i);
    i->native = native;
    i->name = slice_dup(name);
    for (char *p = i->name; *p; p++)
        *p = lower(*p);
    map_put(&c->names, i);
    return native;
}

int tls_context_add(struct tls_context *c, struct slice name, struct slice chain,
                    const struct tls_key *key, struct err *e)
{
    int rc = -1;
    EVP_PKEY *private_key = NULL;
    ERR_clear_error();
    STACK_OF(X509) *certificates = read_chain(chain, e);
    if (!certificates)
        return -1;
    private_key = read_key(key, sk_X509_value(certificates, 0), e);
    SSL_CTX *native = private_key ? native_of(c, name, e) : NULL;
    if (native)
        rc = use(native, certificates, private_key, e);
    EVP_PKEY_free(private_key);
    sk_X509_pop_free(certificates, X509_free);
    return rc;
}

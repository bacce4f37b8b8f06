/* What is known of a connection and of the peer's certificate, for logs. */
#include <openssl/x509.h>

#include "io/tls_private.h"

/* ---- the connection --------------------------------------------------------------------- */

static const char *group_name(SSL *ssl)
{
    static const struct {
        int id;
        const char *name;
    } groups[] = {
        {NID_X9_62_prime256v1, "ECDHE (P-256)"},
        {NID_secp384r1, "ECDHE (P-384)"},
        {NID_secp521r1, "ECDHE (P-521)"},
        {NID_X25519, "X25519"},
        {NID_X448, "X448"},
    };
    long id = SSL_get_negotiated_group(ssl);
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
        if (groups[i].id == id)
            return groups[i].name;
    return "";
}

static const char *digest_name(int id)
{
    return id == NID_sha256   ? "SHA256"
           : id == NID_sha384 ? "SHA384"
           : id == NID_sha512 ? "SHA512"
           : id == NID_sha1   ? "SHA1"
                              : "";
}

static void signature_of(const struct tls *t, struct tls_facts *f)
{
    int type = 0, digest = 0;
    bool server = t->context->settings.server;
    X509 *x = server ? SSL_get_certificate(t->ssl) : SSL_get0_peer_certificate(t->ssl);
    bool known =
        server ? SSL_get_signature_type_nid(t->ssl, &type) && SSL_get_signature_nid(t->ssl, &digest)
               : SSL_get_peer_signature_type_nid(t->ssl, &type) &&
                     SSL_get_peer_signature_nid(t->ssl, &digest);
    if (!known || !x)
        return;
    f->signature = type == EVP_PKEY_EC        ? "ECDSA"
                   : type == EVP_PKEY_RSA_PSS ? "RSA-PSS"
                   : type == EVP_PKEY_RSA     ? "RSA"
                                              : "";
    f->signature_digest = digest_name(digest);
    f->signature_bits = EVP_PKEY_get_bits(X509_get0_pubkey(x));
}

void tls_facts(const struct tls *t, struct tls_facts *out)
{
    const SSL_CIPHER *cipher = SSL_get_current_cipher(t->ssl);
    *out = (struct tls_facts){.protocol = SSL_get_version(t->ssl),
                              .cipher = cipher ? SSL_CIPHER_get_name(cipher) : "",
                              .key_exchange = "",
                              .signature = "",
                              .signature_digest = "",
                              .resumed = SSL_session_reused(t->ssl)};
    if (cipher)
        out->bits = SSL_CIPHER_get_bits(cipher, &out->algorithm_bits);
    out->key_exchange = group_name(t->ssl);
    if (!out->resumed)
        signature_of(t, out);
}

void tls_describe(const struct tls_facts *f, struct buf *out)
{
    buf_printf(out, "%s with cipher %s (%d/%d bits)", f->protocol, f->cipher, f->bits,
               f->algorithm_bits);
}

void tls_describe_more(const struct tls_facts *f, struct buf *out)
{
    if (*f->key_exchange)
        buf_printf(out, " key-exchange %s", f->key_exchange);
    if (!*f->signature)
        return;
    buf_printf(out, " server-signature %s (%d bits)", f->signature, f->signature_bits);
    if (*f->signature_digest)
        buf_printf(out, " server-digest %s", f->signature_digest);
}

/* ---- the peer ------------------------------------------------------------------------------ */

/* The last common name, as UTF-8; a NUL in it is an attempt to deceive. */
static void common_name(const X509_NAME *name, char out[TLS_NAME_MAX + 1])
{
    unsigned char *text = NULL;
    int at = -1, last = -1;
    out[0] = '\0';
    while ((at = X509_NAME_get_index_by_NID(name, NID_commonName, at)) >= 0)
        last = at;
    if (last < 0)
        return;
    int len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, last)));
    if (len > 0 && len <= TLS_NAME_MAX && !memchr(text, '\0', (size_t)len)) {
        memcpy(out, text, (size_t)len);
        out[len] = '\0';
    }
    if (len >= 0)
        OPENSSL_free(text);
}

static void to_hex(const unsigned char *bytes, unsigned len, char out[3 * 32])
{
    static const char digits[] = "0123456789ABCDEF";
    char *p = out;
    for (unsigned i = 0; i < len && i < 32; i++) {
        *p++ = digits[bytes[i] >> 4];
        *p++ = digits[bytes[i] & 15];
        *p++ = ':';
    }
    if (p > out)
        p--;
    *p = '\0';
}

static void key_fingerprint(const X509 *x, char out[3 * 32])
{
    unsigned char bytes[EVP_MAX_MD_SIZE], *der = NULL;
    unsigned len = 0;
    int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der);
    if (size > 0 && EVP_Digest(der, (size_t)size, bytes, &len, EVP_sha256(), NULL) == 1)
        to_hex(bytes, len, out);
    OPENSSL_free(der);
}

void tls_peer(const struct tls *t, struct tls_peer *out)
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    const X509 *x = SSL_get0_peer_certificate(t->ssl);
    *out = (struct tls_peer){.problem = ""};
    if (!x)
        return;
    long result = SSL_get_verify_result(t->ssl);
    out->present = true;
    out->verified = result == X509_V_OK;
    if (!out->verified)
        out->problem = X509_verify_cert_error_string(result);
    common_name(X509_get_subject_name(x), out->subject);
    common_name(X509_get_issuer_name(x), out->issuer);
    if (X509_digest(x, EVP_sha256(), bytes, &len) == 1)
        to_hex(bytes, len, out->fingerprint);
    key_fingerprint(x, out->key_fingerprint);
}

/* ---- channel binding -------------------------------------------------------------------- */

bool tls_exporter(const struct tls *t, unsigned char out[static TLS_EXPORTER_BYTES])
{
    static const char label[] = "EXPORTER-Channel-Binding";
    return SSL_version(t->ssl) == TLS1_3_VERSION && SSL_is_init_finished(t->ssl) &&
           SSL_export_keying_material(t->ssl, out, TLS_EXPORTER_BYTES, label, sizeof label - 1,
                                      (const unsigned char *)"", 0, 1) == 1;
}

size_t tls_endpoint(const struct tls *t, unsigned char out[static TLS_ENDPOINT_MAX])
{
    int digest = NID_undef;
    unsigned len = 0;
    X509 *own = SSL_get_certificate(t->ssl);
    if (!own || SSL_session_reused(t->ssl) ||
        X509_get_signature_info(own, &digest, NULL, NULL, NULL) != 1)
        return 0;
    if (digest == NID_md5 || digest == NID_sha1)
        digest = NID_sha256;
    const EVP_MD *md = digest == NID_undef ? NULL : EVP_get_digestbynid(digest);
    return md && EVP_MD_get_size(md) <= TLS_ENDPOINT_MAX && X509_digest(own, md, out, &len) == 1
               ? len
               : 0;
}

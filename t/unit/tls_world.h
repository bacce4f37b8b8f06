/* Keys and certificates made on the spot, and a client and a server back to back. */
#ifndef POSTERN_TLS_WORLD_H
#define POSTERN_TLS_WORLD_H

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include "core/mem.h"
#include "io/tls.h"

struct made {
    EVP_PKEY *key;
    X509 *certificate;
    char *key_pem, *certificate_pem;
};

static inline char *bio_text(BIO *bio)
{
    char *data;
    long len = BIO_get_mem_data(bio, &data);
    char *text = slice_dup(slice_make(data, (size_t)len));
    BIO_free(bio);
    return text;
}

/* A certificate for `name`, signed by `by`, or by itself. bits 0: ECDSA P-256. */
static inline struct made make_certificate(const char *name, int bits, const struct made *by)
{
    struct made m = {NULL, X509_new(), NULL, NULL};
    static long serial;
    m.key = bits ? EVP_RSA_gen((unsigned)bits) : EVP_EC_gen("P-256");
    X509_set_version(m.certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(m.certificate), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(m.certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(m.certificate), 86400);
    X509_set_pubkey(m.certificate, m.key);
    X509_NAME *subject = X509_get_subject_name(m.certificate);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1,
                               0);
    X509_set_issuer_name(m.certificate, by ? X509_get_subject_name(by->certificate) : subject);
    X509_EXTENSION *basic = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "CA:TRUE");
    X509_add_ext(m.certificate, basic, -1);
    X509_EXTENSION_free(basic);
    if (!X509_sign(m.certificate, by ? by->key : m.key, EVP_sha256()))
        panic("cannot make a certificate");
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, m.key, NULL, NULL, 0, NULL, NULL);
    m.key_pem = bio_text(bio);
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, m.certificate);
    m.certificate_pem = bio_text(bio);
    return m;
}

static inline void made_free(struct made *m)
{
    EVP_PKEY_free(m->key);
    X509_free(m->certificate);
    free(m->key_pem);
    free(m->certificate_pem);
}

/* Answers a signature that the connection waits for, as the keeper of the key does. */
static inline void sign_with(struct tls *t, EVP_PKEY *key)
{
    struct tls_signing s = tls_wanted_signature(t);
    unsigned char out[TLS_SIGNATURE_MAX];
    size_t len = sizeof out;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    EVP_PKEY_CTX *options = NULL;
    unsigned hash = s.scheme >> 8 == 8 ? s.scheme & 7u : s.scheme >> 8;
    const char *digest = hash == 4 ? "SHA256" : hash == 5 ? "SHA384" : "SHA512";
    if (EVP_DigestSignInit_ex(c, &options, digest, NULL, NULL, key, NULL) != 1)
        panic("cannot sign");
    if (s.scheme >> 8 == 8) {
        EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING);
        EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST);
    }
    if (EVP_DigestSign(c, out, &len, (const unsigned char *)s.content.ptr, s.content.len) != 1)
        panic("cannot sign");
    EVP_MD_CTX_free(c);
    tls_signed(t, slice_make(out, len));
}

/* A client and a server, and the way between them. */
struct pair {
    struct tls *client, *server;
    EVP_PKEY *key; /* of the server, if it is elsewhere */
    size_t split;  /* bytes that are carried at a time; 0: all */
    unsigned signatures;
    enum tls_status client_status, server_status;
};

/* One step of one side; true if anything changed. */
static inline bool pair_step(struct pair *p, struct tls *to, struct tls *from,
                             enum tls_status *status)
{
    struct slice out = tls_output(from), in;
    size_t n = p->split && p->split < out.len ? p->split : out.len;
    char *copy = slice_dup(slice_first(out, n));
    in = slice_make(copy, n);
    tls_sent(from, n);
    enum tls_status before = *status;
    size_t had = tls_output(to).len;
    *status = tls_handshake(to, &in);
    if (*status == TLS_SIGN && p->key) {
        p->signatures++;
        sign_with(to, p->key);
        *status = tls_handshake(to, &in);
    }
    if (*status == TLS_OK && in.len) { /* tickets, mostly */
        char plain[64];
        size_t got;
        *status =
            tls_decrypt(to, &in, plain, sizeof plain, &got) == TLS_BROKEN ? TLS_BROKEN : TLS_OK;
    }
    free(copy);
    return n || *status != before || tls_output(to).len != had;
}

/* Until nothing moves any more. */
static inline void pair_run(struct pair *p)
{
    bool moved = true;
    for (unsigned i = 0; moved && i < 100000; i++) {
        moved = pair_step(p, p->client, p->server, &p->client_status);
        moved |= pair_step(p, p->server, p->client, &p->server_status);
    }
}

static inline void pair_free(struct pair *p)
{
    tls_free(p->client);
    tls_free(p->server);
}

#endif

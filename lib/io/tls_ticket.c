/* Session tickets (RFC 5077 section 4, RFC 8446 section 4.6.1): what they say is
 * encrypted with keys that all processes of a listener share, so that any of them
 * can resume any session. */
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "io/tls_private.h"

static const struct tls_ticket_key *find(const struct tls_context *c, const unsigned char *name)
{
    for (size_t i = 0; i < c->ticket_count; i++)
        if (memcmp(c->tickets[i].name, name, sizeof c->tickets[i].name) == 0)
            return &c->tickets[i];
    return NULL;
}

static int set_mac(EVP_MAC_CTX *mac, const struct tls_ticket_key *k)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)k->mac, sizeof k->mac),
        OSSL_PARAM_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, sizeof digest - 1),
        OSSL_PARAM_END,
    };
    return EVP_MAC_CTX_set_params(mac, params);
}

/* 1: done, 2: understood, but give a new one, 0: not known, -1: error. */
static int on_ticket(SSL *ssl, unsigned char name[16], unsigned char iv[EVP_MAX_IV_LENGTH],
                     EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int making)
{
    const struct tls_context *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    const EVP_CIPHER *aes = EVP_aes_256_cbc();
    if (c->ticket_count == 0)
        return 0;
    if (making) {
        const struct tls_ticket_key *k = &c->tickets[0];
        memcpy(name, k->name, sizeof k->name);
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(aes)) != 1 ||
            EVP_EncryptInit_ex2(cipher, aes, k->cipher, iv, NULL) != 1 || !set_mac(mac, k))
            return -1;
        return 1;
    }
    const struct tls_ticket_key *k = find(c, name);
    if (!k)
        return 0;
    if (EVP_DecryptInit_ex2(cipher, aes, k->cipher, iv, NULL) != 1 || !set_mac(mac, k))
        return -1;
    return k == &c->tickets[0] ? 1 : 2;
}

void tls_tickets_install(struct tls_context *c, SSL_CTX *native)
{
    SSL_CTX_set_app_data(native, c);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(native, on_ticket);
}

void tls_context_tickets(struct tls_context *c, const struct tls_ticket_key *list, size_t count)
{
    c->ticket_count = count < TLS_TICKET_KEYS ? count : TLS_TICKET_KEYS;
    OPENSSL_cleanse(c->tickets, sizeof c->tickets);
    if (c->ticket_count)
        memcpy(c->tickets, list, c->ticket_count * sizeof *list);
    bool give = c->ticket_count && c->settings.session_seconds > 0;
    SSL_CTX_set_num_tickets(c->native, give ? 1 : 0); /* of TLS 1.3 */
    if (give)
        SSL_CTX_clear_options(c->native, SSL_OP_NO_TICKET);
    else
        SSL_CTX_set_options(c->native, SSL_OP_NO_TICKET);
}

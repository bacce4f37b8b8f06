#include "relay/verify.h"

#include <openssl/x509v3.h>

#include "conf/nets.h"
#include "core/mem.h"
#include "relay/session.h"
#include "tls/policy.h"

static bool name_matches(X509 *certificate, const struct session *s, struct slice name,
                         unsigned flags)
{
    unsigned char raw[16];
    if (slice_eq(name, SLICE("hostname")))
        name = slice_str(s->host);
    int len = network_address(name, raw);
    if (len > 0)
        return X509_check_ip(certificate, raw, (size_t)len, 0) == 1;
    return tls_is_host_name(name.len && name.ptr[0] == '.' ? slice_from(name, 1) : name) &&
           X509_check_host(certificate, name.ptr, name.len, flags, NULL) == 1;
}

/* RFC 8461 section 4.1 looks at the DNS names of the certificate alone. */
static bool any_name_matches(X509 *certificate, const struct session *s,
                             const struct tls_need *need)
{
    unsigned flags = X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS;
    struct slice list = need->names, name;
    if (need->origin == TLS_ORIGIN_STS)
        flags |= X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;
    while (tls_match_next(&list, &name))
        if (name_matches(certificate, s, name, flags))
            return true;
    return false;
}

static enum tls_result result_of(long problem)
{
    switch (problem) {
    case X509_V_OK:
        return TLS_RESULT_SUCCESS;
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return TLS_RESULT_EXPIRED;
    case X509_V_ERR_HOSTNAME_MISMATCH:
        return TLS_RESULT_HOST_MISMATCH;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_UNTRUSTED:
        return TLS_RESULT_NOT_TRUSTED;
    default:
        return TLS_RESULT_VALIDATION;
    }
}

/* A session that is resumed was checked when it was made, for the same rules. */
static void resumed(const struct session *s, const struct tls_need *need, struct verification *out)
{
    bool named = need->level == TLS_LEVEL_VERIFY || need->level == TLS_LEVEL_SECURE ||
                 need->tlsa.len > 0 || need->testing;
    out->peer = s->tls.known;
    if (named && out->peer != TLS_PEER_VERIFIED) {
        out->result = TLS_RESULT_VALIDATION;
        out->why = "its certificate was not verified when the TLS session began";
    }
}

void verify_server(struct session *s, const struct tls_need *need, struct verification *out)
{
    SSL *ssl = tls_native(s->wire.tls);
    *out = (struct verification){.peer = TLS_PEER_UNTRUSTED, .why = ""};
    if (SSL_session_reused(ssl)) {
        resumed(s, need, out);
        return;
    }
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    long problem = SSL_get_verify_result(ssl);
    if (!certificate) {
        out->result = TLS_RESULT_NOT_TRUSTED;
        out->why = "it has no certificate";
        return;
    }
    out->result = result_of(problem);
    if (problem != X509_V_OK) {
        out->why = X509_verify_cert_error_string(problem);
        return;
    }
    out->peer = TLS_PEER_TRUSTED;
    if (need->tlsa.len > 0 || any_name_matches(certificate, s, need)) {
        out->peer = TLS_PEER_VERIFIED;
        return;
    }
    out->result = TLS_RESULT_HOST_MISMATCH;
    out->why = "its certificate is for other names";
}

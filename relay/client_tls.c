#include "relay/client_tls.h"

#include <openssl/x509v3.h>

#include "conf/nets.h"
#include "core/log.h"
#include "core/mem.h"
#include "relay/session.h"
#include "tls/policy.h"
#include "tls/tlsa.h"

/* ---- contexts --------------------------------------------------------------- */

void client_tls_authorities(struct client_tls *c, struct buf *pem)
{
    buf_free(&c->authorities);
    c->authorities = *pem;
    buf_init(pem, 0);
    c->complained = false;
    for (size_t i = 0; i < TLS_CONTEXTS; i++) {
        tls_context_free(c->contexts[i]);
        c->contexts[i] = NULL;
    }
    tls_sessions_clear(c);
}

static const char *cipher_list(enum tls_cipher_grade grade)
{
    return grade == TLS_CIPHERS_HIGH ? "HIGH:!aNULL:!eNULL:!PSK:!SRP:!kRSA:!SHA1"
                                     : "HIGH:MEDIUM:!aNULL:!eNULL:!PSK:!SRP:!RC4:!3DES:!IDEA:!SEED";
}

static struct tls_context *make_context(struct client_tls *c, const struct tls_protocols *versions,
                                        enum tls_cipher_grade grade, struct err *e)
{
    static const int numbers[] = {
        [TLS_VERSION_1_2] = TLS1_2_VERSION, [TLS_VERSION_1_3] = TLS1_3_VERSION};
    struct tls_settings settings = {.min_version = numbers[versions->lowest],
                                    .max_version = numbers[versions->highest],
                                    .ciphers = cipher_list(grade),
                                    .security_level = 1,
                                    .authorities = buf_slice(&c->authorities)};
    struct tls_context *made = tls_context_new(&settings, e);
    if (!made && settings.authorities.len > 0) {
        /* opportunistic TLS goes on without; what must be verified will fail and say why */
        if (!c->complained)
            log_error("smtp_tls_CAfile: %s; no certificate can be verified until it is corrected",
                      e->text);
        c->complained = true;
        settings.authorities = SLICE("");
        made = tls_context_new(&settings, e);
    }
    if (!made)
        return NULL;
    tls_sessions_install(tls_context_native(made));
    if (SSL_CTX_dane_enable(tls_context_native(made)) <= 0)
        panic("OpenSSL without DANE");
    return made;
}

static struct tls_context *context_of(struct client_tls *c, const struct config *config,
                                      const struct tls_need *need, struct err *e)
{
    bool may = need->level == TLS_LEVEL_MAY;
    struct tls_protocols versions;
    struct slice protocols = need->protocols, ciphers = need->ciphers;
    if (protocols.len == 0)
        protocols =
            slice_str(may ? config->smtp_tls_protocols : config->smtp_tls_mandatory_protocols);
    if (ciphers.len == 0)
        ciphers = slice_str(may ? config->smtp_tls_ciphers : config->smtp_tls_mandatory_ciphers);
    int grade = tls_cipher_grade(ciphers, e);
    if (grade < 0 || tls_protocols_parse(protocols, &versions, e) < 0)
        return NULL;
    size_t index = (size_t)versions.lowest * (TLS_VERSION_1_3 + 1) + (size_t)versions.highest;
    struct tls_context **place = &c->contexts[2 * index + (grade == TLS_CIPHERS_HIGH)];
    if (!*place)
        *place = make_context(c, &versions, (enum tls_cipher_grade)grade, e);
    return *place;
}

/* ---- connections ------------------------------------------------------------- */

/* The name for SNI; empty: none. An address is never sent (RFC 6066 section 3). */
static struct slice server_name(const struct session *s, const struct tls_need *need)
{
    struct slice name = need->servername;
    unsigned char raw[16];
    if (slice_eq(name, SLICE("hostname")) || (need->tlsa.len > 0 && name.len == 0))
        name = slice_str(s->host);
    return tls_is_host_name(name) && network_address(name, raw) < 0 ? name : SLICE("");
}

static int add_records(SSL *ssl, struct slice list, struct err *e)
{
    struct ipc_cursor c = ipc_list_cursor(list);
    struct ipc_tlsa t;
    unsigned usable = 0;
    while (ipc_tlsa_next(&c, &t)) {
        const unsigned char *data = (const unsigned char *)t.data.ptr;
        usable += SSL_dane_tlsa_add(ssl, t.usage, t.selector, t.matching, data, t.data.len) > 0;
    }
    return usable ? 0 : err_set(e, "none of its TLSA records can be used");
}

/* RFC 7672: names of the server are of no concern to DANE-EE(3) records; those of
 * DANE-TA(2) may name the MX host, the domain, or the name where the host's aliases end. */
static int enable_dane(struct tls *tls, const struct session *s, const struct tls_need *need,
                       struct err *e)
{
    SSL *ssl = tls_native(tls);
    struct slice list = need->names, name;
    if (SSL_dane_enable(ssl, s->host) <= 0)
        return err_set(e, "DANE cannot be used with this host name");
    SSL_dane_set_flags(ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    while (tls_match_next(&list, &name)) {
        char *text = slice_dup(name);
        if (!slice_eq(name, SLICE("hostname")))
            (void)SSL_add1_host(ssl, text);
        free(text);
    }
    return add_records(ssl, need->tlsa, e);
}

struct tls *client_tls_new(struct client_tls *c, const struct config *config, struct session *s,
                           const struct tls_need *need, struct err *e)
{
    struct tls_context *context = context_of(c, config, need, e);
    if (!context)
        return NULL;
    struct tls *tls = tls_new(context, server_name(s, need));
    tls_set_owner(tls, s);
    if (need->tlsa.len > 0 && enable_dane(tls, s, need, e) < 0) {
        tls_free(tls);
        return NULL;
    }
    if (config->smtp_tls_session_cache_timeout > 0)
        tls_sessions_offer(c, s, tls);
    return tls;
}

/* ---- servers whose TLS did not work ------------------------------------------- */

struct tls_failure {
    struct list link; /* in oldest_failed */
    int64_t until;    /* clock_mono */
    size_t key_len;
    char key[];
};

static struct slice failure_key(const void *value)
{
    const struct tls_failure *f = value;
    return slice_make(f->key, f->key_len);
}

static void failure_forget(struct client_tls *c, struct tls_failure *f)
{
    map_remove(&c->failed, failure_key(f));
    list_remove(&f->link);
    free(f);
}

void tls_failed_note(struct client_tls *c, struct slice server, int64_t seconds)
{
    struct tls_failure *f = map_get(&c->failed, server);
    if (f)
        failure_forget(c, f);
    if (seconds <= 0)
        return;
    if (c->failed.count >= TLS_FAILED_MAX)
        failure_forget(c, container_of(c->oldest_failed.next, struct tls_failure, link));
    f = xmalloc(sizeof *f + server.len);
    *f =
        (struct tls_failure){.until = clock_mono() + seconds * CLOCK_SECOND, .key_len = server.len};
    memcpy(f->key, server.ptr, server.len);
    list_push(&c->oldest_failed, &f->link);
    map_put(&c->failed, f);
}

bool tls_failed_lately(struct client_tls *c, struct slice server)
{
    struct tls_failure *f = map_get(&c->failed, server);
    if (!f)
        return false;
    if (f->until > clock_mono())
        return true;
    failure_forget(c, f);
    return false;
}

/* ---- life -------------------------------------------------------------------- */

void client_tls_init(struct client_tls *c)
{
    *c = (struct client_tls){.authorities = BUF_INIT(TLS_AUTHORITIES_MAX)};
    map_init(&c->failed, failure_key);
    list_init(&c->oldest_failed);
    list_init(&c->oldest_sessions);
    tls_sessions_clear(c);
}

void client_tls_free(struct client_tls *c)
{
    struct buf none = BUF_INIT(0);
    client_tls_authorities(c, &none);
    map_free(&c->sessions);
    map_clear(&c->failed, free);
    map_free(&c->failed);
    list_init(&c->oldest_failed);
}

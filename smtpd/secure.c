#include "smtpd/secure.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "core/log.h"
#include "core/mem.h"
#include "ipc/ipc.h"
#include "smtpd/session.h"
#include "tls/protocols.h"

/* OpenSSL's words for our grades. A key elsewhere cannot decrypt, so the key
 * exchange is always ephemeral. */
#define CIPHERS_HIGH "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM:!aNULL:!AESCCM8"
#define CIPHERS_MEDIUM CIPHERS_HIGH ":ECDHE+AES"

/* ---- the process ------------------------------------------------------------------- */

void secure_configure(struct secure *sec, const struct config *config)
{
    sec->has_keys = strcmp(config->smtpd_tls_key_process, "smtpd") == 0;
    sec->immediate = config->smtpd_tls_wrappermode;
    sec->required = sec->immediate || strcmp(config->smtpd_tls_security_level, "encrypt") == 0;
    sec->offered = sec->required || strcmp(config->smtpd_tls_security_level, "may") == 0;
}

void secure_free(struct secure *sec)
{
    tls_context_free(sec->context);
    sec->context = NULL;
    OPENSSL_cleanse(sec->tickets, sizeof sec->tickets);
    xfree(&sec->input);
}

static const char *groups_of(const struct config *config, char *list, size_t size)
{
    if (strcmp(config->smtpd_tls_eecdh_grade, "strong") == 0)
        return "P-256";
    if (strcmp(config->smtpd_tls_eecdh_grade, "ultra") == 0)
        return "P-384";
    struct slice rest = slice_str(config->tls_eecdh_auto_curves), element;
    size_t len = 0;
    list[0] = '\0';
    while (config_list_next(&rest, &element) && len + element.len + 2 < size)
        len +=
            (size_t)snprintf(list + len, size - len, "%s%.*s", len ? ":" : "", SLICE_ARG(element));
    return list;
}

static struct tls_context *make_context(const struct secure *sec, const struct config *config,
                                        const char *service, struct slice authorities,
                                        struct err *e)
{
    static const int versions[] = {
        [TLS_VERSION_1_2] = TLS1_2_VERSION, [TLS_VERSION_1_3] = TLS1_3_VERSION};
    char groups[512];
    unsigned char id[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    struct tls_protocols protocols;
    const char *grade =
        sec->required ? config->smtpd_tls_mandatory_ciphers : config->smtpd_tls_ciphers;
    if (tls_protocols_parse(slice_str(sec->required ? config->smtpd_tls_mandatory_protocols
                                                    : config->smtpd_tls_protocols),
                            &protocols, e) < 0)
        return NULL;
    if (EVP_Digest(service, strlen(service), id, &len, EVP_sha256(), NULL) != 1)
        panic("no SHA-256");
    struct tls_settings settings = {
        .server = true,
        .min_version = versions[protocols.lowest],
        .max_version = versions[protocols.highest],
        .ciphers = strcmp(grade, "high") == 0 ? CIPHERS_HIGH : CIPHERS_MEDIUM,
        .groups = groups_of(config, groups, sizeof groups),
        .security_level = sec->required ? 2 : 1,
        .ask_certificate = config->smtpd_tls_ask_ccert,
        .require_certificate = config->smtpd_tls_req_ccert,
        .authorities = authorities,
        .session_context = slice_make(id, len),
        .session_seconds = config->smtpd_tls_session_cache_timeout,
    };
    return tls_context_new(&settings, e);
}

static int add_identities(struct tls_context *c, struct slice list, struct err *e)
{
    struct ipc_cursor at = ipc_list_cursor(list);
    struct ipc_tls_identity id;
    while (ipc_tls_identity_next(&at, &id)) {
        struct tls_key key = {.pem = id.secret, .number = id.key};
        if (id.kind == TLS_RECORD_IDENTITY && tls_context_add(c, id.name, id.chain, &key, e) < 0)
            return err_prefix(e, "certificate %s", log_esc(id.name));
    }
    return at.failed ? err_set(e, "master's list of certificates is damaged") : 0;
}

static int use_list(struct secure *sec, const struct config *config, const char *service,
                    struct slice list, struct err *e)
{
    struct ipc_cursor at = ipc_list_cursor(list);
    struct ipc_tls_identity id;
    struct slice authorities = SLICE("");
    while (ipc_tls_identity_next(&at, &id))
        if (id.kind == TLS_RECORD_AUTHORITIES)
            authorities = id.chain;
    struct tls_context *fresh = make_context(sec, config, service, authorities, e);
    if (!fresh || add_identities(fresh, list, e) < 0) {
        tls_context_free(fresh);
        return -1;
    }
    tls_context_tickets(fresh, sec->tickets, sec->ticket_count);
    tls_context_free(sec->context);
    sec->context = fresh;
    return 0;
}

int secure_certificates(struct secure *sec, const struct config *config, const char *service,
                        int fd, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(e, "certificates from master");
    if (st.st_size <= 0 || st.st_size > BUNDLE_MAX)
        return err_set(e, "%lld bytes of certificates from master", (long long)st.st_size);
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return err_sys(e, "certificates from master");
    int rc = use_list(sec, config, service, slice_make(data, (size_t)st.st_size), e);
    munmap(data, (size_t)st.st_size);
    return rc;
}

int secure_tickets(struct secure *sec, struct slice keys, struct err *e)
{
    size_t size = sizeof sec->tickets[0];
    if (keys.len % size || keys.len / size > TLS_TICKET_KEYS)
        return err_set(e, "%zu bytes of ticket keys", keys.len);
    sec->ticket_count = keys.len / size;
    memcpy(sec->tickets, keys.ptr, keys.len);
    if (sec->context)
        tls_context_tickets(sec->context, sec->tickets, sec->ticket_count);
    return 0;
}

/* ---- a session ----------------------------------------------------------------------- */

bool secure_is_on(const struct session *s)
{
    return s->tls && tls_established(s->tls);
}

void secure_binding(const struct session *s, struct secure_binding *out)
{
    *out = (struct secure_binding){.exporter_len = 0};
    if (!secure_is_on(s))
        return;
    out->exporter_len = tls_exporter(s->tls, out->exporter) ? sizeof out->exporter : 0;
    out->endpoint_len = tls_endpoint(s->tls, out->endpoint);
}

bool secure_ready(const struct session *s)
{
    const struct secure *sec = &s->server->secure;
    return sec->context && (sec->has_keys || s->server->keys.channel);
}

void secure_begin(struct session *s)
{
    s->tls = tls_new(s->server->secure.context, SLICE(""));
    s->mode = INPUT_TLS;
    s->taken = true; /* the whole handshake has one deadline (B74) */
}

static void report_failure(const struct session *s)
{
    const char *alert = tls_alert(s->tls), *error = tls_error(s->tls);
    log_info("SSL_accept error from %s: %s%s%s", s->peer, *error ? error : "the client has left",
             *alert ? "; the client's alert: " : "", alert);
}

enum tls_status secure_handshake(struct session *s, struct slice *in)
{
    for (;;) {
        enum tls_status status = tls_handshake(s->tls, in);
        if (status == TLS_SIGN) {
            struct tls_signing wanted = tls_wanted_signature(s->tls);
            if (keys_ask(&s->server->keys, s, &wanted)) {
                s->wait = WAIT_SIGN;
                return status;
            }
            tls_signed(s->tls, SLICE(""));
            continue;
        }
        if (status == TLS_BROKEN || status == TLS_CLOSED)
            report_failure(s);
        return status;
    }
}

/* ---- the client's certificate ------------------------------------------------------------ */

static char *escaped(const char *text)
{
    struct buf b = BUF_INIT(5 * TLS_NAME_MAX);
    buf_add_escaped(&b, slice_str(text), TLS_NAME_MAX);
    char *result = slice_dup(buf_slice(&b));
    buf_free(&b);
    return result;
}

static void take_certificate(struct session *s)
{
    struct tls_peer peer;
    tls_peer(s->tls, &peer);
    if (!peer.present)
        return;
    struct certificate *c = s->certificate = xcalloc(1, sizeof *c);
    c->verified = peer.verified;
    c->subject = escaped(peer.subject);
    c->issuer = escaped(peer.issuer);
    memcpy(c->fingerprint, peer.fingerprint, sizeof c->fingerprint);
    memcpy(c->key_fingerprint, peer.key_fingerprint, sizeof c->key_fingerprint);
    if (!peer.verified && s->server->config->smtpd_tls_loglevel > 0)
        log_info("certificate verification failed for %s: %s", s->peer, peer.problem);
}

void secure_forget_certificate(struct session *s)
{
    if (!s->certificate)
        return;
    free(s->certificate->subject);
    free(s->certificate->issuer);
    free(s->certificate->refused);
    xfree(&s->certificate);
}

bool secure_may_relay(const struct session *s)
{
    const struct certificate *c = s->certificate;
    struct slice list = slice_str(s->server->config->relay_clientcerts), element;
    while (c && config_list_next(&list, &element))
        if (slice_caseeq(element, slice_str(c->fingerprint)) ||
            slice_caseeq(element, slice_str(c->key_fingerprint)))
            return true;
    return false;
}

static void log_connection(const struct session *s)
{
    const struct certificate *c = s->certificate;
    int64_t level = s->server->config->smtpd_tls_loglevel;
    struct tls_facts facts;
    char text[512];
    struct buf b = {text, 0, sizeof text, sizeof text - 1};
    tls_facts(s->tls, &facts);
    if (level < (facts.resumed ? 2 : 1))
        return;
    tls_describe(&facts, &b);
    tls_describe_more(&facts, &b);
    text[b.len] = '\0';
    log_info("%s TLS connection established from %s: %s",
             !c            ? "Anonymous"
             : c->verified ? "Trusted"
                           : "Untrusted",
             s->peer, text);
    if (c && level >= 2)
        log_info("%s: subject_CN=%s, issuer_CN=%s, fingerprint=%s, pkey_fingerprint=%s", s->peer,
                 c->subject, c->issuer, c->fingerprint, c->key_fingerprint);
}

void secure_established(struct session *s)
{
    take_certificate(s);
    log_connection(s);
    s->mode = INPUT_COMMAND;
    s->state = STATE_GREETED;
    s->esmtp = false;
    login_free(&s->login);
    xfree(&s->helo);
    tx_reset(s);
}

/* ---- words -------------------------------------------------------------------------------- */

/* A name as a comment can hold it. */
static void add_name(struct buf *out, const char *name)
{
    buf_addc(out, '"');
    for (; *name; name++)
        buf_addc(out, strchr("()\\\"", *name) ? '?' : *name);
    buf_addc(out, '"');
}

void secure_received(const struct session *s, struct buf *out)
{
    const struct config *config = s->server->config;
    const struct certificate *c = s->certificate;
    struct tls_facts facts;
    if (!secure_is_on(s) || !config->smtpd_tls_received_header)
        return;
    tls_facts(s->tls, &facts);
    buf_addstr(out, "\t(using ");
    tls_describe(&facts, out);
    if (*facts.key_exchange || *facts.signature) {
        buf_addstr(out, "\r\n\t");
        tls_describe_more(&facts, out);
    }
    buf_addstr(out, ")\r\n\t(");
    if (c) {
        buf_addstr(out, "Client CN ");
        add_name(out, c->subject);
        buf_addstr(out, ", Issuer ");
        add_name(out, c->issuer);
        buf_printf(out, " (%s)", c->verified ? "verified OK" : "not verified");
    } else {
        buf_addstr(out, config->smtpd_tls_ask_ccert || config->smtpd_tls_req_ccert
                            ? "Client did not present a certificate"
                            : "No client certificate requested");
    }
    buf_addstr(out, ")\r\n");
}

/* ---- the end ------------------------------------------------------------------------------ */

/* What the socket does not take at once is not worth waiting for. */
static void send_rest(struct session *s)
{
    struct slice out = tls_output(s->tls);
    if (out.len == 0)
        return;
    ssize_t n = send(s->fd, out.ptr, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0)
        tls_sent(s->tls, (size_t)n);
}

void secure_close(struct session *s)
{
    keys_forget(&s->server->keys, &s->key);
    secure_forget_certificate(s);
    if (!s->tls)
        return;
    tls_shutdown(s->tls);
    send_rest(s);
    tls_free(s->tls);
    s->tls = NULL;
}

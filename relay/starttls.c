/* STARTTLS (RFC 3207): whether, the handshake, and what the server's certificate
 * must be like before mail goes over the connection. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "core/log.h"
#include "core/mem.h"
#include "relay/connect.h"
#include "relay/outcome.h"
#include "relay/slots.h"
#include "relay/verify.h"

enum { REASON_MAX = 255 /* bytes of a rule's, in a report */ };

static const struct config *config_of(const struct session *s)
{
    return s->relay->service->config;
}

static void need_of(const struct session *s, struct tls_need *out)
{
    rules_find(s->job, slice_str(s->host), out);
}

/* Who asks for it, for the text that operators read. */
static const char *asker(const struct session *s, const struct tls_need *need)
{
    if (need->required && need->origin != TLS_ORIGIN_DANE && need->origin != TLS_ORIGIN_STS)
        return "REQUIRETLS of the message";
    if (need->origin != TLS_ORIGIN_CONFIG)
        return tls_origin_name(need->origin);
    return s->lmtp ? "lmtp_tls_security_level" : "smtp_tls_security_level";
}

/* Valid until the next call. */
static struct slice server_key(const struct session *s)
{
    static struct buf b = BUF_INIT(NET_TEXT_MAX + 16);
    buf_clear(&b);
    buf_printf(&b, "%s:%u", s->address, s->port);
    return buf_slice(&b);
}

/* ---- reports (RFC 8460) -------------------------------------------------------- */

static void own_address(const struct session *s, char out[NET_TEXT_MAX])
{
    struct sockaddr_storage own = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof own;
    struct slice raw = SLICE("");
    if (getsockname(s->wire.fd, (struct sockaddr *)&own, &len) == 0) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&own;
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&own;
        if (own.ss_family == AF_INET)
            raw = slice_make(&v4->sin_addr, 4);
        else if (own.ss_family == AF_INET6)
            raw = slice_make(&v6->sin6_addr, 16);
    }
    net_text(raw, 0, out);
}

/* Once for each connection. */
static void starttls_report(struct session *s, enum tls_result result, const char *why)
{
    struct tls_need need;
    char source[NET_TEXT_MAX];
    if (s->tls.reported || s->job->m.tls_report.len == 0 || !s->relay->qmgr)
        return;
    s->tls.reported = true;
    need_of(s, &need);
    own_address(s, source);
    struct ipc_tls_session m = {.domain = s->job->m.tls_report,
                                .origin = (uint8_t)need.origin,
                                .result = (uint8_t)result,
                                .host = slice_str(s->host),
                                .address = slice_str(s->address),
                                .source = slice_str(source),
                                .why = slice_str(why)};
    ipc_tls_session_encode(channel_out(s->relay->qmgr), &m);
}

/* ---- failures ---------------------------------------------------------------- */

/* The server cannot be used for this message; the next one may be. REQUIRETLS: no
 * other way than back, if no server is better (RFC 8689 section 4.2.1). */
static void refuse(struct session *s, const struct tls_need *need, const struct verdict *v,
                   bool answered)
{
    if (need->required) {
        struct verdict final = *v;
        final.enhanced = SLICE("5.7.30");
        s->refused = true;
        session_fail(s, &final, answered);
        return;
    }
    s->unfit = true;
    session_fail(s, v, answered);
}

/* The handshake failed, or the connection was lost in it. At level may the same
 * server gets the message in clear text, and for a while all others. */
static void broken(struct session *s, const struct tls_need *need, const char *why)
{
    struct relay *relay = s->relay;
    struct job *j = s->job;
    struct verdict v = verdict_local(STAGE_STARTTLS, "4.7.5", "TLS with %s[%s] failed: %s", s->host,
                                     s->address, why);
    starttls_report(s, TLS_RESULT_VALIDATION, why);
    if (need->level != TLS_LEVEL_MAY) {
        s->unfit = true;
        session_fail(s, &v, false);
        return;
    }
    log_warning("TLS with %s[%s]:%u failed: %s; clear text for %llds", s->host, s->address, s->port,
                why, (long long)config_of(s)->smtp_tls_fallback_time);
    tls_failed_note(&relay->client_tls, server_key(s), config_of(s)->smtp_tls_fallback_time);
    job_note_failure(j, &v);
    s->job = NULL;
    slots_hand_on(s, j);
    session_close(s);
    connect_again_clear(relay, j);
}

void starttls_lost(struct session *s, const char *why)
{
    struct tls_need need;
    need_of(s, &need);
    broken(s, &need, why);
}

/* ---- before ------------------------------------------------------------------- */

static void not_offered(struct session *s, const struct tls_need *need)
{
    struct verdict v =
        verdict_local(STAGE_STARTTLS, "4.7.4", "TLS is required (%s), but %s[%s] does not offer it",
                      asker(s, need), s->host, s->address);
    starttls_report(s, TLS_RESULT_NOT_SUPPORTED, "STARTTLS is not offered");
    refuse(s, need, &v, true);
}

enum starttls_next starttls_wanted(struct session *s)
{
    struct tls_need need;
    bool offered = (s->ehlo.features & EHLO_STARTTLS) != 0;
    if (s->tls.on)
        return STARTTLS_GO_ON;
    need_of(s, &need);
    if (need.level == TLS_LEVEL_NONE)
        return STARTTLS_GO_ON;
    if (need.level == TLS_LEVEL_MAY && (!offered || s->job->clear_text ||
                                        tls_failed_lately(&s->relay->client_tls, server_key(s)))) {
        if (!offered)
            starttls_report(s, TLS_RESULT_NOT_SUPPORTED, "STARTTLS is not offered");
        return STARTTLS_GO_ON;
    }
    if (offered)
        return STARTTLS_BEGIN;
    not_offered(s, &need);
    return STARTTLS_ENDED;
}

void starttls_begin(struct session *s)
{
    if (buf_addstr(session_queue(s), "STARTTLS\r\n") < 0)
        panic("commands longer than WIRE_OUT_MAX");
    session_enter(s, SESSION_STARTTLS);
}

void starttls_on_reply(struct session *s, const struct smtp_reply *r)
{
    struct tls_need need;
    struct err e;
    need_of(s, &need);
    if (r->code / 100 == 2) {
        struct tls *tls = client_tls_new(&s->relay->client_tls, config_of(s), s, &need, &e);
        if (!tls) {
            broken(s, &need, e.text);
            return;
        }
        session_enter(s, SESSION_HANDSHAKE);
        wire_start_tls(&s->wire, tls);
        starttls_go_on(s);
        return;
    }
    starttls_report(s, TLS_RESULT_NOT_SUPPORTED, "STARTTLS is refused");
    struct verdict v = verdict_of_reply(STAGE_STARTTLS, r);
    if (need.level == TLS_LEVEL_MAY) {
        transaction_begin(s);
        return;
    }
    s->unfit = true;
    session_fail(s, &v, true); /* what it says may change */
}

/* ---- the handshake -------------------------------------------------------------- */

static const char *const peer_words[] = {[TLS_PEER_UNTRUSTED] = "Untrusted",
                                         [TLS_PEER_TRUSTED] = "Trusted",
                                         [TLS_PEER_VERIFIED] = "Verified"};

static void describe(struct session *s)
{
    struct tls_facts facts;
    struct buf text = BUF_INIT(512), more = BUF_INIT(512);
    tls_facts(s->wire.tls, &facts);
    tls_describe(&facts, &text);
    tls_describe_more(&facts, &more);
    xfree(&s->tls.text);
    s->tls.text = slice_dup(buf_slice(&text));
    if (config_of(s)->smtp_tls_loglevel > 0)
        log_info("%s TLS connection established to %s[%s]:%u: %s%.*s", peer_words[s->tls.peer],
                 s->host, s->address, s->port, s->tls.text, SLICE_ARG(buf_slice(&more)));
    buf_free(&text);
    buf_free(&more);
}

/* Whether the server is to be who it should be. */
static bool must_verify(const struct tls_need *need)
{
    return !need->testing && (need->tlsa.len > 0 || need->level == TLS_LEVEL_VERIFY ||
                              need->level == TLS_LEVEL_SECURE);
}

static void established(struct session *s)
{
    struct tls_need need;
    struct verification found;
    char why[REASON_MAX + 1];
    need_of(s, &need);
    verify_server(s, &need, &found);
    s->tls.peer = found.peer;
    describe(s);
    bool expected = must_verify(&need) || need.testing;
    if (need.result != TLS_RESULT_SUCCESS && !expected) {
        snprintf(why, sizeof why, "%.*s", SLICE_ARG(need.why));
        starttls_report(s, need.result, why);
    } else {
        starttls_report(s, expected ? found.result : TLS_RESULT_SUCCESS, found.why);
    }
    if (must_verify(&need) && found.peer != TLS_PEER_VERIFIED) {
        struct verdict v = verdict_local(STAGE_STARTTLS, "4.7.5",
                                         "the certificate of %s[%s] is not accepted (%s): %s",
                                         s->host, s->address, asker(s, &need), found.why);
        refuse(s, &need, &v, false);
        return;
    }
    s->tls.on = true;
    tls_sessions_accept(s);
    hello_again(s);
}

bool starttls_suffices(struct session *s)
{
    struct tls_need need;
    if (s->job->tls_wish != TLS_WISH_REQUIRED || s->lmtp || (s->ehlo.features & EHLO_REQUIRETLS))
        return true;
    need_of(s, &need);
    struct verdict v = verdict_local(STAGE_EHLO, "5.7.30",
                                     "the message requires TLS all the way (REQUIRETLS), which "
                                     "%s[%s] does not offer",
                                     s->host, s->address);
    refuse(s, &need, &v, true);
    return false;
}

void starttls_go_on(struct session *s)
{
    struct tls_need need;
    int error;
    switch (wire_handshake(&s->wire)) {
    case WIRE_AGAIN:
        return;
    case WIRE_OK:
        established(s);
        session_flush(s);
        return;
    case WIRE_LOST:
        error = errno;
        need_of(s, &need);
        broken(s, &need,
               error == EPROTO ? "the server breaks the protocol"
               : error         ? strerror(error)
                               : "the connection was closed in the handshake");
        return;
    case WIRE_BROKEN:
        need_of(s, &need);
        broken(s, &need, wire_trouble(&s->wire));
        return;
    }
}

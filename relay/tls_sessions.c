/* Sessions that may be resumed, by pool key (so for equal rules only) and server
 * address. A session is used once (RFC 8446 appendix C.4): the server gives new
 * ones. */
#include "core/mem.h"
#include "relay/client_tls.h"
#include "relay/session.h"

struct tls_saved {
    struct list link; /* in oldest_sessions */
    SSL_SESSION *session;
    int64_t until;  /* clock_mono */
    uint8_t status; /* enum tls_peer_status: what was known of the server */
    size_t key_len;
    char key[];
};

static struct slice saved_key(const void *value)
{
    const struct tls_saved *v = value;
    return slice_make(v->key, v->key_len);
}

static void forget(struct client_tls *c, struct tls_saved *v)
{
    map_remove(&c->sessions, saved_key(v));
    list_remove(&v->link);
    SSL_SESSION_free(v->session);
    free(v);
}

/* Valid until the next call; empty for a session without a site. */
static struct slice key_of(const struct session *s)
{
    static struct buf b = BUF_INIT(2 * IPC_FRAME_MAX);
    buf_clear(&b);
    if (!s->site || buf_add(&b, &s->port, sizeof s->port) < 0 || buf_addstr(&b, s->address) < 0 ||
        buf_addc(&b, '\0') < 0 || buf_add(&b, s->site->key, s->site->key_len) < 0)
        return SLICE("");
    return buf_slice(&b);
}

/* Takes over `session`. */
static void save(struct session *s, SSL_SESSION *session)
{
    struct client_tls *c = &s->relay->client_tls;
    int64_t seconds = s->relay->service->config->smtp_tls_session_cache_timeout;
    struct slice key = key_of(s);
    if (key.len == 0 || seconds <= 0 || !SSL_SESSION_is_resumable(session)) {
        SSL_SESSION_free(session);
        return;
    }
    struct tls_saved *v = map_get(&c->sessions, key);
    if (v)
        forget(c, v);
    if (c->sessions.count >= TLS_SESSIONS_MAX)
        forget(c, container_of(c->oldest_sessions.next, struct tls_saved, link));
    v = xmalloc(sizeof *v + key.len);
    *v = (struct tls_saved){.session = session,
                            .until = clock_mono() + seconds * CLOCK_SECOND,
                            .status = s->tls.peer,
                            .key_len = key.len};
    memcpy(v->key, key.ptr, key.len);
    list_push(&c->oldest_sessions, &v->link);
    map_put(&c->sessions, v);
}

/* With TLS 1.3 sessions come behind the handshake, with TLS 1.2 inside of it, when
 * the server has not been checked yet. 1: we keep the reference. */
static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct session *s = tls_owner(tls_of(ssl));
    if (s->tls.accepted) {
        save(s, session);
        return 1;
    }
    SSL_SESSION_free(s->tls.fresh);
    s->tls.fresh = session;
    return 1;
}

void tls_sessions_install(SSL_CTX *native)
{
    SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(native, on_new_session);
}

void tls_sessions_offer(struct client_tls *c, struct session *s, struct tls *tls)
{
    struct tls_saved *v = map_get(&c->sessions, key_of(s));
    if (!v)
        return;
    if (v->until > clock_mono() && SSL_set_session(tls_native(tls), v->session) == 1)
        s->tls.known = v->status;
    forget(c, v);
}

void tls_sessions_accept(struct session *s)
{
    SSL *ssl = tls_native(s->wire.tls);
    SSL_SESSION *fresh = s->tls.fresh;
    if (!fresh && SSL_session_reused(ssl) && SSL_version(ssl) == TLS1_2_VERSION)
        fresh = SSL_get1_session(ssl); /* no new one comes */
    s->tls.accepted = true;
    s->tls.fresh = NULL;
    if (fresh)
        save(s, fresh);
}

void tls_sessions_drop(struct session *s)
{
    SSL_SESSION_free(s->tls.fresh);
    s->tls.fresh = NULL;
    xfree(&s->tls.text);
}

void tls_sessions_clear(struct client_tls *c)
{
    while (!list_empty(&c->oldest_sessions))
        forget(c, container_of(c->oldest_sessions.next, struct tls_saved, link));
    if (!c->sessions.key)
        map_init(&c->sessions, saved_key);
}
